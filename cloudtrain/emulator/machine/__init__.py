"""A machine of the emulated region: disk, init system, metadata, sshd."""

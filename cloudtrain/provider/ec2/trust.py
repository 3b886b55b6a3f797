"""Who trusts whom: a client key and a host key for each run, both made here before the machine exists."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from cloudtrain.core import disk
from cloudtrain.core.errors import ConnectionFailed, HostKeyMismatch, UsageError
from cloudtrain.core.events import Emit, Noted, Warned
from cloudtrain.core.notes import Journal
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.transport.base import Transport
from cloudtrain.transport.ssh_keys import PublicKey, fingerprint, new_key, parse_public_key, public_key

# Both run by `sh -c` as root. The new key is made on the machine and never leaves it. Its public half goes to the
# console, as cloud-init prints the first one: whoever has lost the pin can read it there by the AWS API (`adopt`).
MAKE = """\
set -eu
umask 077
folder="${CLOUDTRAIN_ROOT:-}/etc/ssh"
rm -f "$folder/.cloudtrain_new" "$folder/.cloudtrain_new.pub"
ssh-keygen -q -t ed25519 -N '' -C '' -f "$folder/.cloudtrain_new"
cat "$folder/.cloudtrain_new.pub"
"""
INSTALL = """\
set -eu
folder="${CLOUDTRAIN_ROOT:-}/etc/ssh"
chmod 644 "$folder/.cloudtrain_new.pub"
mv -f "$folder/.cloudtrain_new.pub" "$folder/ssh_host_ed25519_key.pub"
mv -f "$folder/.cloudtrain_new" "$folder/ssh_host_ed25519_key"
{
  echo '-----BEGIN SSH HOST KEY KEYS-----'
  cat "$folder/ssh_host_ed25519_key.pub"
  echo '-----END SSH HOST KEY KEYS-----'
} 2> /dev/null >> "${CLOUDTRAIN_ROOT:-}/dev/console" || true
systemctl reload ssh || systemctl reload sshd
"""

CONFIRM_S = 20.0


def keys_folder(run: str) -> Path:
    """Where the keys of `run` lie; only this user may look inside."""
    return disk.state_dir() / "keys" / run


def client_key(run: str) -> Path:
    """File of the private key that logs in to the run's machine, made if it is not there."""
    path = keys_folder(run) / "client"
    if path.exists():
        try:
            public_key(path)
            return path
        except UsageError:
            # Torn by a crash while it was written: nothing was launched with it.
            path.unlink()
    new_key(path)
    return path


def new_host_key(run: str) -> tuple[str, PublicKey]:
    """A fresh host key: the private half as OpenSSH text, which is kept nowhere here, and the public one to pin."""
    path = keys_folder(run) / "host"
    path.unlink(missing_ok=True)
    public = new_key(path)
    private = path.read_text(encoding="ascii")
    path.unlink()
    return private, public


def copy_keys(run: str, to: str) -> None:
    """The keys of `run`, whose machine the run `to` is to take over, as its own, too."""
    shutil.copytree(keys_folder(run), disk.private_dir(keys_folder(to)), dirs_exist_ok=True)


def forget(run: str) -> None:
    """Delete the run's keys; the machine that they open is gone."""
    shutil.rmtree(keys_folder(run), ignore_errors=True)


def connect_pinned(connect: Callable[[PublicKey], Transport], journal: Journal, emit: Emit) -> Transport:
    """Connect by the pinned host key, or by the one that was being put in its place when a command was killed.

    Raises:
        HostKeyMismatch: the machine shows neither.
        ConnectionFailed: as `transport.ssh.connect`.
    """
    notes = journal.read(Ec2Notes)
    pinned, coming = notes.host_key, notes.next_host_key
    assert pinned is not None
    try:
        return connect(pinned)
    except HostKeyMismatch:
        if not coming:
            raise
        transport = connect(coming)
    journal.write(Ec2Notes(host_key=coming, next_host_key=None, host_key_rotated=True))
    emit(Noted(f"host key {fingerprint(coming)} confirmed"))
    return transport


def rotate(
    transport: Transport,
    connect: Callable[[PublicKey], Transport],
    journal: Journal,
    emit: Emit,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Transport:
    """Replace the host key that came with the user data, which others in the account can read, and pin the new one.

    The pin in the journal changes only after a fresh connection has been made with the new key; until then both are on
    the disk, so that a crash at any point leaves one that fits.

    Returns:
        The connection to go on with; `transport` is closed if it is another.

    Raises:
        HostKeyMismatch: after the change the machine shows a third key.
    """
    made = transport.run(["sudo", "-n", "sh", "-c", MAKE], timeout=60)
    fresh = " ".join(made.stdout.decode("ascii", "replace").split()[:2])
    try:
        if made.exit_code != 0:
            raise UsageError(made.stderr.decode(errors="replace").strip()[-200:])
        if parse_public_key(fresh)[0] != "ssh-ed25519":
            raise UsageError(f"not an ed25519 key: {fresh[:40]!r}")
    except UsageError as error:
        emit(Warned(f"the host key of the launch is kept, a new one could not be made: {error.message}"))
        journal.write(Ec2Notes(host_key_rotated=True))
        return transport
    old = journal.read(Ec2Notes).host_key
    assert old is not None
    journal.write(Ec2Notes(next_host_key=fresh))
    installed = transport.run(["sudo", "-n", "sh", "-c", INSTALL], timeout=60)
    deadline = time.monotonic() + CONFIRM_S
    while True:
        try:
            confirmed = connect(fresh)
            break
        except HostKeyMismatch:
            # It must then still show the old one. If not, it has changed between the two looks, or is not our machine.
            try:
                kept = connect(old)
            except HostKeyMismatch:
                confirmed = connect(fresh)
                break
            if installed.exit_code != 0 or time.monotonic() > deadline:
                transport.close()
                emit(Warned("the host key of the launch is kept: the machine did not take the new one"))
                # The next key stays noted: the machine may show it after its next start.
                journal.write(Ec2Notes(host_key_rotated=True))
                return kept
            kept.close()
        except ConnectionFailed:
            if time.monotonic() > deadline:
                raise
        sleep(0.3)
    journal.write(Ec2Notes(host_key=fresh, next_host_key=None, host_key_rotated=True))
    transport.close()
    return confirmed

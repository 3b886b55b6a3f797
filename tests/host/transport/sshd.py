"""A real OpenSSH server on a loopback port, with keys and settings of its own and nothing of this computer's."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

SSHD = shutil.which("sshd") or next((p for p in ("/usr/sbin/sshd", "/usr/local/sbin/sshd") if Path(p).exists()), None)


def missing() -> str | None:
    """Why there can be no server here, in words; None: there can."""
    if os.name == "nt":
        return "the OpenSSH server of Windows runs as a service alone"
    if SSHD is None:
        return "no OpenSSH server here: apt-get install openssh-server"
    return None


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Sshd:
    """`sshd` for this user alone. Everything it needs lies in `folder`; `with` starts and ends it.

    Attributes:
        port: where it listens, the same after a restart.
        user: whom it lets in: the user of this process.
        identity: file of the private key that it accepts.
        host_key: its public key, as OpenSSH writes it.
        log: its own log, LogLevel DEBUG1.
        home: HOME of its sessions, empty; `python3` there is the interpreter of the tests.
    """

    def __init__(self, folder: Path, *, settings: tuple[str, ...] = (), host_key_type: str = "ed25519") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.user = getpass.getuser()
        self.identity = self._keygen("client")
        self.log = folder / "sshd.log"
        self._authorized = folder / "authorized_keys"
        self._authorized.write_bytes(self.identity.with_suffix(".pub").read_bytes())
        self._settings = settings
        self.home = folder / "home"
        self.home.mkdir(exist_ok=True)
        self.new_host_key(host_key_type)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def new_host_key(self, kind: str = "ed25519") -> None:
        """Replace the host key; counts from the next start."""
        self._host_key_file = self._keygen("host", kind)
        self.host_key = " ".join(self._host_key_file.with_suffix(".pub").read_text().split()[:2])

    def trust(self, public: str) -> None:
        """Let this client key in too."""
        with self._authorized.open("a") as file:
            file.write(public + "\n")

    def _keygen(self, name: str, kind: str = "ed25519") -> Path:
        path = self.folder / name
        for old in (path, path.with_suffix(".pub")):
            old.unlink(missing_ok=True)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "test", "-f", str(path)], check=True, timeout=60
        )
        return path

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        assert SSHD is not None
        if os.geteuid() == 0:
            # Its privilege separation folder; packages make it at boot alone.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        # sshd takes the first line that says something, so the test's own come before these.
        lines = (
            *self._settings,
            f"ListenAddress 127.0.0.1:{self.port}",
            f"HostKey {self._host_key_file}",
            f"AuthorizedKeysFile {self._authorized}",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "MaxStartups 100",
            "MaxSessions 100",
            "UseDNS no",
            "PrintMotd no",
            "Subsystem sftp internal-sftp",
            "LogLevel DEBUG1",
            # A home of its own, and a shell level at which bash does not read the developer's .bashrc. The login
            # directory stays the real home: there is no setting for it, so tests name absolute folders.
            f'SetEnv "HOME={self.home}" SHLVL=2 "PATH={Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"',
        )
        config = self.folder / "sshd_config"
        config.write_text("\n".join(lines) + "\n")
        command = [SSHD, "-D", "-f", str(config), "-E", str(self.log)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                if probe.recv(4) == b"SSH-":
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"sshd did not start:\n{self.log.read_text() if self.log.exists() else ''}")
            time.sleep(0.02)

    def _orphans(self) -> list[int]:
        """Process ids of what its sessions have left behind, known by their HOME."""
        mark = f"HOME={self.home}".encode()
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in environ.read_bytes().split(b"\0"):
                    found.append(int(environ.parent.name))
        return found

    def sessions(self) -> list[int]:
        """Process ids of the connections that it serves."""
        assert self._process is not None
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self._process.pid)], capture_output=True, text=True, timeout=10
        )
        return [int(word) for word in listed.stdout.split()]

    def stop(self) -> None:
        """End it, every connection that it serves, and (on Linux) every process that they started."""
        process = self._process
        if process is None:
            return
        sessions = self.sessions()
        process.terminate()
        process.wait(10)
        for pid in [*sessions, *self._orphans()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

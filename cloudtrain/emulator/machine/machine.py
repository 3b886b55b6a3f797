"""One machine of the region: a folder as its disk, cloud-init, an init system, metadata, sshd and real programs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncssh

from cloudtrain.emulator import posix_shell, processes
from cloudtrain.emulator.faults import Faults
from cloudtrain.emulator.machine import cloudinit, shims
from cloudtrain.emulator.machine.metadata import MetadataService
from cloudtrain.emulator.machine.sshd import SshServer, own_address
from cloudtrain.emulator.machine.systemd import Systemd, end_tasks

BOOTCMD_LIMIT_S = 120.0
CONSOLE_KEPT = 64 * 1024
_LIMITED = """import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a machine is told about its instance; the functions are asked anew each time.

    Attributes:
        id: instance id; `mark`: what its processes carry in their environment.
        root: folder that is its disk.
        user: login user of the image.
        user_data: decoded user data as it is now.
        key_pair: public key of the launch's key pair, or None.
        pages: metadata below `/latest/`.
        admits: whether the security groups let an address in on port 22.
        power: told when the machine powers itself off.
        extra: further variables of every session.
        grace_s: seconds between SIGTERM and SIGKILL when it goes down.
    """

    id: str
    mark: str
    root: Path
    user: str
    user_data: Callable[[], bytes]
    key_pair: str | None
    pages: Callable[[], Mapping[str, str]]
    tokens_required: Callable[[], bool]
    admits: Callable[[str], bool]
    power: Callable[[], None]
    extra: Mapping[str, str]
    faults: Faults
    boot_s: float
    grace_s: float


class Machine:
    """Lives in the region's event loop; `reserve`, `boot` and `go_down` are the only doors."""

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self._printed = ""
        self.sshd: SshServer | None = None
        self.boots = 0
        self._address = "127.0.0.1"
        self._booted = time.monotonic()
        self._boot: asyncio.Task[None] | None = None
        self._final: set[asyncio.Task[None]] = set()
        self._start_anew()

    def _start_anew(self) -> None:
        around = self.around
        self.systemd = Systemd(
            self.root,
            execute=self._execute,
            power=around.power,
            reload_ssh=self._reload_ssh,
            log=self._print,
            inhibited=lambda: around.faults.find("inhibited") is not None,
        )
        self._metadata = MetadataService(around.pages, self.systemd.systemctl, tokens_required=around.tokens_required)

    @property
    def root(self) -> Path:
        """The machine's file system."""
        return self.around.root

    @property
    def home(self) -> Path:
        """Login directory."""
        return self.root / "home" / self.around.user

    @property
    def console(self) -> str:
        """What went to the console so far: the boot's lines, then what programs wrote to `dev/console`."""
        try:
            written = (self.root / "dev" / "console").read_bytes().decode(errors="replace")
        except OSError:
            written = ""
        return (self._printed + written.replace("\n", "\r\n"))[-CONSOLE_KEPT:]

    def host_keys(self) -> list[str]:
        """Public host keys on the disk now, OpenSSH format."""
        return [p.read_text().strip() for p in sorted((self.root / "etc" / "ssh").glob("ssh_host_*_key.pub"))]

    def reserve(self, *, port: int | None = None) -> tuple[str, int]:
        """Take an address and port, a new one or the old one again: nothing listens yet, so connections are refused."""
        if port is None:
            self._address, port = own_address(), 0
            # Another host, another serial port: what was printed before the stop is gone.
            self._printed = ""
            (self.root / "dev" / "console").unlink(missing_ok=True)
        self.sshd = SshServer(
            self._address,
            root=self.root,
            environment=self.environment,
            prefix=self._prefix,
            admits=self.around.admits,
            faults=self.around.faults,
            port=port,
        )
        return self.sshd.address, self.sshd.port

    def start(self) -> None:
        """Begin to boot, in the background."""
        self._boot = asyncio.create_task(self._boot_up())
        self._boot.add_done_callback(self._boot_ended)

    def _boot_ended(self, task: asyncio.Task[None]) -> None:
        # A machine that cannot boot stays unreachable, as a real one does; its console says why.
        if not task.cancelled() and (error := task.exception()) is not None:
            self._print(f"Kernel panic - not syncing: {error!r}")

    async def go_down(self, *, grace: float | None = None) -> None:
        """End every program and close every port; the disk stays."""
        await end_tasks([t for t in (self._boot, *self._final) if t is not None and t is not asyncio.current_task()])
        await self.systemd.stop_all()
        await asyncio.to_thread(
            processes.end_all, self.around.mark, grace=self.around.grace_s if grace is None else grace
        )
        if self.sshd is not None:
            await self.sshd.close()
            self.sshd = None
        await self._metadata.close()
        self._print("systemd: Reached target poweroff.target - System Power Off.")

    async def drop_sshd(self, back_after: float | None) -> None:
        """sshd ends, programs go on; it listens again on the same port after so many seconds, if at all."""
        if self.sshd is None:
            return
        port = self.sshd.port
        await self.sshd.close()
        if back_after is not None:
            await asyncio.sleep(back_after)
            self.reserve(port=port)
            self.sshd.open()

    def destroy_disk(self) -> None:
        """Delete the machine's file system."""
        shutil.rmtree(self.root, ignore_errors=True)

    def environment(self, user: str, home: Path) -> dict[str, str]:
        """What a session or service finds in its environment."""
        path = [str(self.root / "usr" / "local" / "shims")]
        if os.name == "posix":
            path += ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
            if sys.platform == "darwin":
                path.append("/opt/homebrew/bin")
        else:
            path.append(os.environ.get("PATH", ""))
        found = {
            "HOME": str(home),
            "USER": user,
            "LOGNAME": user,
            "SHELL": posix_shell.find() or "/bin/sh",
            "PATH": os.pathsep.join(path),
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.root / "tmp"),
            "CLOUDTRAIN_ROOT": str(self.root),
            processes.MARK: self.around.mark,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self._metadata.url,
            **self.around.extra,
        }
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "SYSTEMROOT", "COMSPEC", "PATHEXT"):
            if name in os.environ:
                found[name] = os.environ[name]
        return found

    async def _boot_up(self) -> None:
        self.boots += 1
        self._booted = time.monotonic()
        self._print(f"Linux version 6.8.0-aws ({self.around.id}), boot {self.boots}")
        self._start_anew()
        # The service port first: metadata answers before anything else on a real machine as well.
        await self._metadata.open()
        slow = self.around.faults.find("slow-boot")
        await asyncio.sleep(self.around.boot_s + (slow.number(0, 0) if slow else 0))
        data = cloudinit.parse(self.around.user_data())
        if data.problem:
            self._print(f"cloud-init: WARNING: {data.problem}")
        first = not (self.root / "var" / "lib" / "cloud" / "instance").exists()
        self._prepare_disk(data, first=first)
        self._tell_uptime()
        self._in_background(self._keep_uptime())
        for argv in data.bootcmd:
            await self._run_as_root(argv, BOOTCMD_LIMIT_S)
        if first:
            # cloud-init's mark that the keys of this instance are made, which it does after `bootcmd`.
            (self.root / "var" / "lib" / "cloud" / "instance" / "sem").mkdir()
            (self.root / "var" / "lib" / "cloud" / "instance" / "sem" / "config_ssh").touch()
        self.systemd.boot()
        assert self.sshd is not None
        self.sshd.open()
        self._print("systemd: Started ssh.service - OpenBSD Secure Shell server.")
        self._in_background(self._final_stage(data, first=first))
        if dies := self.around.faults.find("sshd-dies"):
            away = dies.number(1, 0) if len(dies.values) > 1 else None
            self._in_background(self._sshd_dies(dies.number(0, 0), away))

    def _tell_uptime(self) -> None:
        uptime = self.root / "proc" / "uptime"
        uptime.with_suffix(".new").write_text(f"{time.monotonic() - self._booted:.2f} 0.00\n")
        uptime.with_suffix(".new").replace(uptime)

    async def _keep_uptime(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            # A reader on Windows keeps it from being replaced; the next second will do.
            with contextlib.suppress(OSError):
                self._tell_uptime()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._final.add(task)
        task.add_done_callback(self._final.discard)

    async def _sshd_dies(self, after: float, away: float | None) -> None:
        await asyncio.sleep(after)
        await self.drop_sshd(away)

    def _prepare_disk(self, data: cloudinit.UserData, *, first: bool) -> None:
        # It is memory on a real one.
        shutil.rmtree(self.root / "run", ignore_errors=True)
        folders = ("tmp", "run", "root", "dev", "etc/ssh", "etc/systemd/system", "var/log", "proc/sys/kernel/random")
        for name in folders:
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.home / ".ssh").mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.root / "proc/sys/kernel/random/boot_id").write_text(f"{uuid.uuid4()}\n")
        shims.write(self.root / "usr" / "local" / "shims", port=self._metadata.port, secret=self._metadata.secret)
        if not first:
            return
        (self.root / "var" / "lib" / "cloud" / "instance").mkdir(parents=True)
        folder = self.root / "etc" / "ssh"
        for kind, text in (data.host_keys or _fresh_host_keys()).items():
            try:
                key = asyncssh.import_private_key(text)
            except asyncssh.KeyImportError as error:
                self._print(f"cloud-init: WARNING: the {kind} host key cannot be used: {error}")
                continue
            _write_private(folder / f"ssh_host_{kind}_key", text if text.endswith("\n") else text + "\n")
            (folder / f"ssh_host_{kind}_key.pub").write_bytes(key.export_public_key())
        keys = [*data.authorized_keys, *([self.around.key_pair] if self.around.key_pair else [])]
        for user, theirs in {**data.users, self.around.user: (*keys, *data.users.get(self.around.user, ()))}.items():
            folder = self.home.with_name(user) / ".ssh"
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write_private(folder / "authorized_keys", "".join(f"{key.strip()}\n" for key in theirs))

    async def _final_stage(self, data: cloudinit.UserData, *, first: bool) -> None:
        """Of the first boot: user scripts, then the host keys on the console. In this order, as cloud-init has it."""
        if first:
            for argv in data.runcmd:
                await self._run_as_root(argv, 3600)
            if data.script:
                path = self.root / "var" / "lib" / "cloud" / "instance" / "user-data"
                _write_private(path, data.script)
                path.chmod(0o700)
                await self._run_as_root([str(path)], 3600)
            self._print("-----BEGIN SSH HOST KEY KEYS-----", *self.host_keys(), "-----END SSH HOST KEY KEYS-----")
        self._print(
            f"cloud-init: finished at {datetime.now(UTC):%a, %d %b %Y %H:%M:%S} +0000. Datasource DataSourceEc2Local"
        )

    async def _execute(self, argv: list[str]) -> int:
        return await self._run_as_root(argv, None)

    async def _run_as_root(self, argv: list[str], limit: float | None) -> int:
        """Run a program with the machine's environment; its output goes to the console."""
        environment = self.environment("root", self.root / "root")
        shell = argv[0] in ("sh", "bash", "/bin/sh", "/bin/bash")
        program = posix_shell.find() if shell else shutil.which(argv[0], path=environment["PATH"])
        if program is None:
            self._print(f"{argv[0]}: not found")
            return 127
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *argv[1:],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self.root,
                env=environment,
                start_new_session=os.name == "posix",
            )
        except OSError as error:
            self._print(f"{argv[0]}: {error}")
            return 126
        try:
            async with asyncio.timeout(limit):
                output, _ = await process.communicate()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            self._print(f"{argv[0]}: ended after {limit:.0f} s")
            return 124
        except asyncio.CancelledError:
            # A service that is stopped ends with all that it has started.
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
            raise
        if output:
            self._print(*output.decode(errors="replace").rstrip("\n").split("\n"))
        return process.returncode or 0

    def _prefix(self) -> list[str]:
        """What is put before a session's command line: a limit on file sizes where the disk is to be full."""
        full = self.around.faults.find("disk-full")
        if full is None or os.name != "posix":
            return []
        return [sys.executable, "-IS", "-c", _LIMITED, str(int(full.number(0, 0)))]

    def _reload_ssh(self) -> None:
        if self.sshd is not None:
            self.sshd.load_keys()

    def _print(self, *lines: str) -> None:
        self._printed = (self._printed + "".join(f"{line}\r\n" for line in lines))[-CONSOLE_KEPT:]


def _fresh_host_keys() -> dict[str, str]:
    return {
        "ecdsa": asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_private_key().decode(),
        "ed25519": asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode(),
    }


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")

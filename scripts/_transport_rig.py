"""What bench_transport.py measures on: a real sshd, two ways to it, OpenSSH's own programs, and cloudtrain's."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shlex
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from _terminal import ROOT, Stop, say

sys.path.insert(0, str(ROOT))

RTT_S = 0.030
RATE = 6.25e6
"""Bytes a second each way: 50 Mbit/s."""


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def server(folder: Path) -> Any:
    """A real sshd of its own (tests/host/transport/sshd.py)."""
    module = _load("cloudtrain_bench_sshd", ROOT / "tests" / "transport" / "sshd.py")
    reason = module.missing()
    if reason:
        raise Stop("there is nothing to measure against", hint=reason)
    return module.Sshd(folder, settings=("LogLevel ERROR",))


class RelayProcess:
    """scripts/relay.py as a process of its own, so that it does not share an interpreter with what is measured."""

    def __init__(self, target: int) -> None:
        command = [sys.executable, str(ROOT / "scripts" / "relay.py"), "--to", str(target)]
        command += ["--rtt", str(RTT_S * 1000), "--rate", str(RATE / 1e6)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._answer()["port"])

    def tell(self, words: str) -> dict[str, Any]:
        """`freeze`, `thaw`, `reset`, `cut down 1000`, `carried`; answers with the bytes carried."""
        assert self._process.stdin is not None
        self._process.stdin.write(words + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=20)


class OpenSsh:
    """OpenSSH's client over one shared, open connection (ControlMaster)."""

    def __init__(self, sshd: Any, port: int, folder: Path) -> None:
        known = folder / f"known_{port}"
        known.write_text(f"[127.0.0.1]:{port} {sshd.host_key}\n")
        # Alone: -F none keeps the user's configuration out, and the path stays short enough for a socket.
        alone = ["-F", "none", "-q", "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes"]
        alone += ["-o", "IdentitiesOnly=yes", "-o", f"IdentityFile={sshd.identity}", "-o", f"Port={port}"]
        self.alone = alone
        self.shared = [*alone, "-o", f"ControlPath={folder}/cm{port}"]
        self.place = f"{sshd.user}@127.0.0.1"
        self._master = subprocess.Popen(["ssh", *self.shared, "-o", "ControlMaster=yes", "-N", self.place])
        deadline = time.monotonic() + 20
        while subprocess.run(["ssh", *self.shared, "-O", "check", self.place], capture_output=True).returncode:
            if time.monotonic() > deadline:
                raise Stop("the shared OpenSSH connection did not open", hint="try again")
            time.sleep(0.05)

    def ssh(self, command: str) -> str:
        """`command` on the host, as one word sequence of a local shell line."""
        return shlex.join(["ssh", *self.shared, self.place, command])

    def shell(self, line: str) -> None:
        """A local shell line that must succeed."""
        subprocess.run(["bash", "-o", "pipefail", "-c", line], check=True, timeout=300, stdin=subprocess.DEVNULL)

    def rsync(self, *arguments: str) -> None:
        """rsync over the shared connection."""
        through = shlex.join(["ssh", *self.shared])
        subprocess.run(["rsync", "-e", through, *arguments], check=True, timeout=300, stdin=subprocess.DEVNULL)

    def scp(self, *arguments: str) -> None:
        """scp over the shared connection."""
        subprocess.run(["scp", *self.shared, *arguments], check=True, timeout=300, stdin=subprocess.DEVNULL)

    def close(self) -> None:
        """End the shared connection."""
        self._master.terminate()
        self._master.wait(10)


@dataclass
class Way:
    """One way to the server: straight, or behind the relay."""

    name: str
    port: int
    ssh: OpenSsh
    far: bool


@dataclass
class Rig:
    """Everything that is measured on; `with rig(...)` makes and ends it."""

    folder: Path
    sshd: Any
    relay: RelayProcess
    ways: list[Way]
    counter: Iterator[int] = field(default_factory=lambda: iter(range(10**9)))

    def connect(self, way: Way) -> Any:
        """A fresh transport of cloudtrain's."""
        from cloudtrain.transport.ssh import connect

        return connect("127.0.0.1", way.port, self.sshd.user, self.sshd.identity, self.sshd.host_key)

    def fresh(self, stem: str) -> Path:
        """A path on the "host" that nothing is at."""
        return self.folder / "host" / f"{stem}{next(self.counter)}"


@contextlib.contextmanager
def rig(folder: Path) -> Iterator[Rig]:
    """Start the server, the relay and the shared connections; end them all."""
    # Nothing of this user's own is read or written.
    os.environ["CLOUDTRAIN_HOME"] = str(folder / "home")
    for name in ("cloud", "host", "local"):
        (folder / name).mkdir()
    with server(folder / "sshd") as sshd, RelayProcess(sshd.port) as relay, contextlib.ExitStack() as stack:
        ways = []
        for name, port, far in (("loopback", sshd.port, False), ("30 ms, 50 Mbit/s", relay.port, True)):
            ssh = OpenSsh(sshd, port, folder)
            stack.callback(ssh.close)
            ways.append(Way(name, port, ssh, far))
        yield Rig(folder, sshd, relay, ways)


def rotate(title: str, methods: Mapping[str, Callable[[], float | None]], rounds: int) -> dict[str, list[float]]:
    """Run the methods in turn, `rounds` times after one that is not counted; seconds of each.

    A method that returns a number has measured itself.
    """
    found: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(rounds + 1):
        say(f"  {title}: {'warming up' if number == 0 else f'round {number} of {rounds}'}")
        for name, method in methods.items():
            began = time.perf_counter()
            own = method()
            seconds = own if own is not None else time.perf_counter() - began
            if number:
                found[name].append(seconds)
    return found


def median(values: list[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def source_tree(folder: Path, files: int = 200, size: int = 2_000_000) -> int:
    """Fill `folder` with real source code: `files` files, about `size` bytes in all; returns the bytes."""
    wanted, total = size / files, 0
    folder.mkdir(parents=True)
    candidates = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"), key=lambda p: abs(p.stat().st_size - wanted))
    for number, path in enumerate(candidates[:files]):
        place = folder / f"part{number % 10}" / f"{number:03}_{path.name}"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(path.read_bytes())
        total += place.stat().st_size
    return total


def data_tree(folder: Path, files: int, each: int) -> None:
    """Fill `folder` with `files` files of `each` random bytes."""
    for number in range(files):
        place = folder / f"part{number % 40}" / f"{number:05}.bin"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(os.urandom(each))

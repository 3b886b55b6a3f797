"""pip, for people: one line that says what it is at, all it prints in a log, and its failures in plain words."""

from __future__ import annotations

import contextlib
import platform
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from _require_python import dotted
from _terminal import ROOT, Stop, elapsed, environment, say, short, this_command

# A pip that is this new stays as it is.
QUICK_PIP = "pip>=25"


def install(python: Path, requirement: str, log: Path) -> None:
    """Install `requirement`, editable, with the pip of `python`.

    Raises:
        Stop: pip failed; the message says why, as far as its output tells.
    """
    env = _environment()
    _quick_pip(python, env)
    command = [*_command(python), "--editable", requirement]
    if not sys.dont_write_bytecode:
        # Python compiles the few modules that are imported when they are; pip would take as long again for all.
        command.append("--no-compile")
    child = subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    with child:
        try:
            tail = _watch(child, log)
        except BaseException:
            # Ctrl-C has reached pip, too: it gets a moment to remove its temporary files.
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                child.wait(timeout=10)
            child.kill()
            raise
    if child.returncode:
        raise diagnose(tail, "pip could not install cloudtrain", log)


def _quick_pip(python: Path, env: dict[str, str]) -> None:
    """See to it that the pip of `python` is one that reads an index quickly, where one can be had.

    The one that Python 3.11 brings took 59 s of computing to choose the 126 packages of `dev`, a recent one 27 s, and 2
    to get it. Without an index it stays: the installation itself says what is wrong then.
    """
    command = [*_command(python), "--no-compile", "--quiet", "--retries", "0", QUICK_PIP]
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)


def _command(python: Path) -> list[str]:
    quiet = ["--disable-pip-version-check", "--no-input", "--no-color", "--progress-bar", "off"]
    return [str(python), "-m", "pip", "install", *quiet]


def _environment() -> dict[str, str]:
    # User-wide settings such as `user = true` or a target folder cannot work in a virtual environment.
    env = {**environment(), "PIP_USER": "0", "PYTHONIOENCODING": "utf-8"}
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"):
        env.pop(name, None)
    return env


def _watch(child: subprocess.Popen[bytes], log: Path) -> list[str]:
    """Show what pip is at until it ends. Returns its last lines."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert child.stdout is not None
        for raw in child.stdout:
            lines.put(raw.decode("utf-8", "replace").rstrip())
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    tail: deque[str] = deque(maxlen=400)
    began = time.monotonic()
    status = "starting pip"
    with _writer(log) as write, _Line() as show:
        while True:
            try:
                line = lines.get(timeout=0.5)
            except queue.Empty:
                show(f"  install      {elapsed(time.monotonic() - began):>8}  {status}")
                continue
            if line is None:
                child.wait()
                return list(tail)
            tail.append(line)
            write(line)
            status = reading(line) or status


@contextlib.contextmanager
def _writer(log: Path) -> Iterator[Callable[[str], None]]:
    with log.open("w", encoding="utf-8", newline="\n", buffering=1) as file:

        def write(line: str) -> None:
            # On a full disk pip's own words matter more than a complete log; `_watch` keeps them.
            with contextlib.suppress(OSError):
                file.write(line + "\n")

        try:
            yield write
        finally:
            with contextlib.suppress(OSError):
                file.flush()


class _Line:
    """One line drawn over and over on a terminal; elsewhere a line each 20 seconds."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.last = time.monotonic()

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self._draw("")

    def __call__(self, text: str) -> None:
        if self.live:
            self._draw(text)
        elif time.monotonic() - self.last >= 20:
            self.last = time.monotonic()
            say(text)

    def _draw(self, text: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write("\r" + text[:width].ljust(width) + "\r")
        sys.stderr.flush()


_WHEEL = re.compile(
    r"(?:Downloading|Using cached|Processing) (?:\S*/)?(?P<name>[\w.]+)-(?P<version>\d[^-\s]*)-\S*\.whl"
    r"(?P<metadata>\.metadata)?(?: \((?P<size>[\d.]+ \w+)\))?"
)


def reading(line: str) -> str | None:
    """What a line of pip's output says it is at; None: nothing new."""
    line = line.strip()
    if "Retrying (Retry" in line:
        return "the package index does not answer; trying again"
    if line.startswith("Installing build dependencies"):
        return "preparing"
    if line.startswith("Installing collected packages:"):
        return f"unpacking {line.count(',') + 1} packages"
    match = _WHEEL.match(line)
    if match is None:
        return None
    what = f"{match['name']} {match['version']}"
    if match["metadata"]:
        return f"looking at {what}"
    return f"fetching {what}" + (f" ({match['size']})" if match["size"] else "")


# What pip prints, what it means, what to do; the first that matches is told. The disk comes before the network, because
# a full disk also breaks downloads.
_CAUSES = (
    (
        r"No space left on device|Errno 28|WinError 112|not enough space on the disk|Disk quota exceeded",
        "the disk is full: {space}",
        "free some space (for the temporary files, TMPDIR may name another disk), then: {again}",
    ),
    (
        r"Long Path support",
        "a path became too long for Windows",
        r"move this repository to a short path such as C:\cloudtrain, then run it there: {again}",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError",
        "the package index's certificate was not accepted",
        "a proxy or virus scanner may sit in between: set PIP_CERT to its certificate file, then: {again}",
    ),
    (
        r"NewConnectionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|Max retries exceeded|name resolution"
        r"|getaddrinfo failed|Connection (?:refused|reset|aborted)|Network is unreachable|RemoteDisconnected",
        "the package index cannot be reached",
        "check the network, a proxy (HTTPS_PROXY) and pip's settings (pip config list), then: {again}",
    ),
    (
        r"No matching distribution found for torch\b",
        "PyTorch has no build for this Python ({python}, {machine})",
        "use a 64-bit Python 3.11 to 3.13 (on a Mac: one with an Apple chip), then: {again}",
    ),
    (
        r"No matching distribution found for (?P<what>[^\s;]+)",
        "the package index gave no {what} for this Python ({python}, {machine})",
        "check the network and pip's settings (pip config list), then: {again}",
    ),
    (
        r"Permission denied|WinError (?:5|32)\b",
        "a file in .venv could not be written",
        "close programs that use .venv and check who owns it, then: {again}",
    ),
)


def diagnose(output: Sequence[str], otherwise: str, log: Path) -> Stop:
    """What to tell about a failure of pip or venv that printed `output`; `otherwise` if that says nothing known."""
    temporary = Path(tempfile.gettempdir())
    facts = {
        "again": this_command(),
        "python": dotted(sys.version_info),
        "machine": f"{platform.system()} {platform.machine()}",
        "space": f"{_free(ROOT)} free in {ROOT}, {_free(temporary)} in {temporary}",
    }
    message, hint = otherwise, "see the log, then: {again}"
    for pattern, told, advice in _CAUSES:
        if match := re.search(pattern, "\n".join(output)):
            facts |= match.groupdict()
            message, hint = told, advice
            break
    lines = [line.strip() for line in output if line.strip()]
    errors = [line for line in lines if re.match(r"(ERROR|Error|OSError)\b", line)]
    quoted = [line[:200] for line in (errors or [line for line in lines if not line.startswith("WARNING")])[-3:]]
    if log.exists():
        quoted.append(f"log: {short(log)}")
    return Stop(message.format(**facts), hint=hint.format(**facts), detail=quoted)


def _free(folder: Path) -> str:
    return f"{shutil.disk_usage(folder).free / 1e9:.1f} GB"

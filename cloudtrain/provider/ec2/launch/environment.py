"""The interpreter that trains: found on the image, or made complete.

A Deep Learning AMI has torch in a virtual environment of its own and lacks only what the job needs beside it. On an
image without torch nothing is installed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudtrain.core.decode import Odd, json_object, made
from cloudtrain.core.errors import ConnectionFailed, UsageError
from cloudtrain.core.events import Emit, StepDone, StepProgress, StepStarted
from cloudtrain.core.host import HostFacts
from cloudtrain.transport.base import Transport

# Made by us below the login directory, once for each machine.
OWN_FOLDER = "cloudtrain/env"
OWN_PYTHON = f"{OWN_FOLDER}/bin/python"

PACKAGES_LIMIT_S = 300.0

# Prints what this interpreter is and which of the requirements in argv it lacks. Never imports torch.
EXAMINE = r"""
import json, os, re, sys, sysconfig
from importlib import metadata
try:
    from packaging.requirements import Requirement
except ImportError:
    try:
        from pip._vendor.packaging.requirements import Requirement
    except ImportError:
        Requirement = None
def lacks(text):
    name = re.match(r"[A-Za-z0-9._-]+", text)
    try:
        have = metadata.version(name.group())
    except Exception:
        return True
    return bool(Requirement) and not Requirement(text).specifier.contains(have, prereleases=True)
def there(name):
    try:
        return metadata.version(name)
    except Exception:
        return None
site = sysconfig.get_path("purelib")
print(json.dumps({
    "python": os.path.abspath(sys.executable),
    "version": list(sys.version_info[:2]),
    "torch": there("torch"),
    "pip": there("pip") is not None,
    "lacks": [text for text in sys.argv[1:] if lacks(text)],
    "writable": sys.prefix != sys.base_prefix and os.access(site, os.W_OK),
    "sites": sorted({site, sysconfig.get_path("platlib"), *(p for p in sys.path if p.endswith("-packages"))}),
}))
"""

# Makes the folder in argv[1] an environment that sees the packages in argv[3:]; argv[2]: whether with a pip of its own.
EXTEND = r"""
import os, subprocess, sys
folder, pip, sites = sys.argv[1], sys.argv[2], sys.argv[3:]
subprocess.run([sys.executable, "-m", "venv", *([] if pip else ["--without-pip"]), "--clear", folder], check=True)
python = os.path.join(folder, "bin", "python")
own = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                     check=True, stdout=subprocess.PIPE, universal_newlines=True).stdout.strip()
with open(os.path.join(own, "image.pth"), "w") as file:
    file.write("\n".join(sites) + "\n")
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python on the host.

    Attributes:
        python: its absolute path.
        torch: version of its torch, or None.
        lacks: requirements that it does not meet.
        writable: packages may be installed into it: it is a virtual environment of this user's.
        sites: folders that it finds packages in.
    """

    python: str
    torch: str | None
    lacks: tuple[str, ...]
    writable: bool
    pip: bool
    sites: tuple[str, ...]


def prepare(transport: Transport, facts: HostFacts, job_requirements: Path | None, emit: Emit) -> str:
    """The interpreter on the host that has torch and what the job requires, installing what is missing beside torch.

    Args:
        facts: what the supervisor's probe found.
        job_requirements: a file of requirements in pip's format, or None.

    Raises:
        ConnectionFailed: there is no torch, or the rest could not be installed in time.
        UsageError: the requirements are not readable.
    """
    wanted = read_requirements(job_requirements)
    began = time.monotonic()
    found = _best(transport, facts, wanted)
    if found is None:
        looked = f"none of these has it: {', '.join(facts.looked)}"
        raise _failed("find torch", f"{facts.python} has none" if facts.why == "given" else looked)
    if not found.lacks:
        return found.python
    emit(StepStarted("packages", f"adding {', '.join(found.lacks)}", PACKAGES_LIMIT_S))
    ready = _complete(transport, found, wanted, emit)
    emit(StepDone("packages", f"added {', '.join(found.lacks)}", time.monotonic() - began))
    return ready.python


def read_requirements(path: Path | None) -> list[str]:
    """The requirements in a file, without comments.

    Raises:
        UsageError: it holds options or links, which are not followed on a host, or cannot be read.
    """
    if path is None or not path.exists():
        return []
    try:
        lines = [line.split(" #")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}", code="requirements") from error
    wanted = [line for line in lines if line and not line.startswith("#")]
    for line in wanted:
        if line.startswith("-") or "://" in line or "@" in line:
            raise UsageError(
                f"{path.name} holds {line!r}: only names and versions can be installed on the instance",
                hint="list packages as name>=version",
                consequence="nothing was installed",
                code="requirements",
            )
    return wanted


def _best(transport: Transport, facts: HostFacts, wanted: Sequence[str]) -> Interpreter | None:
    """The first interpreter that has torch and all that is wanted, else the first that has torch."""
    best: Interpreter | None = None
    for python in _candidates(facts):
        found = _examine(transport, python, wanted)
        if found is None or not found.torch:
            continue
        if not found.lacks:
            return found
        best = best or found
    return best


def _candidates(facts: HostFacts) -> list[str]:
    # What was made here before sees the same torch.
    return [OWN_PYTHON, facts.python] if facts.torch else []


def _examine(transport: Transport, python: str, wanted: Sequence[str]) -> Interpreter | None:
    answer = transport.run([python, "-c", EXAMINE, *wanted], timeout=60)
    try:
        return made(Interpreter, json_object(answer.stdout.rstrip().rpartition(b"\n")[2]))
    except Odd:
        return None


def _complete(transport: Transport, found: Interpreter, wanted: Sequence[str], emit: Emit) -> Interpreter:
    """Add what is missing beside torch: to the image's own environment, or to one of ours that sees it."""
    target = found.python
    if not (found.writable and found.pip):
        extend = [found.python, "-c", EXTEND, OWN_FOLDER, "" if found.pip else "pip", *found.sites]
        _check(transport, extend, 120.0, emit, "make an environment")
        target = OWN_PYTHON
    pip = [found.python if found.pip else target, "-m", "pip", "--python", target]
    pip += ["--disable-pip-version-check", "--no-input", "install", "--progress-bar", "off"]
    _check(transport, [*pip, *found.lacks], PACKAGES_LIMIT_S, emit, "install packages")
    ready = _examine(transport, target, wanted)
    if ready is None or not ready.torch or ready.lacks:
        missing = ", ".join(ready.lacks) if ready and ready.lacks else "torch"
        raise _failed("complete the environment", f"{missing} is still missing after the installation")
    return ready


def _check(transport: Transport, argv: Sequence[str], limit_s: float, emit: Emit, what: str) -> None:
    """Run one step of an installation, telling how it goes, for at most `limit_s` seconds."""
    began = time.monotonic()
    last = b""
    # A second limit, on the host: a program must not go on there after we have given up here.
    with transport.stream(["timeout", f"{limit_s:.0f}", *argv]) as stream:
        while True:
            gone = time.monotonic() - began
            if gone > limit_s + 10:
                raise _failed(what, f"not done within {limit_s:.0f} s")
            try:
                piece = stream.read(5.0)
            except TimeoutError:
                piece = None
            if piece == b"":
                break
            if piece:
                last = next((line for line in reversed(piece.splitlines()) if line.strip()), last)
            text = last.decode("utf-8", "replace").strip()[:100]
            emit(StepProgress("packages", text or what, done=gone, total=limit_s, unit="s"))
        ended = stream.finish(30.0)
    if ended.exit_code == 124:
        raise _failed(what, f"not done within {limit_s:.0f} s")
    if ended.exit_code != 0:
        said = ended.stderr.decode("utf-8", "replace").strip() or last.decode("utf-8", "replace")
        raise _failed(what, said[-1500:])


def _failed(what: str, why: str) -> ConnectionFailed:
    return ConnectionFailed(
        f"could not {what} on the instance",
        hint="leave out --ami to get an image that has torch, or install it on your own image; --python PATH names it",
        consequence="nothing has trained",
        code="environment",
        detail=why,
    )

"""A virtual environment with the project in it, or one clear message. Standard library only.

`prepare` makes `.venv` in the repository and installs the project into it. A stamp in it says what is there, so that
the next call neither starts pip nor touches the network.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _pip
from _require_python import MINIMUM, dotted
from _terminal import ROOT, Stop, elapsed, environment, say, this_command

VENV = ROOT / ".venv"
STAMP = VENV / "cloudtrain-install.json"
LOG = VENV / "install.log"
# Each extra of pyproject.toml with a module by which it is known to be there.
MODULES = {"local": "torch", "rehearse": "moto", "dev": "pytest"}

GB = 10**9
# With the CPU build of torch 2.13.0 everything comes to 1.5 GB on the disk, and pip needs room to unpack.
DISK_NEEDED = int(2.5 * GB)
# On Linux an index usually gives torch's CUDA build, which with its libraries comes to several GB.
DISK_NEEDED_CUDA = 9 * GB

Stamp = dict[str, Any]


def venv_python() -> Path:
    """The interpreter of `.venv`."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def prepare(extras: set[str]) -> Path:
    """Make `.venv` hold the project with `extras`, and return its interpreter. Under a second when it does already.

    Raises:
        Stop: it cannot be done; the message says why.
    """
    wanted = {"project": _project_digest(), "folder": str(ROOT)}
    with _taking_turns():
        stamp = _read_stamp()
        if _satisfies(stamp, wanted, extras) and not _broken(stamp):
            return venv_python()
        check_disk(shutil.disk_usage(ROOT).free, torch_is_there=_torch_is_there())
        _make_environment(stamp)
        all_extras = sorted(extras | set(stamp.get("extras", ())) & set(MODULES))
        say(f"  install      cloudtrain[{','.join(all_extras)}] into .venv: minutes the first time, nothing after that")
        began = time.monotonic()
        _write_stamp({"state": "installing", "extras": all_extras, **wanted})
        _pip.install(venv_python(), f".[{','.join(all_extras)}]", LOG)
        _write_stamp({"state": "ready", "extras": all_extras, **wanted})
        say(f"  install      done in {elapsed(time.monotonic() - began)}")
        return venv_python()


def check_disk(free: int, *, torch_is_there: bool) -> None:
    """Do not begin what cannot end well.

    Raises:
        Stop: `free` bytes cannot hold the installation.
    """
    if torch_is_there:
        return
    if free < DISK_NEEDED:
        raise Stop(
            f"{free / GB:.1f} GB are free on the disk of {ROOT}; PyTorch and the rest need {DISK_NEEDED / GB:.1f} GB",
            hint=f"free some space, or move the repository to another disk, then: {this_command()}",
        )
    if sys.platform == "linux" and free < DISK_NEEDED_CUDA:
        say(f"  disk         {free / GB:.1f} GB are free: enough for PyTorch's CPU build, not for its CUDA build")


def _satisfies(stamp: Stamp, wanted: Stamp, extras: set[str]) -> bool:
    # `dev` includes the others.
    there = set(stamp.get("extras", ()))
    same = all(stamp.get(key) == value for key, value in wanted.items())
    return stamp.get("state") == "ready" and same and (extras <= there or "dev" in there)


def _project_digest() -> str:
    """What decides on the installed packages: settings of linters and tests do not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    parts = [project.get("build-system"), project.get("project")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _read_stamp() -> Stamp:
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _write_stamp(stamp: Stamp) -> None:
    aside = STAMP.with_suffix(".part")
    aside.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8", newline="\n")
    aside.replace(STAMP)


def _broken(stamp: Stamp) -> str | None:
    """Why `.venv` cannot be used or added to, for people; None: it can."""
    if stamp.get("state") == "installing":
        return "an installation was interrupted"
    if stamp.get("folder", str(ROOT)) != str(ROOT):
        return "it was made for another folder"
    expected = []
    if stamp.get("state") == "ready":
        expected = ["cloudtrain", "pip", *(MODULES[extra] for extra in stamp.get("extras", ()) if extra in MODULES)]
    ask = (
        "import sys, importlib.util\n"
        "print(*sys.version_info[:2], *(n for n in sys.argv[1:] if not importlib.util.find_spec(n)))"
    )
    try:
        done = subprocess.run(
            [venv_python(), "-I", "-c", ask, *expected], capture_output=True, text=True, timeout=60, env=environment()
        )
        major, minor, *missing = done.stdout.split()
        version = int(major), int(minor)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return "its Python does not start"
    if version < MINIMUM:
        return f"its Python is {dotted(version)}"
    return f"{missing[0]} is missing from it" if missing else None


def _torch_is_there() -> bool:
    return any(VENV.glob("lib/python*/site-packages/torch/version.py")) or any(
        VENV.glob("Lib/site-packages/torch/version.py")
    )


def _make_environment(stamp: Stamp) -> None:
    """A new `.venv`, unless a sound one is there: that is added to."""
    clear = False
    if VENV.is_dir() and any(VENV.iterdir()):
        if not (VENV / "pyvenv.cfg").exists() and not STAMP.exists():
            raise Stop(
                f"{VENV} is there, and it is not a virtual environment", hint=f"move it away, then: {this_command()}"
            )
        why = _broken(stamp)
        if why is None and _has_pip():
            return
        clear = why is not None
        if clear:
            say(f"  environment  making .venv anew: {why}")
    else:
        say(f"  environment  making .venv with Python {dotted(sys.version_info)}")
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            raise _incomplete_python(module)
    # Run by the Python of a virtual environment, this one included, the one that it was made with is asked.
    base = getattr(sys, "_base_executable", None) or sys.executable
    command = [base, "-m", "venv", *(["--clear"] if clear else []), str(VENV)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=600, env=environment())
    except subprocess.TimeoutExpired:
        raise Stop("making .venv took more than ten minutes", hint=f"try again: {this_command()}") from None
    if done.returncode:
        raise _pip.diagnose((done.stdout + done.stderr).splitlines(), ".venv could not be made", LOG)


def _has_pip() -> bool:
    ask = "import importlib.util as u, sys; sys.exit(u.find_spec('pip') is None)"
    return subprocess.run([venv_python(), "-I", "-c", ask], timeout=60, env=environment()).returncode == 0


def _incomplete_python(module: str) -> Stop:
    if Path("/etc/debian_version").exists():
        package = f"python{dotted(sys.version_info[:2])}-venv"
        hint = f"sudo apt install {package}, then: {this_command()}"
    else:
        hint = f"install a complete Python, then: {this_command()}"
    return Stop(f"this Python ({sys.executable}) cannot make virtual environments: it has no {module}", hint=hint)


@contextlib.contextmanager
def _taking_turns() -> Iterator[None]:
    """Of two scripts that start together the second waits, and finds the work done."""
    with (ROOT / ".venv.lock").open("a") as file:
        told = False
        while not _try_lock(file.fileno()):
            if not told:
                say("  environment  another script is preparing .venv; waiting for it (Ctrl-C to leave)")
                told = True
            time.sleep(0.2)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

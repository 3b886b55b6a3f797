"""A virtual environment with the project in it, or one clear message. Standard library only.

`prepare` makes `.venv` in the repository and installs the project into it. A stamp in it says what is there, so that
the next call neither starts pip nor touches the network.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from _require_python import dotted
from _terminal import ROOT, Stop, elapsed, environment, say, short, this_command

VENV = ROOT / ".venv"
STAMP = VENV / "cloudtrain-install.json"
LOG = VENV / "install.log"

_PIP = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-color", "--progress-bar", "off"]
# Python compiles the few modules that are imported when they are; pip would take as long again for all.
_PIP += ["--no-compile"]
_NO_INDEX = re.compile(r"connection broken by|Max retries exceeded|CERTIFICATE_VERIFY_FAILED|ProxyError")


def venv_python(folder: Path | None = None) -> Path:
    """The interpreter of `.venv`, or of the virtual environment `folder`."""
    return (folder or VENV) / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def locked(extras: Collection[str]) -> Path:
    """The file that names what is installed for `extras`: versions, and the sha256 of each file that may be one."""
    return ROOT / "scripts" / "locked" / ("dev.txt" if "dev" in extras else "quickstart.txt")


def prepare(extras: set[str]) -> Path:
    """Make `.venv` hold the project with `extras`, and return its interpreter. Under a second when it does already.

    Raises:
        Stop: it cannot be done; the message says why.
    """
    with _taking_turns():
        found, works = _read_stamp(), _starts()
        every = extras | set(found.get("extras", ()))
        place = {"python": dotted(sys.version_info[:2]), "folder": str(ROOT)}
        # `dev` includes the others.
        chosen = ["dev"] if "dev" in every else sorted(every)
        wanted = {**place, "project": _project_digest(chosen), "extras": chosen}
        if works and found == {**wanted, "state": "ready"}:
            return venv_python()
        # One without a stamp was made by hand, and is added to.
        ours = not found or (found.get("state") == "ready" and place.items() <= found.items())
        if not (works and ours):
            _make_environment("an installation was interrupted" if found.get("state") == "installing" else "")
        _write_stamp({**wanted, "state": "installing"})
        _install(chosen)
        _write_stamp({**wanted, "state": "ready"})
        return venv_python()


def _make_environment(why: str) -> None:
    """A `.venv` with nothing but pip, in place of what is there."""
    if VENV.is_dir() and any(VENV.iterdir()):
        if not (VENV / "pyvenv.cfg").exists() and not STAMP.exists():
            raise Stop(f"{VENV} is not a virtual environment", hint=f"move it away, then: {this_command()}")
        say(f"  .venv        is made anew: {why or 'it is of another Python or another folder'}")
        shutil.rmtree(VENV)
    VENV.mkdir(exist_ok=True)
    _write_stamp({"state": "installing"})
    # Run by the Python of a virtual environment, this one included, the one that it was made with is asked.
    base = getattr(sys, "_base_executable", None) or sys.executable
    seconds = _step([base, "-m", "venv", str(VENV)], ".venv could not be made")
    say(f"  .venv        made with Python {dotted(sys.version_info)} in {elapsed(seconds)}")


def _install(extras: list[str]) -> None:
    pip, project = [str(venv_python()), *_PIP], f"[{','.join(extras)}]"
    say(f"  packages     cloudtrain{project}: minutes the first time, nothing after that (log: {short(LOG)})")
    otherwise = f"pip could not install cloudtrain{project}"
    seconds = _step([*pip, "--no-deps", "--require-hashes", "--requirement", str(locked(extras))], otherwise)
    # torch is left, of which everybody's index has a build of its own. What builds the project is here already.
    seconds += _step([*pip, "--no-build-isolation", "--editable", f".{project}"], otherwise)
    say(f"  packages     installed in {elapsed(seconds)}")


def _step(command: list[str], otherwise: str) -> float:
    """Run a program, all it prints in the log. Returns the seconds it took.

    Raises:
        Stop: it failed, with its last lines; `otherwise` is the message if they do not speak of the network.
    """
    began = time.monotonic()
    # A user-wide setting `user = true` cannot work in a virtual environment.
    env = {**environment(), "PIP_USER": "0", "PYTHONIOENCODING": "utf-8"}
    with LOG.open("ab") as log:
        start = log.tell()
        child = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        while not _ended(child, within_s=30):
            # Downloads of gigabytes are not to look like a program that hangs.
            say(f"  {elapsed(time.monotonic() - began):>11}  {_printed(start)[-1][:100]}")
    except BaseException:
        # Ctrl-C has reached pip, too: it gets a moment to remove its temporary files.
        with contextlib.suppress(KeyboardInterrupt):
            _ended(child, within_s=10)
        child.kill()
        raise
    if child.returncode == 0:
        return time.monotonic() - began
    lines = _printed(start)
    message, hint = otherwise, f"see the log, then: {this_command()}"
    if _NO_INDEX.search("\n".join(lines)):
        message = "the package index cannot be reached"
        hint = f"check the network, a proxy (HTTPS_PROXY) and pip's settings (pip config list), then: {this_command()}"
    raise Stop(message, hint=hint, detail=[*(line[:200] for line in lines[-5:]), f"log: {short(LOG)}"])


def _ended(child: subprocess.Popen[bytes], within_s: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(within_s)
    return child.returncode is not None


def _printed(start: int) -> list[str]:
    """The lines of the log from byte `start` on; one at least."""
    lines = LOG.read_bytes()[start:].decode("utf-8", "replace").splitlines()
    return [line.strip() for line in lines if line.strip()] or ["nothing was printed"]


def _project_digest(extras: list[str]) -> str:
    """What decides on the installed packages: settings of linters and tests do not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    parts = [project.get("build-system"), project.get("project")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode() + locked(extras).read_bytes()).hexdigest()


def _read_stamp() -> dict[str, Any]:
    try:
        return dict(json.loads(STAMP.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except ValueError:  # a write was cut short
        return {"state": "installing"}


def _write_stamp(stamp: dict[str, Any]) -> None:
    STAMP.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8", newline="\n")


def _starts() -> bool:
    """Whether the interpreter of `.venv` works: the Python that it was made with may be gone."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run([venv_python(), "-I", "-c", ""], timeout=60, capture_output=True).returncode == 0
    return False


@contextlib.contextmanager
def _taking_turns() -> Iterator[None]:
    """Of two scripts that start together the second waits, and finds the work done."""
    with (ROOT / ".venv.lock").open("a") as file:
        told = False
        while not _try_lock(file.fileno()):
            if not told:
                say("  .venv        another script is preparing it; waiting (Ctrl-C to leave)")
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

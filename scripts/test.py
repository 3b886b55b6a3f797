"""Lint, types and tests, as continuous integration runs them: python3 scripts/test.py

Makes or reuses .venv, gets what the tests need, and runs all stages. The name of a folder of tests (unit, host, region,
programs, docs) runs its tests alone, unit the quickest. Further arguments go to pytest:

    python3 scripts/test.py unit
    python3 scripts/test.py tests/unit/test_order.py -k name
"""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

import _require_python  # noqa: F401  first: under an old Python it ends here, with a clear message
import _bootstrap
from _terminal import entry, say
from check import CHECKS, run_stages

# Many tests wait for processes and sockets more than they compute (tests/order.py): four workers a core. They take
# very different times: idle workers take over what is left of the others' shares.
WORKERS = min(8, 4 * (os.cpu_count() or 1))
FOLDERS = ("unit", "host", "region", "programs", "docs")
TESTS = ("pytest", "-n", str(WORKERS), "--dist", "worksteal")


@dataclass(frozen=True)
class Program:
    """What some tests need of the system, under any of its names; `tests`: which are skipped without it."""

    names: tuple[str, ...]
    package: str
    tests: str
    places: tuple[str, ...] = ()

    def find(self) -> str | None:
        """Where it is, or None. Some folders are on the administrator's PATH alone."""
        path = os.pathsep.join([os.environ.get("PATH", ""), *self.places])
        return next(filter(None, (shutil.which(name, path=path) for name in self.names)), None)


PROGRAMS = (
    Program(
        ("sshd",),
        "openssh-server",
        "the tests over a real OpenSSH server",
        ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/sbin", r"C:\Windows\System32\OpenSSH"),
    ),
    Program(
        ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge", "Google Chrome", "Chromium"),
        "chromium",
        "the tests of the report in a real browser",
        (
            "/Applications/Google Chrome.app/Contents/MacOS",
            "/Applications/Chromium.app/Contents/MacOS",
            r"C:\Program Files\Google\Chrome\Application",
            r"C:\Program Files (x86)\Microsoft\Edge\Application",
        ),
    ),
)
# Package manager -> the commands that bring a package, named last, without asking anything.
INSTALLERS = {
    "apt-get": (("update", "-qq"), ("install", "-qq", "-y", "--no-install-recommends")),
    "dnf": (("install", "-q", "-y"),),
    "apk": (("add", "-q"),),
    "zypper": (("--non-interactive", "install"),),
}


def main(arguments: list[str]) -> int:
    """Make the environment, then check and test."""
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    began = time.monotonic()
    python = _bootstrap.prepare({"dev"})
    if arguments[:1] != ["unit"]:  # these need nothing else
        for program in PROGRAMS:
            get(program)
    return run_stages(python, {**CHECKS, "tests": (*TESTS, *paths(arguments))}, time.monotonic() - began)


def paths(arguments: list[str]) -> list[str]:
    """The same, where the first one names a folder of tests with that folder's path."""
    first, rest = arguments[:1], arguments[1:]
    return [f"tests/{first[0]}", *rest] if first and first[0] in FOLDERS else arguments


def get(program: Program) -> None:
    """See to it that `program` is there for the tests that need it, or say that they are skipped.

    On a desktop system a package may also start a server that is open to the network. So it is installed only for
    root, as in containers, and in continuous integration; elsewhere the user decides.
    """
    if program.find():
        return
    name = f"{program.names[0]:<12} "
    manager = next((name for name in INSTALLERS if shutil.which(name)), None)
    rights = _administrator()
    if manager is None or rights is None:
        say(f"  {name}not found: {program.tests} are skipped")
        if manager is not None:
            command = subprocess.list2cmdline([*INSTALLERS[manager][-1], program.package])
            say(f"               to run them, too: sudo {manager} {command}")
        return
    say(f"  {name}not found: installing {program.package} with {manager}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    *before, install = INSTALLERS[manager]
    for arguments in (*before, (*install, program.package)):
        try:
            done = subprocess.run(
                [*rights, manager, *arguments], env=quiet, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, errors="replace", timeout=300,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            say(f"  {name}{manager} {arguments[0]} did not end well: {error}")
            break
        if done.returncode:
            lines = (done.stdout + done.stderr).strip().splitlines()
            say(f"  {name}{manager} {arguments[0]} failed: {lines[-1] if lines else done.returncode}")
    if not program.find():
        say(f"  {name}not installed: {program.tests} are skipped")


def _administrator() -> list[str] | None:
    """How to run a command as root here without surprising anyone; None: not at all."""
    if sys.platform == "win32":
        return None
    if os.geteuid() == 0:
        return []
    if os.environ.get("CI") and shutil.which("sudo"):
        allowed = subprocess.run(["sudo", "-n", "true"], capture_output=True, timeout=30).returncode == 0
        return ["sudo", "-n"] if allowed else None
    return None


if __name__ == "__main__":
    entry(main)

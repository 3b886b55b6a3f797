"""Lint, types and tests, as continuous integration runs them: python3 scripts/test.py

Makes or reuses .venv, gets what the tests need, and runs all stages. Further arguments go to pytest:

    python3 scripts/test.py tests/test_spec.py -k name
"""

import os
import shutil
import subprocess
import sys

import _require_python  # noqa: F401  first: under an old Python it ends here, with a clear message
import _bootstrap
from _terminal import entry, say
from check import CHECKS, run_stages

# Most tests wait for processes and sockets more than they compute: two workers a core. They take very different times:
# idle workers take over what is left of the others' shares.
WORKERS = min(8, 2 * (os.cpu_count() or 1))
TESTS = ("pytest", "-n", str(WORKERS), "--dist", "worksteal")

SSHD_PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/sbin", r"C:\Windows\System32\OpenSSH")
# Package manager -> the commands that bring an OpenSSH server without asking anything.
INSTALLERS = {
    "apt-get": (("update", "-qq"), ("install", "-qq", "-y", "--no-install-recommends", "openssh-server")),
    "dnf": (("install", "-q", "-y", "openssh-server"),),
    "apk": (("add", "-q", "openssh-server"),),
    "zypper": (("--non-interactive", "install", "openssh-server"),),
}


def main(arguments: list[str]) -> int:
    """Make the environment, then check and test."""
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    python = _bootstrap.prepare({"dev"})
    get_sshd()
    return run_stages(python, {**CHECKS, "tests": (*TESTS, *arguments)})


def find_sshd() -> str | None:
    """Where OpenSSH's server is, or None. On many systems its folder is on the administrator's PATH alone."""
    return shutil.which("sshd", path=os.pathsep.join([os.environ.get("PATH", ""), *SSHD_PLACES]))


def get_sshd() -> None:
    """See to it that there is an OpenSSH server for the tests that need one, or say that they are skipped.

    On a desktop system the package also starts a server that is open to the network. So it is installed only for
    root, as in containers, and in continuous integration; elsewhere the user decides.
    """
    if find_sshd():
        return
    manager = next((name for name in INSTALLERS if shutil.which(name)), None)
    rights = _administrator()
    if manager is None or rights is None:
        say("  sshd         not found: the tests over a real OpenSSH server are skipped")
        if manager is not None:
            say(f"               to run them, too: sudo {manager} {subprocess.list2cmdline(INSTALLERS[manager][-1])}")
        return
    say(f"  sshd         not found: installing openssh-server with {manager}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in INSTALLERS[manager]:
        try:
            done = subprocess.run(
                [*rights, manager, *arguments], env=quiet, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, errors="replace", timeout=300,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            say(f"  sshd         {manager} {arguments[0]} did not end well: {error}")
            break
        if done.returncode:
            lines = (done.stdout + done.stderr).strip().splitlines()
            say(f"  sshd         {manager} {arguments[0]} failed: {lines[-1] if lines else done.returncode}")
    if not find_sshd():
        say("  sshd         not installed: the tests over a real OpenSSH server are skipped")


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

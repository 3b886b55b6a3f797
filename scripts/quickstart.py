"""From a fresh clone to a trained model in one command: python3 scripts/quickstart.py

Makes a virtual environment in .venv, installs the project with what the command below needs, and runs that command: a
rehearsal of the EC2 run, on this computer alone. From the second time on only the last of these happens. Further
arguments go to the command, where the later one wins:

    python3 scripts/quickstart.py --model 1 --epochs 1
"""

import os
import subprocess

import _require_python  # noqa: F401  first: under an old Python it ends here, with a clear message
import _bootstrap
from _terminal import entry, run, say

# The main job, and the extras of pyproject.toml that it needs.
COMMAND = ("run", "--model", "3", "--instance", "g4dn.xlarge", "--dry-run", "--yes")
EXTRAS = {"local", "rehearse"}


def main(arguments: list[str]) -> int:
    """Install what is missing, then train."""
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    say("cloudtrain quick start")
    python = _bootstrap.prepare(EXTRAS)
    command = [*COMMAND, *arguments]
    say(f"  run          {typed(command)}\n")
    code = run([python, "-m", "cloudtrain", *command])
    if code == 0:
        say(f"\nnext: {typed(['show'])}, or {typed(['--help'])}")
    return code


def typed(command: list[str]) -> str:
    """What a user types in this folder to run this command of cloudtrain."""
    program = r".venv\Scripts\cloudtrain" if os.name == "nt" else ".venv/bin/cloudtrain"
    return subprocess.list2cmdline([program, *command])


if __name__ == "__main__":
    entry(main)

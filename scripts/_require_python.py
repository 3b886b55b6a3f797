"""Ends the script with a clear message under a Python that is too old. Import it first; it runs from Python 3.6 on."""

import os
import shutil
import sys

MINIMUM = (3, 11)


def complaint(found, script, newer=None):
    """What to tell someone whose Python has the version `found`; None if it will do. `newer`: a command that would."""
    if tuple(found[:2]) >= MINIMUM:
        return None
    if newer:
        advice = f"{newer} {script}"
    elif os.name == "nt":
        advice = f"install Python 3.13 (winget install Python.Python.3.13), then: py -3.13 {script}"
    elif sys.platform == "darwin":
        advice = f"install Python 3.13 (brew install python@3.13), then: python3.13 {script}"
    else:
        advice = f"install python3.11 or newer with the system's package manager, then run {script} with it"
    return f"error: this is Python {dotted(found)}, and cloudtrain needs {dotted(MINIMUM)} or newer\nnext: {advice}"


def dotted(version):
    """(3, 9, 6, "final", 0) -> "3.9.6"."""
    return ".".join(str(part) for part in version[:3])


def newer_on_path():
    """The command of a Python on this computer that would do, or None."""
    commands = ["python3.13", "python3.12", "python3.11", "python3.14"]
    return next((command for command in commands if shutil.which(command)), None)


if sys.version_info[:2] < MINIMUM:
    sys.stderr.write(complaint(sys.version_info, sys.argv[0], newer_on_path()) + "\n")
    sys.exit(1)

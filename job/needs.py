"""The packages that the job needs, looked for before any is imported: a host that lacks one is told so in one line."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from job.events import EventLog

PACKAGES = ("torch", "numpy", "safetensors", "tqdm")


def check(packages: Sequence[str] = PACKAGES) -> None:
    """End the program with exit code 1, a line and an `error` event if a package is not there."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if not missing:
        return
    message = f"this Python has no {', no '.join(missing)}"
    hint = f"on the machine that trains: {sys.executable} -m pip install {' '.join(missing)}"
    if (Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED").exists() and sys.prefix == sys.base_prefix:
        # That Python's pip installs nothing (PEP 668).
        hint = "on the machine that trains: python3 -m venv --system-site-packages ~/venv; "
        hint += f"~/venv/bin/pip install {' '.join(missing)}; then add --python '~/venv/bin/python'"
    sys.stderr.write(f"error: {message}\nhint: {hint}\n")
    told = os.environ.get("CLOUDTRAIN_EVENTS")
    if told:
        events = EventLog(Path(told))
        events.emit("error", code="missing_package", message=message, hint=hint)
        events.close()
    raise SystemExit(1)


check()

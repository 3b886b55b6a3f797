"""The verb `probe`: what the host has."""

from __future__ import annotations

import json
import os
import re
import sys
import time

from .base import LINUX, TYPE_CHECKING, Failure, Later, Options
from .processes import boot_id

if TYPE_CHECKING:
    import shutil
    import subprocess
    from typing import Any, Dict, List, Optional, Tuple
else:
    shutil = Later("shutil")
    subprocess = Later("subprocess")

LOOK_FOR_TORCH = r"""
import json, os, re, sys
sys.path[:] = [p for p in sys.path if p]
torch = cuda = None
def told(name):
    found = re.search(r"^%s\b[^=]*=\s*['\"]([^'\"]+)" % name, text, re.M)
    return found.group(1) if found else None
try:
    from importlib.util import find_spec
    spec = find_spec("torch")
    with open(os.path.join(os.path.dirname(spec.origin), "version.py")) as file:
        text = file.read()
    cuda, torch = told("cuda"), told("__version__")
except Exception:
    pass
if not torch:
    # What imports as much again as all the rest.
    try:
        from importlib.metadata import version
        torch = version("torch")
    except Exception:
        pass
print(json.dumps({"version": sys.version.split()[0], "path": sys.executable, "torch": torch, "cuda": cuda}))
"""


def do_probe(options: Options) -> Dict[str, Any]:
    chosen: Optional[Dict[str, Any]] = None
    for candidate in list(options.python) + [sys.executable]:
        found = ask_python(os.path.expanduser(candidate))
        if found and (chosen is None or (found["torch"] and not chosen["torch"])):
            chosen = found
        if chosen and chosen["torch"]:
            break
    if chosen is None:
        raise Failure("no_python", "no Python on the host can be run")
    driver, gpus = ask_nvidia()
    home = os.path.expanduser("~")
    return {
        "python": {"version": chosen["version"], "path": chosen["path"]},
        "torch": chosen["torch"],
        "cuda": chosen["cuda"],
        "driver": driver,
        "gpus": gpus,
        "cpus": cpu_count(),
        "disk_free": shutil.disk_usage(existing_part(options.workdir or home)).free,
        "os": os_name(),
        "home": home,
        "boot_id": boot_id(),
        "at": time.time(),
    }


def ask_python(path: str) -> Optional[Dict[str, Any]]:
    try:
        out = subprocess.run(
            [path, "-c", LOOK_FOR_TORCH],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=20,
        ).stdout
        answer: Dict[str, Any] = json.loads(out.decode("utf-8", "replace").strip().splitlines()[-1])
        return answer
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None


def ask_nvidia() -> Tuple[Optional[str], List[Dict[str, Any]]]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None, []
    try:
        out = subprocess.run(
            [program, "--query-gpu=driver_version,memory.total,name", "--format=csv,noheader,nounits"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=10,
            check=True,
        ).stdout.decode("utf-8", "replace")
        rows = [[part.strip() for part in line.split(",", 2)] for line in out.splitlines() if line.count(",") >= 2]
        gpus = [{"name": row[2], "memory_mib": int(row[1]) if row[1].isdigit() else None} for row in rows]
        return (rows[0][0] if rows else None), gpus
    except (OSError, subprocess.SubprocessError):
        return None, []


def cpu_count() -> int:
    if LINUX:
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def existing_part(path: str) -> str:
    path = os.path.realpath(path)
    while not os.path.isdir(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def os_name() -> str:
    import platform

    try:
        with open("/etc/os-release") as file:
            found = re.search(r'^PRETTY_NAME="?([^"\n]+)', file.read(), re.M)
            if found:
                return found.group(1)
    except OSError:
        pass
    if sys.platform == "darwin":
        return "macOS " + platform.mac_ver()[0]
    return (platform.system() + " " + platform.release()).strip()

"""What the run trained with, for `env/`: the packages of this interpreter, and what `nvidia-smi -q` says of the GPUs.

These files are made to be published beside the results: no path, no index or its password, no serial number.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from importlib import metadata

SMI_LIMIT_S = 15.0  # the first call on a machine whose driver is still asleep took 4 s
# Names of one machine in a world: kept out by key and, for keys to come, by the look of the value.
_ONE_MACHINE = re.compile(r"serial|uuid|guid|\bpdi\b|host ?id|host ?name|chassis", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def requirements(found: Iterable[metadata.Distribution] | None = None) -> str:
    """`name==version` of each package that this interpreter would import, sorted, for `pip install -r`.

    A package that was installed from a folder or a repository is on no index, so its line is a comment.

    Args:
        found: the packages; None: those on this interpreter's path.
    """
    lines: dict[str, str] = {}
    for package in metadata.distributions() if found is None else found:
        told = _told(package)
        if told is None:
            continue
        name, line = told
        lines.setdefault(re.sub(r"[-_.]+", "-", name).lower(), line)  # the first on the path is the one imported
    head = f"# Python {platform.python_version()}, {platform.system()} {platform.machine()}\n"
    return head + "".join(f"{line}\n" for _, line in sorted(lines.items()))


def _told(package: metadata.Distribution) -> tuple[str, str] | None:
    """Name and line of a package; None for the remains of one that was not removed whole."""
    try:
        # Its head alone: `package.metadata` would parse the whole page of text below it, six times as slow.
        head = (package.read_text("METADATA") or package.read_text("PKG-INFO") or "").partition("\n\n")[0]
        origin = json.loads(package.read_text("direct_url.json") or "{}")
    except (OSError, ValueError):
        return None
    found = [re.search(rf"^{key}: ([\w.+!-]+)$", head, re.MULTILINE) for key in ("Name", "Version")]
    if found[0] is None or found[1] is None:
        return None
    name = found[0][1]
    line = f"{name}=={found[1][1]}"
    local = isinstance(origin, dict) and ("dir_info" in origin or "vcs_info" in origin)
    return name, f"# {line} (from a folder or a repository)" if local else line


def gpus() -> str | None:
    """What `nvidia-smi -q` says, made public; None where there is none, or no GPU, or no answer within 15 s."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        done = subprocess.run([program, "-q"], stdin=subprocess.DEVNULL, capture_output=True, timeout=SMI_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    told = done.stdout.decode("utf-8", "replace")
    return public(told) if done.returncode == 0 and re.search(r"^GPU [0-9A-Fa-f:.]+", told, re.MULTILINE) else None


def public(told: str) -> str:
    """The output of `nvidia-smi -q` without numbers that belong to one device, and without its processes.

    Processes are named by path, and there may be those of other people.
    """
    kept: list[str] = []
    processes: int | None = None  # how far the heading of the list that is being left out stands from the margin
    for line in told.splitlines():
        indent = len(line) - len(line.lstrip())
        if processes is not None and (indent > processes or not line.strip()):
            continue
        processes = None
        key, _, value = line.strip().partition(" : ")
        if re.fullmatch(r"(?:accounted )?processes", key.strip(), re.IGNORECASE):
            processes = indent
        elif not (_ONE_MACHINE.search(key) or _UUID.search(value)):
            kept.append(line.rstrip())
    return "\n".join(kept).strip() + "\n"

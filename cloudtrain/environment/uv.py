"""uv, which resolves and installs: the one of this computer, and the wheel that a host fetches."""

from __future__ import annotations

import os
import platform as _platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cloudtrain.core import programs
from cloudtrain.core.errors import UsageError

VERSION = "0.13.9"
# Of a platform, as uv calls it, how it begins -> where its wheel lies below FILES, and the wheel's sha256.
FILES = "https://files.pythonhosted.org/packages/"
WHEELS: Mapping[str, tuple[str, str]] = {
    "x86_64-manylinux": (
        "3d/aa/26d64642d808de4a652579ef950d7cd2d37f080a8babf9c67c6b75fc4c3f/"
        f"uv-{VERSION}-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
    ),
    "aarch64-manylinux": (
        "fe/2f/51a5de367c602592c018a42a23d57fba5f2689fe6c3bf025dcf043b39c61/"
        f"uv-{VERSION}-py3-none-manylinux_2_28_aarch64.whl",
        "ecb6028d79dc96fbeafffe5c8af62a7099487ebc05a701e76714eebcffd06375",
    ),
    "x86_64-apple-darwin": (
        "1e/db/08e9ef4879bd667e6d7b4705e594e5bd3e4585f10fc63cb16b9fa2fac63e/"
        f"uv-{VERSION}-py3-none-macosx_10_12_x86_64.whl",
        "c16ed11e013557536b3e60065f1b912f6407bd6518e041b961e23ef9e6b4fbf5",
    ),
    "aarch64-apple-darwin": (
        "f3/a7/a8d7b074798c7fb3b26b37584b8fe2e29df2ccdc24ce7902caab2a53edbf/"
        f"uv-{VERSION}-py3-none-macosx_11_0_arm64.whl",
        "66c512266d633bef48384a1f53003f41f2a8e7b36fe6e7fbfd3e0fd52d96fa63",
    ),
}
RESOLVE_S = 300.0
"""Seconds that a resolution may take: of a large project from a slow index, most of a minute."""

# What would have uv look into another environment, or do something else than it is told.
_NOT_OURS = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT")


def here() -> str:
    """Path of this computer's uv, which is installed with cloudtrain.

    Raises:
        UsageError: it is not.
    """
    try:
        from uv import find_uv_bin  # 10 ms, and most commands need none

        return find_uv_bin()
    except (ImportError, FileNotFoundError) as error:
        raise UsageError(
            "uv, which resolves a project's packages, is not installed beside cloudtrain",
            hint="pip install uv, into the environment that cloudtrain is in",
            code="no_uv",
        ) from error


def is_for(platform: str) -> bool:
    """Whether this computer's uv runs on a system of `WHEELS`."""
    machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(_platform.machine(), _platform.machine())
    return platform == f"{machine}-{'apple-darwin' if sys.platform == 'darwin' else 'manylinux'}" and os.name == "posix"


def run(arguments: Sequence[str], *, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run uv of this computer in `folder`. No program of the project is found by it.

    Raises:
        UsageError: there is none, or it did not end in time.
    """
    argv = [here(), *arguments, "--quiet", "--color", "never", "--no-progress", "--no-python-downloads"]
    argv += ["--python", sys.executable]
    try:
        return subprocess.run(
            argv,
            cwd=folder,
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=RESOLVE_S,
        )
    except subprocess.TimeoutExpired as error:
        raise UsageError(
            f"uv has not resolved the packages within {RESOLVE_S:.0f} s",
            hint="uv lock in the project makes a lock that needs no resolving",
            code="index_unreachable",
        ) from error


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
    project = programs.top(folder).resolve()
    places = [Path(place) for place in kept.get("PATH", os.defpath).split(os.pathsep)]
    good = [place for place in places if place.is_absolute() and not place.resolve().is_relative_to(project)]
    kept["PATH"] = os.pathsep.join(map(str, good))
    # As pip does: a company's proxy signs with a certificate of its own.
    kept.setdefault("UV_SYSTEM_CERTS", "1")
    if "PIP_INDEX_URL" in kept and "UV_INDEX_URL" not in kept:
        kept.setdefault("UV_DEFAULT_INDEX", kept["PIP_INDEX_URL"])
    return kept

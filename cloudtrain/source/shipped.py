"""What comes with cloudtrain beside its own package: the training package, which is sent to hosts and never imported
from here, and the page for coding agents."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cloudtrain.core.decode import Odd, json_object, made
from cloudtrain.core.errors import UsageError
from cloudtrain.core.plan import Training
from cloudtrain.core.spec import JobSpec
from cloudtrain.core.text import screen_safe

_PACKAGE = Path(__file__).resolve().parent.parent
# An installed wheel has both inside (pyproject.toml, force-include), a checkout beside the package.
# Installed, the folder beside the package is site-packages, where a stranger's `job` may be: ours comes first.
_REFUSED, _ANSWERS_S = 2, 20.0
_INSIDE, _BESIDE = _PACKAGE / "_shipped", _PACKAGE.parent


def job_folder() -> Path:
    """The folder `job/` as the shipped JobSpec names it: the root that is sent holds `job/train.py`.

    Raises:
        UsageError: this installation lacks it.
    """
    places = (_INSIDE / "job", _BESIDE / "job")
    found = next((place for place in places if (place / "train.py").is_file()), None)
    if found is None:
        raise _lacks("its training package", ", or name a folder of your own with --job")
    return found


def training(job: JobSpec, arguments: Sequence[str]) -> Training | None:
    """What the training program that comes along does with these arguments, by its own word, which needs no torch;
    None: it is not what `job` runs, or it does not say.

    Raises:
        UsageError: it refuses them.
    """
    if not job.shipped or Path(job.source) != job_folder():
        return None
    ask = [sys.executable, "-m", "job.options", *arguments]
    try:
        told = subprocess.run(ask, cwd=job_folder().parent, capture_output=True, timeout=_ANSWERS_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if told.returncode == _REFUSED:
        raise UsageError(
            f"the training program refuses this: {screen_safe(told.stderr.decode(errors='replace').strip())}",
            hint="python -m job.train --help, in the folder of cloudtrain, lists what it takes",
            consequence="nothing was started",
            code="bad_setting",
        )
    if told.stdout.startswith(b"usage:"):
        raise UsageError(
            "--help trains nothing: it says what the training program takes",
            detail=told.stdout.decode(errors="replace").strip(),
            hint="leave it out to train",
            consequence="nothing was started",
            code="bad_setting",
        )
    try:
        return made(Training, json_object(told.stdout))
    except Odd:
        return None


def agent_guide() -> str:
    """The page for coding agents, in Markdown.

    Raises:
        UsageError: this installation lacks it.
    """
    for place in (_INSIDE / "agent-guide.md", _BESIDE / "docs" / "agent-guide.md"):
        if place.is_file():
            return place.read_text(encoding="utf-8")
    raise _lacks("its page for coding agents", "")


def _lacks(what: str, other: str) -> UsageError:
    return UsageError(
        f"this installation of cloudtrain lacks {what}",
        hint=f"install cloudtrain again{other}",
        consequence="nothing was started",
        code="job_missing",
    )

"""What comes with cloudtrain beside its own package: the training package, which is sent to hosts and never imported
from here, and the page for coding agents."""

from __future__ import annotations

from pathlib import Path

from cloudtrain.core.errors import UsageError

_PACKAGE = Path(__file__).resolve().parent.parent
# An installed wheel has both inside (pyproject.toml, force-include), a checkout beside the package.
# Installed, the folder beside the package is site-packages, where a stranger's `job` may be: ours comes first.
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

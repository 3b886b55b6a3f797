"""Where the training package that comes with cloudtrain lies: sent to hosts, never imported from here."""

from __future__ import annotations

from pathlib import Path

from cloudtrain.core.errors import UsageError

_PACKAGE = Path(__file__).resolve().parent.parent
# A checkout has it beside the package, an installed wheel inside (pyproject.toml, force-include).
_PLACES = (_PACKAGE.parent / "job", _PACKAGE / "_shipped" / "job")


def job_folder() -> Path:
    """The folder `job/` as the shipped JobSpec names it: the root that is sent holds `job/train.py`.

    Raises:
        UsageError: this installation lacks it.
    """
    # Installed, the folder beside the package is site-packages, where a stranger's `job` may be: ours comes first.
    for place in reversed(_PLACES):
        if (place / "train.py").is_file():
            return place
    raise UsageError(
        "this installation of cloudtrain lacks its training package",
        hint="install cloudtrain again, or name a folder of your own with --job",
        consequence="nothing was started",
        code="job_missing",
    )

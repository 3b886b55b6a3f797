"""Train on an EC2 GPU from your laptop: launch, stream the log, pull verified results, end the instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cloudtrain.report.notebook import LoadedRun

from cloudtrain.core.version import __version__ as __version__


def load(run: str | Path | None = None) -> LoadedRun:
    """A run's figures and weights, for notebooks: `cloudtrain.load("brave-otter").metrics`.

    Args:
        run: a name, the beginning of one, its folder or a `run.json`; None: the latest run.

    Raises:
        UsageError: there is no such run, or its receipt cannot be understood.
    """
    # Here alone, so that `import cloudtrain` stays quick.
    from cloudtrain.report.notebook import load as load_

    return load_(run)

"""Reports of runs that exist: HTML, Markdown, JSON, comparisons, exports. Everything is drawn from `facts.Facts`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloudtrain.report.facts import Facts
    from cloudtrain.store import Run, Store


def write(run: Run, store: Store) -> Path:
    """Write the report of `run`, as it stands now, into its folder; the report's path.

    Raises:
        OSError: the folder cannot be written; what was there is as it was.
    """
    from cloudtrain.report.sources import of_run

    return write_facts(of_run(run, store))


def write_facts(facts: Facts, path: Path | None = None) -> Path:
    """Write the report of the run with these facts, to `path`, or into its folder.

    Raises:
        OSError: as `write`.
    """
    from cloudtrain.core import disk
    from cloudtrain.report import page
    from cloudtrain.run_folder import generated

    if path is None:
        taken = {name.casefold() for name in facts.artifacts}
        path = facts.folder / (generated.REPORT if generated.REPORT not in taken else generated.OTHER_REPORT)
    disk.write_durably(path, page.report(facts).encode("utf-8", "replace"), mode=0o644)
    return path

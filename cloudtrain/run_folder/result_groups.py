"""Groups of a run's results, by which `pull --only` chooses: what each is called, and which files are in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cloudtrain.core.errors import UsageError
from cloudtrain.core.notes import FileEntry
from cloudtrain.core.text import meant
from cloudtrain.source import ignore

LOG = "log"
OTHER = "other"
# Name -> gitignore-style patterns of the files in it, by the names of docs/your-own-job.md, "Results".
_PATTERNS = {
    "weights": ("/weights/**",),
    "metrics": ("/metrics.*",),
    "predictions": ("/predictions.csv",),
    "checkpoints": ("/checkpoints/**",),
    "summary": ("/model_summary.*",),
    "environment": ("/env/**",),
}
_RULES = {name: ignore.parse("\n".join(patterns), name) for name, patterns in _PATTERNS.items()}
# What each is, for help texts and shells.
NAMES = {
    "weights": "the network's weights, best and last",
    "metrics": "figures of every epoch, and the final ones",
    "predictions": "what the network said of each test picture",
    "checkpoints": "what training goes on from",
    "summary": "the table of layers",
    "environment": "packages and GPU of the machine",
    LOG: "console.log and events.jsonl",
    OTHER: "every result that is in no other group",
}


def check(names: Sequence[str]) -> tuple[str, ...]:
    """`names` of groups, or patterns of files, each once.

    Raises:
        UsageError: there is no such group, and it is no pattern: that has one of `/.*?[`.
    """
    for name in names:
        if name not in NAMES and not any(mark in name for mark in "/.*?["):
            raise UsageError(
                f"there is no group of results called {name!r}",
                hint=meant(name, NAMES, f"--only with one of {', '.join(NAMES)}, or with a pattern such as '*.pt'"),
                consequence="nothing was fetched",
                code="bad_setting",
            )
    return tuple(dict.fromkeys(names))


def of(name: str) -> str:
    """The group of a result called `name`."""
    path = name.split("/")
    for group, rules in _RULES.items():
        if any(rule.matches(path, is_dir=False) for rule in rules):
            return group
    return OTHER


def chosen(entries: Iterable[FileEntry], names: Sequence[str]) -> list[FileEntry]:
    """Those of `entries` that are in one of the groups called `names`, or fit one that is a pattern."""
    rules = ignore.parse("\n".join(name for name in names if name not in NAMES), "--only")
    return [entry for entry in entries if of(entry.name) in names or any(rule.covers(entry.name) for rule in rules)]

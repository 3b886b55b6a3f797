"""What a person should know of a scanned folder before it is sent: what stays here, and what looks like a secret."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from heapq import nsmallest

from cloudtrain.core.text import size as size_text
from cloudtrain.source.ignore import OWN_FILE
from cloudtrain.source.tree import Skipped, Tree

# Rules whose files no program can miss on another machine: it makes its own.
_MADE_AGAIN = (
    "default: version control",
    "default: virtual environment",
    "default: cache",
    "default: results of runs",
)
_NAMED = 3
_SECRET = re.compile(
    r"(?:^|[._-])(?:secrets?|passwords?|passwd|credentials?|(?:api|access|private)[_-]?keys?)(?:[._-]|$)"
    r"|(?:^|[._-])token(?:\.(?:txt|json))?$|^kubeconfig$|^\.(?:npmrc|dockercfg|pgpass|my\.cnf|s3cfg)$|^rclone\.conf$"
    r"|\.env(?:\.(?:local|dev|development|staging|prod|production))?$"
    r"|\.(?:tfvars|tfvars\.json|tfstate|tfstate\.backup|kdbx|ovpn|gpg|keystore|p8)$"
)
_PROGRAM = (".py", ".pyi", ".ipynb", ".md", ".rst", ".html", ".js", ".ts", ".c", ".h", ".cpp", ".rs", ".go")


def stays(found: Tree, tracked: Collection[str]) -> tuple[str, ...]:
    """What stays here that a program could miss, and why, in words: links, what git tracks, folders, large files.

    Args:
        tracked: paths below the folder that git tracks.
    """
    known = sorted(tracked)
    told = [_told(one, known) for one in found.skipped if not one.rule.startswith(_MADE_AGAIN)]
    return _few((text for _, text in nsmallest(_NAMED, told)), len(told))


def _told(one: Skipped, tracked: Sequence[str]) -> tuple[tuple[int, int, str], str]:
    """How telling it is, and its words."""
    below = one.path.partition("/")[2]
    at = bisect_left(tracked, below)
    in_git = at < len(tracked) and (tracked[at] == below or (below.endswith("/") and tracked[at].startswith(below)))
    facts = [] if one.size is None else [size_text(one.size)]
    link = one.rule.startswith("a link")
    facts += ["git tracks it"] if in_git and not link else []
    kind = 0 if link else 1 if in_git else 2 if below.endswith("/") else 3
    return (kind, -(one.size or 0), one.path), f"{one.path} ({', '.join([*facts, one.rule])})"


def warnings(found: Tree) -> tuple[str, ...]:
    """What a person should look at, by its name, before it leaves this computer."""
    names = sorted(path for path in found.files if _looks_secret(path.rpartition("/")[2].lower()))
    if not names:
        return ()
    told = ", ".join(_few(names[:_NAMED], len(names)))
    return (
        f"by its name a secret: {told}; it is sent, and kept in the run's code.tar.gz; a line in {OWN_FILE} keeps it"
        " out of both",
    )


def _looks_secret(name: str) -> bool:
    return _SECRET.search(name) is not None and not name.endswith(_PROGRAM)


def _few(named: Iterable[str], total: int) -> tuple[str, ...]:
    more = total - _NAMED
    return (*named, f"{more} more") if more > 0 else tuple(named)

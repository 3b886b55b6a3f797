"""What a person should know of a scanned folder before it is sent: what stays here, and what looks like a secret."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from heapq import nlargest
from itertools import islice

from cloudtrain.core.text import counted
from cloudtrain.core.text import size as size_text
from cloudtrain.source.ignore import GIT_IGNORED, MADE_AGAIN, OWN_FILE, default_rule
from cloudtrain.source.tree import Skipped, Tree

_NAMED = 3
_MOST_COUNTED = 20_000  # entries of folders that stay here
_LARGE = 256 << 20
_SECRET = re.compile(
    r"(?:^|[._-])(?:secrets?|passwords?|passwd|credentials?|(?:api|access|private)[_-]?keys?)(?:[._-]|$)"
    r"|(?:^|[._-])token(?:\.(?:txt|json))?$|^kubeconfig$|^\.(?:npmrc|dockercfg|pgpass|my\.cnf|s3cfg)$|^rclone\.conf$"
    r"|\.env(?:\.(?:local|dev|development|staging|prod|production))?$"
    r"|\.(?:tfvars|tfvars\.json|tfstate|tfstate\.backup|kdbx|ovpn|gpg|keystore|p8)$"
)
_PROGRAM = (".py", ".pyi", ".ipynb", ".md", ".rst", ".html", ".js", ".ts", ".c", ".h", ".cpp", ".rs", ".go")


def stays(found: Tree) -> tuple[str, ...]:
    """What stays here that a program could miss, and why, in words: links, what git ignores, and so on, with sizes."""
    kinds: dict[str, list[tuple[int, int, str]]] = {}
    over, left = set(), _MOST_COUNTED
    for one in found.skipped:
        if one.rule.startswith(MADE_AGAIN):
            continue
        kind, sizes = _kind(one.rule), [one.size or 0]
        if one.path.endswith("/"):
            met = list(islice(_sizes(found, one), left))
            left -= len(met)
            over |= set() if left else {kind}
            sizes = [size for size in met if size is not None]
        if sizes or not left:
            kinds.setdefault(kind, []).append((sum(sizes), len(sizes), one.path))
    return tuple(_told(kind, kinds[kind], over=kind in over) for kind in sorted(kinds))


def _kind(rule: str) -> str:
    if rule.startswith("default: "):
        return rule.removeprefix("default: ").partition(" (")[0]
    return f"kept out by {OWN_FILE}" if OWN_FILE in rule else rule


def _sizes(found: Tree, folder: Skipped) -> Iterator[int | None]:
    """Bytes of each file that lies in a folder and that no default keeps out; None for each folder."""
    pending = [str(found.root / folder.path)]
    while pending:
        with suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                is_dir = entry.is_dir(follow_symlinks=False)
                if default_rule(entry.name, is_dir=is_dir) is None:
                    pending += [entry.path] * is_dir
                    yield None if is_dir else entry.stat(follow_symlinks=False).st_size


def _told(kind: str, met: Sequence[tuple[int, int, str]], *, over: bool) -> str:
    total, files = sum(size for size, _, _ in met), sum(files for _, files, _ in met)
    met = sorted(met, key=lambda one: (-one[0], one[2]))
    names = [path.partition("/")[2] for _, _, path in met[:_NAMED]]
    about = f"{'over ' * over}{size_text(total)} in {'over ' * over}{counted(files, 'file')}"
    much = "" if kind.startswith(("a link", "not a")) else f", {about}"
    line = re.sub(r"([\\*?[])", r"\\\1", names[0])
    file = f"{met[0][2].partition('/')[0]}/{OWN_FILE}"
    back = f" (a line !{line} in {file} sends it)" if kind == GIT_IGNORED else ""
    return f"{kind}{much}: {', '.join(_few(names, len(met)))}{back}"


def warnings(found: Tree) -> tuple[str, ...]:
    """What a person should look at, by its name, before it leaves this computer."""
    said = []
    if names := sorted(path for path in found.files if _looks_secret(path.rpartition("/")[2].lower())):
        said.append(
            f"by its name a secret: {', '.join(_few(names[:_NAMED], len(names)))}; it is sent, and kept in the run's"
            f" code.tar.gz; a line in {OWN_FILE} keeps it out of both"
        )
    if found.bytes > _LARGE:
        large = nlargest(_NAMED, found.files.items(), key=lambda file: file[1].size)
        told = ", ".join(f"{path} ({size_text(entry.size)})" for path, entry in large)
        said.append(f"large for code, and sent with it: {told}; a line in {OWN_FILE} keeps a file here")
    if found.unasked:
        said.append(
            "git gave no answer for this folder (git status there says why): what it tracks though a .gitignore names"
            " it stays here, and ignore rules outside the repository do not count"
        )
    return tuple(said)


def _looks_secret(name: str) -> bool:
    return _SECRET.search(name) is not None and not name.endswith(_PROGRAM)


def _few(named: Sequence[str], total: int) -> tuple[str, ...]:
    more = total - _NAMED
    return (*named, f"{more} more") if more > 0 else tuple(named)

"""Which files of a folder stay at home: git's ignore rules, cloudtrain's own, and defaults that keep secrets in.

Three layers, asked for every folder and file on the way down:

1. What git has of it (`repository.py`). Where git is not asked, `.gitignore` as git reads it: one file a folder, deeper
   ones and later lines win, `!` takes back, and nothing below an excluded folder can come back. Parents of the source
   count up to the root of its repository, and so does that repository's `.git/info/exclude`.
2. `.cloudtrainignore`, same syntax, read after all of the above: it can leave out more, or bring back what git leaves
   out. A `!` line that spells out a folder brings it back with all that is in it, and one that gives a path does so
   within folders that git leaves out.
3. Defaults: version control, virtual environments, caches, secrets. Only a `!` line in `.cloudtrainignore` that spells
   out a name lifts one; `!*` does not. What git tracks is kept in by no default but those that are about secrets.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cloudtrain.core import programs
from cloudtrain.core.errors import UsageError

GIT_FILE = ".gitignore"
OWN_FILE = ".cloudtrainignore"

# Names are compared in lower case: on Windows and macOS `.ENV` is the same file as `.env`. A final "/": folders only.
_DEFAULTS = {
    "version control": ".git .hg .svn .bzr .jj/",
    "virtual environment": ".venv/ venv/",
    "cache": "__pycache__/ *.pyc *.pyo .mypy_cache/ .pytest_cache/ .ruff_cache/ .hypothesis/ .ipynb_checkpoints/ "
    ".tox/ .nox/ node_modules/ .ds_store thumbs.db",
    "may hold secrets": ".env* *.pem *.key *.p12 *.pfx *.ppk *.jks id_rsa* id_dsa* id_ecdsa* id_ed25519* .aws .ssh "
    ".gnupg .kube .azure .netrc _netrc .pypirc .git-credentials .htpasswd .boto kaggle.json credentials "
    "credentials.json credentials.csv credentials.txt credentials.toml credentials.ini credentials.yaml "
    "credentials.yml *_credentials.csv *accesskeys.csv rootkey.csv client_secret*.json service-account*.json "
    "service_account*.json secrets.toml secrets.yaml secrets.yml secrets.json",
}
_LONGEST_LINE = 1024
# In a set of characters: a backslash, a class. Only git reads them.
_ODD_SET = re.compile(r"(?<!\\)\[[^]]*(?:\\|\[:)")
GIT_IGNORED = "git-ignored"
# Kinds of defaults about what no program can miss on another machine, since it makes its own.
MADE_AGAIN = (
    "default: version control",
    "default: virtual environment",
    "default: cache",
    "default: results of runs",
)

_DEFAULT_RULES = [(kind, pattern) for kind, patterns in _DEFAULTS.items() for pattern in patterns.split()]
_PLAIN = {pattern.rstrip("/") for _, pattern in _DEFAULT_RULES}
_GLOBS = re.compile("|".join(fnmatch.translate(pattern) for pattern in _PLAIN if "*" in pattern))


def default_rule(name: str, *, is_dir: bool) -> str | None:
    """The default that keeps a file or folder of this name at home, human-readable; None if there is none."""
    lower = name.lower()
    for kind, pattern in _DEFAULT_RULES if lower in _PLAIN or _GLOBS.match(lower) else ():
        if fnmatch.fnmatchcase(lower, pattern.rstrip("/")) and (is_dir or not pattern.endswith("/")):
            return f"default: {kind} ({pattern})"
    return None


def _names(pattern: str) -> tuple[re.Pattern[str] | None, ...]:
    """What `pattern`, a line without `!` and final slash, says of the names of a path; None is any number of them."""
    if "/" not in pattern:  # it is about names, in any folder
        return None, _name(pattern)
    names = [None if name in ("**", "***") else _name(name) for name in pattern.removeprefix("/").split("/")]
    return (*names, _name("*")) if names[-1] is None else tuple(names)


def _name(glob: str) -> re.Pattern[str]:
    # To `fnmatch` a backslash is like any other character, and only "!" negates a set.
    told = re.sub(r"\\(.)", lambda found: f"[{found[1]}]" if found[1] in "*?[" else found[1], glob)
    return re.compile(fnmatch.translate(told.replace("[^", "[!")))


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of an ignore file. `origin` names file, line number and text, human-readable."""

    origin: str
    names: tuple[re.Pattern[str] | None, ...]
    dir_only: bool
    negated: bool
    spelled_out: bool

    def matches(self, path: Sequence[str], *, is_dir: bool) -> bool:
        """Whether the line is about this very path (its names), which begins below the ignore file's folder."""
        return (is_dir or not self.dir_only) and _match(self.names, path)

    def covers(self, file: str) -> bool:
        """Whether the line is about the file of this name, or about a folder it lies in."""
        path = file.split("/")
        return any(self.matches(path[:depth], is_dir=depth < len(path)) for depth in range(1, len(path) + 1))

    def leads_below(self, folder: Sequence[str]) -> bool:
        """Whether the line brings something back that is, by the path that it gives, below `folder`."""
        anywhere = None in self.names
        fixed = self.names[: self.names.index(None)] if anywhere else self.names
        leads = all(name.match(one) for name, one in zip(fixed, folder, strict=False) if name)
        return self.negated and bool(fixed) and leads and (anywhere or len(fixed) > len(folder))


def _match(names: Sequence[re.Pattern[str] | None], path: Sequence[str]) -> bool:
    at = here = 0
    again: tuple[int, int] | None = None  # where to go on if it fails: behind the last None, a name later each time
    while here < len(path):
        name = names[at] if at < len(names) else None
        if name is not None and name.match(path[here]):
            at, here = at + 1, here + 1
        elif at < len(names) and name is None:
            at, again = at + 1, (at + 1, here + 1)
        elif again is not None:
            at, here = again
            again = at, here + 1
        else:
            return False
    return at == len(names)


def _trimmed(line: str) -> str:
    """`line` without spaces at its end; one behind a backslash stays."""
    bare = line.rstrip(" ")
    escaped = (len(bare) - len(bare.rstrip("\\"))) % 2 == 1
    return line[: len(bare) + 1] if escaped else bare


def parse(text: str, name: str) -> list[Rule]:
    """The rules of an ignore file's `text`; `name` is how `Rule.origin` calls the file.

    Raises:
        UsageError: a line is longer than any rule need be.
    """
    rules = []
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        line = raw.removesuffix("\r")
        if line.startswith("#"):
            continue
        if len(line) > _LONGEST_LINE or _ODD_SET.search(line):
            long = len(line) > _LONGEST_LINE
            raise UsageError(
                f"{name}:{number} has {'more than 1024 characters' if long else 'a set that only git can read'}",
                hint="shorten that line" if long else "write its characters out, without backslash and class",
                consequence="nothing was sent",
                code="unreadable_file",
            )
        line = _trimmed(line)
        negated = line.startswith("!")
        body = line[negated:]
        dir_only = body.endswith("/")
        body = body[:-1] if dir_only else body
        if not body:
            continue
        rules.append(
            Rule(
                origin=f"{name}:{number}: {line}",
                names=_names(body),
                dir_only=dir_only,
                negated=negated,
                spelled_out=bool(body.rpartition("/")[2].strip("*?.[]")),
            )
        )
    return rules


def _text(path: Path, name: str) -> str:
    """What is in the ignore file at `path`; nothing where there is no such plain file. As to git, links are none.

    Raises:
        UsageError: it is there and cannot be read, or is in UTF-16; sending the folder without its rules could send
            secrets.
    """
    try:
        if path.is_symlink() or not path.is_file():
            return ""
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read {name}: {error.strerror}",
            hint=f"make {path} readable",
            consequence="nothing was sent",
            code="unreadable_file",
        ) from error
    # UTF-16 has a zero byte in every line break. PowerShell 5 writes it with ">", and with ">>" below lines in UTF-8.
    if b"\0" in data or data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(
            f"{name} is in UTF-16, as a whole or in part: its rules would not count, and what they keep here be sent",
            hint=f"save {path} as UTF-8, then run the same command again",
            consequence="nothing was sent",
            code="unreadable_file",
        )
    return data.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules in force in one folder: its own and those of every folder above it that counts.

    Attributes:
        asked: git is asked, and its ignore files are looked at for being readable alone.
        git, own: (depth, rules) from the top folder down; a rule sees the names of a path from `depth` on.
    """

    asked: bool
    git: tuple[tuple[int, list[Rule]], ...] = ()
    own: tuple[tuple[int, list[Rule]], ...] = ()

    def below(self, folder: Path, label: str, depth: int) -> Rules:
        """These rules and those written in `folder`, which is `depth` names below the top."""
        rules = self.reading(folder / GIT_FILE, label + GIT_FILE, depth)
        if own := parse(_text(folder / OWN_FILE, label + OWN_FILE), label + OWN_FILE):
            return replace(rules, own=(*rules.own, (depth, own)))
        return rules

    def reading(self, path: Path, name: str, depth: int) -> Rules:
        """These rules and those of git in the file at `path`."""
        text = _text(path, name)
        return self if self.asked or not text else replace(self, git=(*self.git, (depth, parse(text, name))))

    def bring_back_below(self, folder: Sequence[str]) -> bool:
        """Whether a line of cloudtrain's own brings back something below `folder`, which git leaves out."""
        return any(rule.leads_below(folder[depth:]) for depth, rules in self.own for rule in rules)


def last(levels: Sequence[tuple[int, Sequence[Rule]]], path: Sequence[str], is_dir: bool) -> Rule | None:
    """The rule of `levels` that decides on the path with these names below the top; None: they say nothing of it.

    Folders above it must have been asked before: an excluded folder excludes everything below.
    """
    for depth, rules in reversed(levels):
        for rule in reversed(rules):
            if rule.matches(path[depth:], is_dir=is_dir):
                return rule
    return None


def rules_above(source: Path, *, asked: bool) -> tuple[Rules, tuple[str, ...]]:
    """The rules that the repository around `source` has for it, and the names that lead from its root to `source`.

    Without a repository: no rules, no names.
    """
    top = programs.top(source)
    names = source.relative_to(top).parts
    rules = Rules(asked).reading(top / ".git" / "info" / "exclude", ".git/info/exclude", 0)
    for depth in range(len(names)):
        rules = rules.below(top.joinpath(*names[:depth]), "../" * (len(names) - depth), depth)
    return rules, names

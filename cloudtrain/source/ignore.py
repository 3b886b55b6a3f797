"""Which files of a folder stay at home: git's ignore rules, cloudtrain's own, and defaults that keep secrets in.

Three layers, asked for every folder and file on the way down:

1. `.gitignore` as git reads it: one file a folder, deeper ones and later lines win, `!` takes back, and nothing below
   an excluded folder can come back. Parents of the source count up to the root of its repository, and so does that
   repository's `.git/info/exclude`.
2. `.cloudtrainignore`, same syntax, read after all of the above: it can leave out more, or bring back what git leaves
   out.
3. Defaults: version control, virtual environments, caches, secrets. Only a `!` line in `.cloudtrainignore` that spells
   out a name lifts one; `!*` does not.

`pathspec` translates the globs. What a match means for a folder is decided here: pathspec answers for whole lists of
files, where `keep/` also matches `keep/a.txt`, and git does not.
"""

from __future__ import annotations

import fnmatch
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec.patterns.gitignore import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

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
_POSIX_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": " \t",
    "cntrl": "\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "space": " \t\n\r\f\v",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}


def _compile_defaults() -> list[tuple[str, str, re.Pattern[str], bool]]:
    return [
        (kind, pattern, re.compile(fnmatch.translate(pattern.rstrip("/"))), pattern.endswith("/"))
        for kind, patterns in _DEFAULTS.items()
        for pattern in patterns.split()
    ]


_DEFAULT_RULES = _compile_defaults()


def default_rule(name: str, *, is_dir: bool) -> str | None:
    """The default that keeps a file or folder of this name at home, for people; None if there is none."""
    lower = name.lower()
    for kind, pattern, regex, dir_only in _DEFAULT_RULES:
        if (is_dir or not dir_only) and regex.match(lower):
            return f"default: {kind} ({pattern})"
    return None


class _Segment:
    """One path segment of a pattern: `**`, or a glob."""

    __slots__ = ("any_depth", "regex")

    def __init__(self, text: str) -> None:
        self.any_depth = len(text) > 1 and not text.strip("*")
        self.regex: re.Pattern[str] | None = None
        if not self.any_depth:
            self.regex = _glob(text.encode("utf-8", "surrogateescape").decode("latin-1"))

    def matches(self, name: str) -> bool:
        if self.regex is None:
            return False
        # Git compares bytes: to it `?` is half an `é`. So names and globs are matched with one character a byte.
        return self.regex.fullmatch(name if name.isascii() else os.fsencode(name).decode("latin-1")) is not None


def _glob(text: str) -> re.Pattern[str] | None:
    """A pattern without slashes as an expression for one name, both one character a byte; None: it matches nothing."""
    if not text:
        return None
    if text == "*":
        return re.compile(".+", re.DOTALL)
    for name, characters in _POSIX_CLASSES.items():
        text = text.replace(f"[:{name}:]", characters)
    if text[0] in "!#":
        text = "\\" + text
    if text[-1].isspace():  # pathspec would strip it; what git strips is gone already
        text = f"{text[:-2] if text[-2:-1] == chr(92) else text[:-1]}[{text[-1]}]"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # "[[" and the like; git takes them as they stand
            pattern = GitIgnoreSpecPattern(text)
    except (GitIgnorePatternError, re.error):
        return None
    if pattern.regex is None:
        return None
    return re.compile(pattern.regex.pattern, re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of an ignore file. `origin` names file, line number and text, for people."""

    origin: str
    segments: tuple[_Segment, ...]
    anchored: bool
    dir_only: bool
    negated: bool
    spelled_out: bool

    def matches(self, parts: Sequence[str], *, is_dir: bool) -> bool:
        """Whether the line is about this very path, given as names below the ignore file's folder."""
        if self.dir_only and not is_dir:
            return False
        if not self.anchored:
            segment = self.segments[0]
            return segment.any_depth or segment.matches(parts[-1])
        return _match(self.segments, parts)


def _match(segments: Sequence[_Segment], parts: Sequence[str]) -> bool:
    """Whether `segments` describe exactly the path `parts`.

    `**` stands for any number of folders; at the end, for one or more names. All prefixes are followed at once instead
    of recursing, so many `**` cost no more than few.
    """
    last = len(segments) - 1
    reach = {0}
    for index, segment in enumerate(segments):
        if segment.any_depth:
            first = min(reach, default=len(parts) + 1) + (1 if index == last else 0)
            reach = set(range(first, len(parts) + 1))
        else:
            reach = {at + 1 for at in reach if at < len(parts) and segment.matches(parts[at])}
        if not reach:
            return False
    return len(parts) in reach


# A set as git reads it: a "]" that comes first, and one after a backslash, is a member.
_SET = re.compile(r"\[[!^]?\]?(?:\[:[a-z]+:\]|\\.|[^\]\\])*\]", re.DOTALL)
_SPLIT = re.compile(rf"\\.|(?P<set>{_SET.pattern})|/|.", re.DOTALL)
_RANGE = re.compile(r"([^][\\:])-([^][\\])", re.DOTALL)


def _split(body: str) -> list[str]:
    """The segments of a pattern. Git looks for the end of a set behind slashes too: `[a/b]*` is one segment."""
    segments = [""]
    for found in _SPLIT.finditer(body):
        if found[0] == "/":
            segments.append("")
        else:
            segments[-1] += _plain_set(found[0]) if found["set"] else found[0]
    return segments


def _plain_set(text: str) -> str:
    """A set without slashes and backward ranges, which `_glob` cannot read.

    No name holds a slash: a range that ends with it ends before it, one that begins with it begins after it, and alone
    it may as well be a NUL. A backward range is its first character to git.
    """
    start = 2 if text[1] in "!^" else 1
    members = text[start:].replace("-/", "-.").replace("/-", "0-").replace("/", "\0")
    return text[:start] + _RANGE.sub(lambda range: range[0] if range[1] <= range[2] else range[1], members)


def parse(text: str, name: str) -> list[Rule]:
    """The rules of an ignore file's `text`; `name` is how `Rule.origin` calls the file."""
    rules = []
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        line = raw.removesuffix("\r")
        if line.startswith("#"):
            continue
        trimmed = re.fullmatch(r"((?:\\.|[^\\])*?) *", line, re.DOTALL)
        line = trimmed[1] if trimmed else line
        negated = line.startswith("!")
        body = line[negated:]
        dir_only = body.endswith("/")
        body = body[:-1] if dir_only else body
        if not body:
            continue
        anchored = "/" in body
        segments = tuple(_Segment(part) for part in _split(body.removeprefix("/")))
        rules.append(
            Rule(
                origin=f"{name}:{number}: {line}",
                segments=segments,
                anchored=anchored,
                dir_only=dir_only,
                negated=negated,
                spelled_out=bool(body.rpartition("/")[2].strip("*?.[]")),
            )
        )
    return rules


def read(path: Path, name: str) -> list[Rule]:
    """The rules of the ignore file at `path`; none where there is no such plain file. Like git, links are not followed.

    Raises:
        UsageError: it is there and cannot be read; sending the folder without its rules could send secrets.
    """
    try:
        if path.is_symlink() or not path.is_file():
            return []
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise UsageError(
            f"cannot read {name}: {error.strerror}",
            hint=f"make {path} readable",
            consequence="nothing was sent",
            code="unreadable_file",
        ) from error
    return parse(text, name)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules in force in one folder: its own and those of every folder above it that counts.

    Attributes:
        git, own: (depth, rules) from the top folder down; a rule sees the names of a path from `depth` on.
    """

    git: tuple[tuple[int, tuple[Rule, ...]], ...] = ()
    own: tuple[tuple[int, tuple[Rule, ...]], ...] = ()

    def below(self, folder: Path, label: str, depth: int) -> Rules:
        """These rules and those written in `folder`, which is `depth` names below the top."""
        git = tuple(read(folder / GIT_FILE, label + GIT_FILE))
        own = tuple(read(folder / OWN_FILE, label + OWN_FILE))
        if not git and not own:
            return self
        return Rules(
            (*self.git, (depth, git)) if git else self.git,
            (*self.own, (depth, own)) if own else self.own,
        )

    def verdict(self, parts: Sequence[str], *, is_dir: bool) -> str | None:
        """Why the path with these names below the top stays at home, for people; None: it is sent.

        Folders above it must have been asked before: an excluded folder excludes everything below.
        """
        own = _last(self.own, parts, is_dir)
        default = default_rule(parts[-1], is_dir=is_dir)
        if default is not None and not (own is not None and own.negated and own.spelled_out):
            return default
        rule = own if own is not None else _last(self.git, parts, is_dir)
        return None if rule is None or rule.negated else rule.origin


def _last(levels: Sequence[tuple[int, Sequence[Rule]]], parts: Sequence[str], is_dir: bool) -> Rule | None:
    for depth, rules in reversed(levels):
        below = parts[depth:]
        for rule in reversed(rules):
            if rule.matches(below, is_dir=is_dir):
                return rule
    return None


def rules_above(source: Path) -> tuple[Rules, tuple[str, ...]]:
    """The rules that the repository around `source` has for it, and the names that lead from its root to `source`.

    Without a repository: no rules, no names.
    """
    for top in (source, *source.parents):
        if not (top / ".git").exists():
            continue
        names = source.relative_to(top).parts
        exclude = tuple(read(top / ".git" / "info" / "exclude", ".git/info/exclude"))
        rules = Rules(((0, exclude),) if exclude else ())
        folder = top
        for depth, name in enumerate(names):
            rules = rules.below(folder, "../" * (len(names) - depth), depth)
            folder = folder / name
        return rules, names
    return Rules(), ()

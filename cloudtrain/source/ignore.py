"""Which files of a folder stay at home: git's ignore rules, cloudtrain's own, and defaults that keep secrets in.

Three layers, asked for every folder and file on the way down:

1. `.gitignore` as git reads it: one file a folder, deeper ones and later lines win, `!` takes back, and nothing below
   an excluded folder can come back. Parents of the source count up to the root of its repository, and so does that
   repository's `.git/info/exclude`.
2. `.cloudtrainignore`, same syntax, read after all of the above: it can leave out more, or bring back what git leaves
   out.
3. Defaults: version control, virtual environments, caches, secrets. Only a `!` line in `.cloudtrainignore` that spells
   out a name lifts one; `!*` does not.

A line becomes one expression for a whole path. Neither git's own list of files nor the library `pathspec` gives these
answers: git lists what is tracked though a rule leaves it out, and has no reasons to show; to pathspec `keep/` also
matches `keep/a.txt`, `[[:alpha:]]x` does not match `ax`, and `!*.py` does not undo a `*` before it in a folder.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

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
_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": " \\t\\n\\r",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}
# A member of a set is a class, or a character or a range of them. It ends at a "]", but not at one that comes first.
_MEMBER = r"(?>\[:[^\]]{0,32}:\]|(?:\\.|[^\\])(?:-(?:\\.|[^\\\]]))?)"
_TOKENS = re.compile(
    r"(?<![^/])(?P<folders>(?:\*\*+/)+)|(?<![^/])(?P<below>\*\*+)\Z|(?P<stars>\*+)|(?P<one>\?)"
    rf"|(?P<set>\[(?P<negated>[!^]?)(?P<members>{_MEMBER}(?:(?!\]){_MEMBER})*+)\])"
    r"|(?P<broken>\[|\\\Z)|\\?(?P<plain>.)",
    re.DOTALL,
)
_NOTHING = "(?!)"
_LONGEST_LINE = 1024


_DEFAULT_RULES = [
    (kind, pattern, re.compile(fnmatch.translate(pattern.rstrip("/"))), pattern.endswith("/"))
    for kind, patterns in _DEFAULTS.items()
    for pattern in patterns.split()
]


def default_rule(name: str, *, is_dir: bool) -> str | None:
    """The default that keeps a file or folder of this name at home, human-readable; None if there is none."""
    lower = name.lower()
    for kind, pattern, regex, dir_only in _DEFAULT_RULES:
        if (is_dir or not dir_only) and regex.match(lower):
            return f"default: {kind} ({pattern})"
    return None


def _expression(pattern: str) -> re.Pattern[bytes]:
    """What `pattern`, a line without `!` and final slash, says of a path; its "?" is a byte, as it is to git."""
    text = pattern.removeprefix("/").encode("utf-8", "surrogateescape").decode("latin-1")
    tokens = list(_TOKENS.finditer(text))
    if "/" not in pattern:  # it is about names, in any folder
        return re.compile(f"(?:.+/)?{_name(tokens)}".encode("latin-1"), re.DOTALL)
    # What is between two "**/" is looked for where it comes first, once: the next "**/" makes up for the rest. So no
    # pattern takes longer than its length times that of the path.
    first, *later = _split(tokens, "folders")
    parts = [_path(first)]
    for number, part in enumerate(later, start=1):
        parts.append(f"(?>(?:.+?/)??{_path(part)})" if number < len(later) else f"(?:.+/)?{_path(part)}")
    return re.compile("".join(parts).encode("latin-1"), re.DOTALL)


def _split(tokens: Iterable[re.Match[str]], kind: str) -> list[list[re.Match[str]]]:
    """The tokens between those of a kind."""
    parts: list[list[re.Match[str]]] = [[]]
    for token in tokens:
        if token.lastgroup == kind:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _path(tokens: Iterable[re.Match[str]]) -> str:
    """Names with slashes between."""
    names: list[list[re.Match[str]]] = [[]]
    for token in tokens:
        if token["plain"] == "/":
            names.append([])
        else:
            names[-1].append(token)
    return "/".join(_name(name) for name in names)


def _name(tokens: Iterable[re.Match[str]]) -> str:
    """One name. What is between two stars is looked for where it comes first, as above."""
    first, *later = ["".join(_translated(token) for token in part) for part in _split(tokens, "stars")]
    if not later:
        return first
    return first + "".join(f"(?>[^/]*?{part})" for part in later[:-1]) + f"[^/]*{later[-1]}"


def _translated(token: re.Match[str]) -> str:
    match token.lastgroup:
        case "below":
            return ".+"
        case "one":
            return "[^/]"
        case "set":
            members = [_member(text) for text in re.findall(_MEMBER, token["members"], re.DOTALL)]
            negated = "^" if token["negated"] else ""
            return _NOTHING if "" in members else f"(?!/)[{negated}{''.join(members)}]"
        case "plain":
            return re.escape(token["plain"])
    return _NOTHING  # as git has it: a set without an end, a backslash before nothing


def _member(text: str) -> str:
    """A member of a set, as an expression has it; empty for a class that there is not."""
    if text.startswith("[:") and text.endswith(":]"):
        return _CLASSES.get(text[2:-2], "")
    characters = re.findall(r"\\?(.)", text, re.DOTALL)
    low, high = characters[0], characters[-1]  # of a backward range git takes the first character
    return f"{re.escape(low)}-{re.escape(high)}" if low < high else re.escape(low)


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of an ignore file. `origin` names file, line number and text, human-readable."""

    origin: str
    path: re.Pattern[bytes]
    dir_only: bool
    negated: bool
    spelled_out: bool

    def matches(self, path: bytes, *, is_dir: bool) -> bool:
        """Whether the line is about this very path (as bytes), which begins below the ignore file's folder."""
        return (is_dir or not self.dir_only) and self.path.fullmatch(path) is not None


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
        if len(line) > _LONGEST_LINE:
            raise UsageError(
                f"{name}:{number} has more than {_LONGEST_LINE} characters",
                hint="shorten that line",
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
                path=_expression(body),
                dir_only=dir_only,
                negated=negated,
                spelled_out=bool(body.rpartition("/")[2].strip("*?.[]")),
            )
        )
    return rules


def read(path: Path, name: str) -> list[Rule]:
    """The rules of the ignore file at `path`; none where there is no such plain file. Like git, links are not followed.

    Raises:
        UsageError: it is there and cannot be read, or is in UTF-16; sending the folder without its rules could send
            secrets.
    """
    try:
        if path.is_symlink() or not path.is_file():
            return []
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
    return parse(data.decode("utf-8", "surrogateescape"), name)


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
        """Why the path with these names below the top stays at home, in words; None: it is sent.

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
        below = os.fsencode("/".join(parts[depth:]))
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

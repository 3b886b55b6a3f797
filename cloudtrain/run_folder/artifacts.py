"""Which names from a host's manifest may become files on this computer.

The host is not trusted with names: it may be wrong, broken into, or run a job that means harm. What is refused here is
refused on every computer; what only some file systems cannot hold is refused where it would go wrong.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

_MAX_NAME, _MAX_SEGMENT = 1024, 240
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE | re.DOTALL)
_WINDOWS_ONLY = frozenset('<>:"|?*')

# What versioning looks for in every folder; "git~1" is what Windows calls ".git", too.
_REPOSITORY = frozenset({".git", "git~1", ".hg", ".svn", ".bzr", ".jj"})
# What shells, editors, languages and file managers take orders from where somebody works in, or looks into, a folder.
_ORDERS = frozenset(
    re.findall(
        r"\S+",
        ".gitattributes .gitmodules .gitconfig .envrc .env .vscode .idea .devcontainer .cursor .claude .mcp.json "
        ".ssh .aws .netrc .npmrc .yarnrc .yarnrc.yml .pnp.cjs .pypirc .tool-versions .mise.toml mise.toml .bashrc "
        ".bash_profile .profile .zshrc .zshenv .vimrc .exrc .nvimrc .nvim.lua .gdbinit .lldbinit .htaccess "
        "cloudtrain.toml desktop.ini autorun.inf",
    )
)
_SHORTCUTS = (".lnk", ".url", ".scf", ".library-ms", ".search-ms")

# Files that a run's folder holds beside the results; a result must not replace them.
_TAKEN = frozenset({"run.json", "console.log", "console.times", "events.jsonl", "sha256sums", "code.tar.gz", ".pull"})
# Log and events of the machines that a run was on before its last one.
OF_ATTEMPTS = re.compile(r"console\.\d+\.(?:log|times)|events\.\d+\.jsonl")


def refusal(name: object, *, windows: bool = os.name == "nt") -> str | None:
    """Why `name` must not be written below a run's folder, for people; None if it may be."""
    why = misshapen(name, windows=windows)
    if why is not None or not isinstance(name, str):
        return why
    if any(unicodedata.category(c) == "Cf" for c in name):
        return "it holds characters that cannot be seen"
    segments = name.split("/")
    for segment in segments:
        bare = _bare(segment)
        if bare in _ORDERS or bare.endswith(_SHORTCUTS):
            return "programs here take orders from a file of that name"
    if fold(segments[0]) in _TAKEN or OF_ATTEMPTS.fullmatch(fold(segments[0])):
        return f"{segments[0]} in a run's folder is cloudtrain's own"
    if name.endswith(".part"):
        return "it is not a finished file"
    return None


def misshapen(name: object, *, windows: bool = os.name == "nt") -> str | None:
    """Why nothing that comes from elsewhere must be written by `name` below any folder, for people; None if it may."""
    if not isinstance(name, str) or not name:
        return "it is empty"
    if len(name.encode("utf-8", "surrogatepass")) > _MAX_NAME:
        return "it is too long"
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name):
        return "it holds control characters"
    if "\ufffd" in name:
        return "it is no text"  # bytes there that are no UTF-8: by this name nobody would find it
    if "\\" in name:
        return "it holds a backslash"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "it is absolute"
    for segment in name.split("/"):
        if segment in ("", ".", ".."):
            return "it leads out of the folder" if segment == ".." else "it is not in normal form"
        if len(segment.encode()) > _MAX_SEGMENT:
            return "it is too long"
        if _DEVICE.fullmatch(segment.rstrip(". ")):
            return "Windows reserves it for a device"
        if windows and (segment[-1] in ". " or _WINDOWS_ONLY.intersection(segment)):
            return "Windows cannot store it"
        if _bare(segment) in _REPOSITORY:
            return "it would be part of a repository"
    return None


def _bare(segment: str) -> str:
    """What file systems make of one part of a name: some see no case, no invisible characters, no stream behind a
    colon, or no blanks and dots at the end."""
    seen = "".join(c for c in segment if unicodedata.category(c) != "Cf")
    return fold(seen).partition(":")[0].rstrip(". ")


def fold(name: str) -> str:
    """The form under which file systems that ignore case and accents' encoding see `name`."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def collisions(names: Sequence[str], *, fold_case: bool) -> dict[int, str]:
    """Which of `names` cannot be written beside those before them, by index, and why.

    Doubled, a file where another needs a folder or, where the file system ignores case, the same but for case.
    """
    found: dict[int, str] = {}
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for index, name in enumerate(names):
        key = fold(name) if fold_case else name
        parents = ["/".join(key.split("/")[:depth]) for depth in range(1, key.count("/") + 1)]
        other = next((files[path] for path in (key, *parents) if path in files), folders.get(key))
        if other is not None:
            found[index] = "the manifest holds it twice" if other == name else f"it collides with {other!r}"
            continue
        files[key] = name
        for parent in parents:
            folders.setdefault(parent, name)
    return found


PARTS = ".pull"


class Artifact(Protocol):
    """An entry of the host's manifest: name below `out/`, bytes, sha256 in lower-case hex."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def sha256(self) -> str: ...


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A finished file of the job: name below `out/`, bytes, sha256 in lower-case hex."""

    name: str
    size: int
    sha256: str

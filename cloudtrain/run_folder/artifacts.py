"""Which names from a host's manifest may become files on this computer, and what a result is called here whose name
may not.

The host is not trusted with names: it may be wrong, broken into, or run a job that means harm. A result that has a name
which programs here act on, or which this computer cannot store, arrives under another one. What no honest host tells
does not arrive.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from cloudtrain.core.notes import FileEntry
from cloudtrain.core.told import LOG_FILES

_MAX_NAME, _MAX_SEGMENT = 1024, 240
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE | re.DOTALL)
_NOT_ON_WINDOWS = frozenset('<>:"|?*\\')

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
_TAKEN = frozenset({"run.json", "console.times", "sha256sums", "code.tar.gz", ".pull", *LOG_FILES})
# Others of ours. The last release took results by these names, so they are not refused where they lie.
_OURS_NOW = frozenset({"config.toml", "report.html", "cloudtrain-report.html"})
LOCK = "env/lock.txt"
"""The exact packages that a run's program had, where an environment was made for it."""
# Log and events of the machines that a run was on before its last one.
OF_ATTEMPTS = re.compile(r"console\.\d+\.(?:log|times)|events\.\d+\.jsonl")
PARTS = ".pull"


def refusal(name: object, *, windows: bool = os.name == "nt") -> str | None:
    """Why `name` must not be written below a run's folder, in words; None if it may be."""
    why = misshapen(name, windows=windows)
    if why is not None or not isinstance(name, str):
        return why
    segments = name.split("/")
    for segment in segments:
        if any(unicodedata.category(c) == "Cf" for c in segment):
            return "it holds characters that cannot be seen"
        bare = _bare(segment)
        if bare in _ORDERS or bare.endswith(_SHORTCUTS):
            return "programs here take orders from a file of that name"
    if _bare(segments[0]) in _TAKEN or OF_ATTEMPTS.fullmatch(_bare(segments[0])):
        return f"{segments[0]} in a run's folder is cloudtrain's own"
    if name.endswith(".part"):
        return "it is not a finished file"
    return None


def misshapen(name: object, *, windows: bool = os.name == "nt") -> str | None:
    """Why nothing that comes from elsewhere must be written by `name` below any folder, in words; None if it may."""
    if (why := _dishonest(name)) is not None or not isinstance(name, str):
        return why
    if len(name.encode()) > _MAX_NAME:
        return "it is too long"
    if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in name):
        return "it holds control characters"
    for segment in name.split("/"):
        if len(segment.encode()) > _MAX_SEGMENT:
            return "it is too long"
        if windows and _DEVICE.fullmatch(segment.rstrip(". ")):
            return "Windows reserves it for a device"
        if windows and (segment[-1] in ". " or _NOT_ON_WINDOWS.intersection(segment)):
            return "Windows cannot store it"
        if _bare(segment) in _REPOSITORY:
            return "it would be part of a repository"
    return None


def _dishonest(name: object) -> str | None:
    """Why no file below a folder can be called `name`; None if one can."""
    if not isinstance(name, str) or not name:
        return "it is empty"
    if "\ufffd" in name or any(unicodedata.category(c) == "Cs" for c in name):
        return "it is not text"  # bytes there that are no UTF-8: by this name nobody would find it
    if name.startswith("/"):
        return "it is absolute"
    for segment in name.split("/"):
        if segment in ("", ".", ".."):
            return "it leads out of the folder" if segment == ".." else "it is not in normal form"
    return None


@functools.lru_cache(4096)  # the folders of a hundred thousand results are few, and each is asked about several times
def _bare(segment: str) -> str:
    """What file systems make of one part of a name: some see no case, no invisible characters, no stream behind a
    colon, or no blanks and dots at the end."""
    seen = "".join(c for c in segment if unicodedata.category(c) != "Cf")
    return fold(seen).partition(":")[0].rstrip(". ")


def fold(name: str) -> str:
    """The form under which file systems that ignore case and accents' encoding see `name`."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _storable(name: str, windows: bool) -> str:
    """`name` itself, or what is most like it and may be written here."""
    segments = name.split("/")
    for at, segment in enumerate(segments):
        segments[at] = segment = "".join("_" if _unfit(c, windows) else c for c in segment)
        # As the first one or a later one, and as the last one or another.
        whole = "/".join(["x"] * at + ["{}"] + ["x"] * (at < len(segments) - 1))
        for other in (segment, f"_{segment}", f"{segment}_", f"_{segment}_"):
            if _welcome(whole.format(other), windows):
                segments[at] = other
                break
    found = "/".join(segments)
    return found if refusal(found, windows=windows) is None else _flat(found, name)


def _welcome(name: str, windows: bool) -> bool:
    """Whether a result that comes now may have this name here."""
    bare = [_bare(segment) for segment in name.split("/")]
    return refusal(name, windows=windows) is None and bare[0] not in _OURS_NOW and "/".join(bare) != LOCK


def _unfit(character: str, windows: bool) -> bool:
    kind = unicodedata.category(character)
    return kind in ("Cc", "Cf", "Zl", "Zp") or (windows and character in _NOT_ON_WINDOWS)


def _flat(like: str, name: str) -> str:
    """A name without folders that no other result has."""
    stem, dot, suffix = like.rpartition(".")
    if not dot or not re.fullmatch(r"\w{1,9}", suffix):
        stem, dot, suffix = like, "", ""
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return re.sub(r"[^\w=-]", "_", stem)[:40] + f"-{mark}{dot}{suffix}"


def _names(entry: FileEntry, windows: bool) -> Iterator[str]:
    """What it can be called here, best first."""
    if entry.stored is not None and refusal(entry.stored, windows=windows) is None:
        yield entry.stored
    name = _storable(entry.name, windows)
    yield name
    folder, _, last = name.rpartition("/")
    beside = f"{folder}/{_flat(last, entry.name)}".lstrip("/")
    yield from (beside, _flat(name, entry.name)) if refusal(beside, windows=windows) is None else ()


def _destination(link: str, placed: Mapping[str, FileEntry], windows: bool) -> str:
    """What a link of the host leads to here: a file, or a folder that may be none of these."""
    if link in placed:
        return placed[link].here
    return link if _dishonest(link) else _storable(f"{link}/x", windows).removesuffix("/x")


def place(
    entries: Iterable[FileEntry], *, fold_case: bool, windows: bool = os.name == "nt"
) -> tuple[list[FileEntry], list[tuple[str, str]]]:
    """What each of a manifest's `entries` is called here, and where its links lead here.

    Args:
        fold_case: the file system sees names that differ by case alone as one.

    Returns:
        the entries that can be here, each under a name of its own, and the names of the others with the reason.
    """
    placed: dict[str, FileEntry] = {}
    left: list[tuple[str, str]] = []
    key = fold if fold_case else str
    files: set[str] = set()
    folders: set[str] = set()

    def free(path: str, above: list[str]) -> bool:
        return path not in files and path not in folders and files.isdisjoint(above)

    def order(entry: FileEntry) -> tuple[bool, bool, str]:
        return entry.link is not None, not _welcome(entry.name, windows), entry.name

    for entry in sorted(entries, key=order):
        why = "the manifest holds it twice" if entry.name in placed else _dishonest(entry.name)
        if why is None and entry.link is not None:
            to, why = _destination(entry.link, placed, windows), f"a link to {entry.link[:200]}"
            within = f"{entry.name}/".startswith(f"{entry.link}/")  # to the folder that it lies in: without an end
            if not within and (key(to) in files or key(to) in folders):
                entry, why = entry.to(to), None
        for name in _names(entry, windows) if why is None else ():
            path = key(name)
            above = ["/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 1)]
            if free(path, above):
                files.add(path)
                folders.update(above)
                placed[entry.name] = replace(entry, stored=None if name == entry.name else name)
                break
        else:
            left.append((entry.name, why or "it collides with another"))
    return list(placed.values()), left

"""What a run has made: all below out/, and what is new or changed in the folder of its code that its spec names."""

from __future__ import annotations

import os
import re
import stat
import time

from .base import TYPE_CHECKING, uptime
from .files import Run, as_text, hash_file, load, save, stamp, touch

if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

# A file of the code is finished while the job runs once it was the same for so long, in seconds of uptime: programs
# write in place, and pause.
SETTLES_S = 10.0
# A file that changed so lately may change again within one tick of its file system's clock.
TICK_NS = 2 * 10**9
# While files are hashed, what is known by then is kept so often: a client may not wait for all of it.
KEEPS_S = 20.0
# Folders that programs keep for themselves, wherever they lie in the code.
CACHES = frozenset("__pycache__ .git .ipynb_checkpoints .pytest_cache .ruff_cache .mypy_cache node_modules".split())
_WANDB = re.compile(r"(?:.*/)?wandb/(?:offline-)?run-[^/]*/tmp")
_MOST_BESIDE = 20
# In the place of size and sha256.
GROWS = -1, None


def walk(top: str, caches: bool, but: str = "") -> Iterator[Tuple[str, str, Optional[os.stat_result]]]:
    """Name below `top`, path and status of everything but folders; no link is followed. None: it cannot be looked into.

    Without `caches` what programs keep for themselves is left out, as is `but`.
    """
    waiting = [""]
    while waiting:
        above = waiting.pop()
        folder = os.path.join(top, above)
        try:
            with os.scandir(folder) as entries:
                found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            yield above, folder, None
            continue
        if not caches and above and ("pyvenv.cfg", False) in found:
            continue
        for last, is_folder in found:
            name = above + "/" + last if above else last
            if name == but or (not caches and (last in CACHES if is_folder else last.endswith(".pyc"))):
                continue
            if is_folder:
                if caches or not _WANDB.fullmatch(name):
                    waiting.append(name)
                continue
            path = os.path.join(folder, last)
            try:
                yield name, path, os.lstat(path)
            except FileNotFoundError:
                pass
            except OSError:
                yield name, path, None


class Results:
    """One look at the results of a run.

    `over`: nothing of the run writes any more, so whatever is there counts. Before that, a file of the code counts once
    it has settled, and hashes of that time are not believed later: what writes through memory changes no time stamp.
    `most`: files that are more than so many bytes, the smallest first, are not read.

    Attributes:
        links: name of each link, and where it leads: the name of a result where that is there, else another path.
        growing: names of files that do not count yet.
    """

    def __init__(self, run: Run, over: bool, most: Optional[float] = None) -> None:
        self.run, self._over, self._most = run, over, most
        self.links: List[Dict[str, str]] = []
        self.growing: List[str] = []
        folder = run.results
        # Folder in the run directory -> its path.
        self._roots = {"out": run.path("out")}
        if folder is not None:
            self._roots["code/" + folder] = os.path.join(run.path("code"), *folder.split("/"))
        sent = load(run.path("sent.json")) if folder is not None else None
        self._sent: Dict[str, List[Any]] = (sent or {}).get("files", {})
        looked = load(run.path("looked.json")) or {}
        # Place in the run directory -> its stamp, uptime since which it is so, and its sha256 once that is known.
        self._known: Dict[str, List[Any]] = looked.get("files", {})
        if looked.get("over") is not over:
            self._known = {place: [*known[:5], None] for place, known in self._known.items()}
        self._news = False
        self._kept_at = uptime()

    def files(self) -> Iterator[Dict[str, Any]]:
        """Name, size and sha256 of each finished file, in the order of their names; the latter is empty where it cannot
        be read, None where it was not."""
        for _, entry in self.places():
            yield entry

    def places(self) -> Iterator[Tuple[str, Dict[str, Any]]]:
        """The same, each with its place in the run directory."""
        found = sorted(self._found(), key=lambda one: one[0])
        seen = {place for _, place, _, _ in found}
        unread = self._unread(found)
        for name, place, path, status in found:
            try:
                told = self._look(place, path, status, place in unread)
            except FileNotFoundError:
                continue  # Replaced or removed by the job since it was listed.
            if told == GROWS:
                self.growing.append(as_text(name))
            elif told is not None:
                yield place, {"name": as_text(name), "size": told[0], "sha256": told[1]}
        if not seen.issuperset(self._known):
            self._known = {place: known for place, known in self._known.items() if place in seen}
            self._news = True
        self._keep()

    def beside(self) -> List[Dict[str, Any]]:
        """What the job has put into code/ beside the folder of the results: name, bytes and number of files."""
        if self.run.results is None:
            return []
        top, mine = self.run.path("code"), self.run.results.split("/")[0]
        told: Dict[str, List[int]] = {}
        for name, _, status in walk(top, caches=False, but=mine):
            first = name.split("/")[0]
            if status is not None and self._sent.get(name, [])[1:] != stamp(status):
                size, count = told.setdefault(first, [0, 0])
                told[first] = [size + status.st_size, count + 1]
        rows: List[Dict[str, Any]]
        rows = [{"name": "../" + as_text(name), "size": size, "files": count} for name, (size, count) in told.items()]
        return sorted(rows, key=lambda row: (-row["size"], row["name"]))[:_MOST_BESIDE]

    def _found(self) -> Iterator[Tuple[str, str, str, Optional[os.stat_result]]]:
        """Name, place, path and status of each file that may be a result; fills `links`."""
        links: List[Tuple[str, str]] = []
        taken: Set[str] = {"MANIFEST.json"}
        for root, top in self._roots.items():
            out = root == "out"
            for name, path, status in walk(top, caches=out):
                place = root + "/" + name
                # The same name in out/ wins; this one is called by its place.
                told = place if not out and name in taken else name
                if out:
                    taken.add(name)
                    if name.endswith(".part") or name == "MANIFEST.json":
                        continue
                if status is not None and not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
                    continue
                if status is not None and stat.S_ISLNK(status.st_mode):
                    links.append((told, path))
                elif status is None or out or not self._is_sent(place, status):
                    yield told, place, path, status
        self.links = sorted((self._link(*link, taken) for link in links), key=lambda link: link["name"])

    def _link(self, name: str, path: str, taken: Set[str]) -> Dict[str, str]:
        real, to = os.path.realpath(path), ""
        for root, top in self._roots.items():
            if real.startswith(top + os.sep) and os.path.exists(real):
                to = os.path.relpath(real, top).replace(os.sep, "/")
                to = root + "/" + to if root != "out" and to in taken else to
        to = to or os.path.join(os.path.dirname(path), os.readlink(path)).replace(os.sep, "/")
        return {"name": as_text(name), "to": as_text(to)}

    def _is_sent(self, place: str, status: os.stat_result, sha256: str = "") -> bool:
        """Whether this is a file of the code as it was sent."""
        sent = self._sent.get(place[len("code/") :]) if place.startswith("code/") else None
        return sent is not None and (sent[1:] == stamp(status) or sent[0] == sha256)

    def _unread(self, found: List[Tuple[str, str, str, Optional[os.stat_result]]]) -> Set[str]:
        """Places of the files that are too many bytes."""
        unread: Set[str] = set()
        room = self._most
        if room is not None:
            sizes = ((status.st_size, name, place) for name, place, _, status in found if status is not None)
            for size, _, place in sorted(sizes):
                room -= size
                if room < 0:
                    unread.add(place)
        return unread

    def _look(
        self, place: str, path: str, status: Optional[os.stat_result], unread: bool
    ) -> Optional[Tuple[int, Optional[str]]]:
        """Size and sha256 of a file that counts; GROWS: not yet; None: it does not."""
        if status is None:
            return 0, ""
        now, mark, waits = uptime(), stamp(status), place.startswith("code/") and not self._over
        known = self._known.get(place, [])
        since, sha256 = known[4:6] if known[:4] == mark and known[4] <= now else (now, None)
        if waits and now - since < SETTLES_S:
            self._note(place, [*mark, since, None])
            return GROWS
        size = status.st_size
        if sha256 is None and unread:
            self._note(place, [*mark, since, None])
            return size, None
        if sha256 is None:
            try:
                size, sha256 = hash_file(path)
            except FileNotFoundError:
                raise
            except OSError:
                return size, ""
            after = os.lstat(path)
            if stamp(after) != mark and waits:
                self._note(place, [*stamp(after), uptime(), None])
                return GROWS
            if stamp(after) == mark and (self._over or waits or abs(time.time_ns() - status.st_mtime_ns) > TICK_NS):
                self._note(place, [*mark, since, sha256])
        return None if self._is_sent(place, status, sha256) else (size, sha256)

    def _note(self, place: str, known: List[Any]) -> None:
        if self._known.get(place) != known:
            self._known[place] = known
            self._news = True
        if uptime() - self._kept_at > KEEPS_S:
            touch(self.run)
            self._keep()

    def _keep(self) -> None:
        """Have the next look know what this one does."""
        if self._news:
            try:
                save(self.run.path("looked.json"), {"v": 1, "over": self._over, "files": self._known})
            except OSError:
                pass  # Then that one hashes again.
        self._news, self._kept_at = False, uptime()

"""The files of a run directory: names, durable writes, hashes."""

from __future__ import annotations

import json
import os
import re
import time

from .base import TYPE_CHECKING, Failure, Later, uptime

if TYPE_CHECKING:
    import hashlib
    import shutil
    from typing import Any, Dict, List, Optional, Tuple
else:
    hashlib = Later("hashlib")
    shutil = Later("shutil")


class Run:
    """Names of everything in one run directory."""

    def __init__(self, folder: str) -> None:
        self.dir = os.path.realpath(folder)
        self.workdir = os.path.dirname(os.path.dirname(self.dir))
        self._results: Optional[List[str]] = None

    @property
    def results(self) -> Optional[str]:
        """The folder below code/ whose new files are results, too; None: there is none."""
        if self._results is None:
            folder = (load(self.path("spec.json")) or {}).get("results")
            self._results = [check_name(folder)] if folder else []
        return self._results[0] if self._results else None

    def path(self, name: str) -> str:
        return os.path.join(self.dir, name)


def load(path: str) -> Optional[Dict[str, Any]]:
    """The JSON object in `path`, or None where there is none (yet)."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read().decode("utf-8"))
    except (OSError, ValueError):
        # Windows refuses to open a file at the moment of its replacement; all these files are written whole.
        return None
    return value if isinstance(value, dict) else None


def save(path: str, value: Dict[str, Any], first_only: bool = False) -> bool:
    """Put `value` at `path` whole or not at all, durably. `first_only`: keep what is there; False if something was."""
    aside = "%s.%d.part" % (path, os.getpid())
    try:
        with open(aside, "wb") as file:
            file.write(json.dumps(value).encode("utf-8") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if first_only:
            try:
                os.link(aside, path)
            except FileExistsError:
                return False
            except OSError:
                # No hard links on this file system: the gap between look and rename is the price.
                if os.path.exists(path):
                    return False
                replace(aside, path)
        else:
            replace(aside, path)
    finally:
        try:
            os.unlink(aside)
        except OSError:
            pass
    sync_folder(os.path.dirname(path))
    return True


def replace(old: str, new: str) -> None:
    """os.replace; on Windows a reader that has `new` open is waited for."""
    for _ in range(100):
        try:
            return os.replace(old, new)
        except PermissionError:
            if os.name != "nt":
                raise
            time.sleep(0.02)
    os.replace(old, new)


def sync_folder(folder: str) -> None:
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def file_size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def stamp(found: os.stat_result) -> List[int]:
    """What changes with a file's content."""
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def hash_file(path: str, target: Optional[str] = None) -> Tuple[int, str]:
    """(bytes, sha256) of what was read from `path`; copied to the new file `target` on the way if that is given."""
    total, size = hashlib.sha256(), 0
    copy = open(target, "xb") if target else None
    try:
        with open(path, "rb") as file:
            while True:
                chunk = file.read(1024 * 1024)
                if not chunk:
                    return size, total.hexdigest()
                total.update(chunk)
                size += len(chunk)
                if copy:
                    copy.write(chunk)
    finally:
        if copy:
            copy.close()


def remove_tree(path: str) -> None:
    """Remove a file, link or folder; nothing there is fine."""
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    elif os.path.lexists(path):
        shutil.rmtree(path)


def as_text(name: str) -> str:
    """`name` with its bytes that are no UTF-8 written out, and what stands for such bytes elsewhere."""
    return name.encode("utf-8", "backslashreplace").decode().replace("\ufffd", "\\ufffd")


def as_bytes(name: str) -> str:
    """What `as_text` was given."""
    return re.sub(r"\\u(dc[89a-f][0-9a-f]|fffd)", lambda found: chr(int(found.group(1), 16)), name)


def check_run(run: Run, given: Optional[str], digest: Optional[str] = None) -> None:
    """Refuse if what was started here is another run than the one with the id `given`, or is of other files."""
    spec = load(run.path("spec.json")) or {}
    if given is not None and spec.get("id", given) != given:
        raise Failure("another_run", "another run of this name is on the host: it was started from somewhere else")
    if digest is not None and spec.get("digest", digest) != digest:
        raise Failure("another_run", "this run was started on the host with other files")


def touch(run: Run) -> None:
    """A client looks at the run: where a grace is running, it begins anew. The file's time is this machine's uptime."""
    if not os.path.exists(run.path("lease.json")):
        return
    try:
        with open(run.path("touched"), "ab"):
            os.utime(run.path("touched"), (uptime(), uptime()))
    except OSError:
        pass


def touched_at(run: Run) -> float:
    try:
        return os.stat(run.path("touched")).st_mtime
    except OSError:
        return 0.0


def check_name(name: Any) -> str:
    """`name`, if it is a relative path of plain components on every system."""
    if isinstance(name, str) and name and "\0" not in name and not re.match("[A-Za-z]:", name):
        if os.name != "nt" or not re.search(r'[\\:*?"<>|]', name):
            if not name.startswith("\\") and all(part not in ("", ".", "..") for part in name.split("/")):
                return name
    raise Failure("bad_name", "refused: %r is not a plain relative path" % (name,))


def check_key(key: Any) -> str:
    """`key`, if it can name a folder of `trees/`."""
    if isinstance(key, str) and re.match(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z", key):
        return key
    raise Failure("bad_name", "refused: %r cannot be the key of a tree" % (key,))

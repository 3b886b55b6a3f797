"""The files of a run directory: names, durable writes, hashes."""

from __future__ import annotations

import json
import os
import re
import stat
import time

from .base import TYPE_CHECKING, Failure, Later, uptime

if TYPE_CHECKING:
    import hashlib
    import shutil
    from typing import Any, Dict, Iterator, Optional, Tuple
else:
    hashlib = Later("hashlib")
    shutil = Later("shutil")


class Run:
    """Names of everything in one run directory."""

    def __init__(self, folder: str) -> None:
        self.dir = os.path.realpath(folder)
        self.workdir = os.path.dirname(os.path.dirname(self.dir))

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


def list_outputs(run: Run) -> Iterator[Dict[str, Any]]:
    """Name, size and sha256 of each finished file below out/, in the order of their names."""
    top = run.path("out")
    names = []
    for folder, _, files in os.walk(top):
        for file in files:
            path = os.path.join(folder, file)
            name = os.path.relpath(path, top).replace(os.sep, "/")
            if not file.endswith(".part") and name != "MANIFEST.json":
                names.append(name)
    for name in sorted(names):
        try:
            if stat.S_ISREG(os.lstat(os.path.join(top, name)).st_mode):
                size, sha256 = hash_file(os.path.join(top, name))
                yield {"name": as_text(name), "size": size, "sha256": sha256}
        except FileNotFoundError:
            pass  # Replaced or removed by the job since it was listed.


def list_links(run: Run) -> Iterator[Dict[str, str]]:
    """Name of each link below out/, and where it leads: a name below out/ where that is there, else another path."""
    top = run.path("out")
    for folder, folders, files in os.walk(top):
        for path in (os.path.join(folder, name) for name in folders + files):
            if os.path.islink(path) and not path.endswith(".part"):
                to = os.path.realpath(path)
                inside = to.startswith(top + os.sep) and os.path.exists(to)
                to = os.path.relpath(to, top) if inside else os.path.join(folder, os.readlink(path))
                name = os.path.relpath(path, top)
                yield {"name": as_text(name.replace(os.sep, "/")), "to": as_text(to.replace(os.sep, "/"))}


def as_text(name: str) -> str:
    """`name` with its bytes that are no UTF-8 written out."""
    return name.encode("utf-8", "backslashreplace").decode()


def as_bytes(name: str) -> str:
    """What `as_text` was given."""
    return re.sub(r"\\udc([89a-f][0-9a-f])", lambda found: chr(0xDC00 + int(found.group(1), 16)), name)


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

"""The verb `receive`: a tree of files, or what changed of it, that counts only once it is there as a whole."""

from __future__ import annotations

import json
import os
import re
import sys

from .base import HEADER_LIMIT, TREE_WAIT_S, TYPE_CHECKING, Failure, Later, Options
from .files import check_key, check_name, load, remove_tree, replace, save, sync_folder
from .locks import take

if TYPE_CHECKING:
    import hashlib
    import shutil
    import tarfile
    from typing import Any, Dict, List, Optional, Set, Tuple
else:
    hashlib = Later("hashlib")
    shutil = Later("shutil")
    tarfile = Later("tarfile")

# So much of the stream is inflated at once, to at most a thousand times as much.
PIECE = 32 * 1024
# What `tarfile` says of a stream that no client of ours has sent.
NOT_GZIP = ("not a gzip file", "unsupported compression method", "invalid compressed data")


def do_receive(options: Options) -> Dict[str, Any]:
    folder = os.path.join(os.path.realpath(options.workdir), "trees", check_key(options.tree))
    header = check_header(sys.stdin.buffer.readline(HEADER_LIMIT))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    merged(header, load(os.path.join(folder, "tree.json")))
    size = sum(entry[0] for entry in header["files"].values())
    free = shutil.disk_usage(folder).free
    if size > free:
        raise Failure("disk_full", "the disk of the host is full: %d bytes to receive, %d free" % (size, free))
    # Staged without the tree's lock: a push whose client fell silent keeps nobody else waiting.
    staging = os.path.join(folder, "staging-%d-%s" % (os.getpid(), os.urandom(4).hex()))
    own = take(staging + ".lock", wait=5.0)
    stays = False
    try:
        os.mkdir(staging)
        begun = begin(header, folder, staging)
        sweep_staging(folder)
        try:
            staged = unpack(header["files"], staging, begun)
        except Failure as failure:
            # What has arrived waits for the push that goes on; the push after that one, or one from new, removes it.
            stays = failure.code == "cut_short" and bool(os.listdir(staging))
            raise
        lock = take(os.path.join(folder, "lock"), wait=TREE_WAIT_S)
        if lock is None:
            raise Failure("tree_busy", "another push to the same tree has been under way for %d s" % TREE_WAIT_S)
        try:
            # Another push may have come first: what counts is the tree as it is now.
            files = merged(header, load(os.path.join(folder, "tree.json")))
            commit(folder, files, header, staged)
        finally:
            os.close(lock)
        return {"digest": header["digest"], "files": len(header["files"]), "bytes": size}
    finally:
        if not stays:
            remove_staging(staging, own)


def do_left(options: Options) -> Dict[str, Any]:
    """What pushes to this tree that were cut short have left: bytes by the sha256 of the file that they begin."""
    folder = os.path.join(os.path.realpath(options.workdir), "trees", check_key(options.tree))
    return {"left": {sha256: size for sha256, (size, _) in left_of(folder).items()}}


def left_of(folder: str) -> Dict[str, Tuple[int, str]]:
    """sha256 -> bytes there and their file, of pushes that were cut short or wait for their client."""
    found: Dict[str, Tuple[int, str]] = {}
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if not name.startswith("staging-") or name.endswith(".lock"):
            continue
        try:
            for file in os.listdir(os.path.join(folder, name)):
                path, sha256 = os.path.join(folder, name, file), file.rpartition("-")[2]
                found[sha256] = max(found.get(sha256, (0, "")), (os.path.getsize(path), path))
        except FileNotFoundError:  # swept meanwhile
            pass
    return found


def begin(header: Dict[str, Any], folder: str, staging: str) -> Dict[str, Tuple[int, Any, str]]:
    """Copy what the client goes on from: name -> bytes, their running sha256 and the staged file."""
    begun: Dict[str, Tuple[int, Any, str]] = {}
    there = left_of(folder) if header["left"] else {}
    for name, (_, sha256, _) in header["files"].items():
        size = header["left"].get(sha256, 0)
        if size:
            have, path = there.get(sha256, (0, ""))
            if have < size:
                raise Failure("cut_short", "what an earlier transfer had left is gone")
            target, total = os.path.join(staging, "%d-%s" % (len(begun), sha256)), hashlib.sha256()
            with open(path, "rb") as file:
                copy_bytes(file, size, target, total)
            begun[name] = (size, total, target)
    return begun


def remove_staging(staging: str, lock: Optional[int]) -> None:
    remove_tree(staging)
    if lock is not None:
        os.close(lock)
    remove_tree(staging + ".lock")


def sweep_staging(folder: str) -> None:
    """Remove what killed pushes left behind; a living one holds the lock beside its staging folder."""
    for name in os.listdir(folder):
        if name.startswith("staging-") and name.endswith(".lock"):
            lock = take(os.path.join(folder, name))
            if lock is not None:
                remove_staging(os.path.join(folder, name[: -len(".lock")]), lock)


def check_header(line: bytes) -> Dict[str, Any]:
    if not line.endswith(b"\n"):
        raise Failure("cut_short", "the transfer ended in its header")
    try:
        header = json.loads(line.decode("utf-8"))
        if header["v"] != 1:
            raise Failure("bad_header", "the header is of version %r" % header["v"])
        for name, (size, sha256, mode) in header["files"].items():
            check_name(name)
            if type(size) is not int or size < 0 or type(mode) is not int or not 0 <= mode <= 0o777:
                raise Failure("bad_header", "the header gives %r an impossible size or mode" % name)
            if not isinstance(sha256, str) or not re.match(r"[0-9a-f]{64}\Z", sha256):
                raise Failure("bad_header", "the header gives %r an impossible sha256" % name)
        for name in header.setdefault("delete", []):
            check_name(name)
        sizes = {sha256: size for size, sha256, _ in header["files"].values()}
        for sha256, size in header.setdefault("left", {}).items():
            if type(size) is not int or not 0 < size <= sizes[sha256]:
                raise Failure("bad_header", "the header goes on from an impossible place")
        if not isinstance(header["digest"], str) or not isinstance(header["base"], (str, type(None))):
            raise Failure("bad_header", "the header gives no digest")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure("bad_header", "the header cannot be read: %s" % error)
    checked: Dict[str, Any] = header
    return checked


def merged(header: Dict[str, Any], tree: Optional[Dict[str, Any]]) -> Dict[str, List[Any]]:
    """The files of the tree as it will be, which must have the digest that the header promises."""
    files: Dict[str, List[Any]] = {}
    if header["base"] is not None:
        if tree is None or tree.get("digest") != header["base"]:
            raise Failure("need_full", "the tree on the host is another one than the changes are against")
        files.update(tree["files"])
    for name in header["delete"]:
        files.pop(name, None)
    files.update(header["files"])
    for name in files:
        above = name.rpartition("/")[0]
        while above:
            if above in files:
                raise Failure("bad_header", "%r is a file and a folder at once" % above)
            above = above.rpartition("/")[0]
    if digest_of(files) != header["digest"]:
        raise Failure("bad_header", "the files of the header do not have the digest that it names")
    return files


def digest_of(files: Dict[str, List[Any]]) -> str:
    """sha256 over `path NUL size NUL sha256 NUL mode LF` in byte order of the paths, numbers in decimal."""
    total = hashlib.sha256()
    for raw, name in sorted((name.encode("utf-8", "surrogateescape"), name) for name in files):
        size, sha256, mode = files[name]
        total.update(b"%s\0%d\0%s\0%d\n" % (raw, size, sha256.encode(), mode))
    return total.hexdigest()


def unpack(wanted: Dict[str, List[Any]], staging: str, begun: Dict[str, Tuple[int, Any, str]]) -> Dict[str, str]:
    """Name -> staged file, checked by size and sha256. Staged as NUMBER-SHA256: no name of the archive reaches a path.

    Of what is `begun` the archive holds the rest, and nothing where that is all of it.
    """
    staged: Dict[str, str] = {}
    for name, (have, total, path) in begun.items():
        size, sha256, mode = wanted[name]
        if have == size:
            settle(name, path, total, sha256, mode)
            staged[name] = path
    if len(staged) == len(wanted):
        return staged
    incoming: Any = sys.stdin.buffer
    if not incoming.peek(1):
        raise Failure("cut_short", "the transfer was cut short")
    try:
        with tarfile.open(fileobj=incoming, mode="r|gz", bufsize=PIECE) as archive:
            for member in archive:
                name = member.name
                if name not in wanted:
                    raise Failure("refused", "%r is not in the header" % name)
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    raise Failure("refused", "%r is a link, a folder or a device, not a plain file" % name)
                if name in staged:
                    raise Failure("refused", "%r arrived twice" % name)
                size, sha256, mode = wanted[name]
                new = os.path.join(staging, "%d-%s" % (len(begun) + len(staged), sha256))
                have, total, path = begun.get(name, (0, hashlib.sha256(), new))
                if member.size != size - have:
                    raise Failure("damaged", "%r arrived with %d bytes, not %d" % (name, member.size, size - have))
                # It stands at the first byte of the member: from below the archive, bytes are copied once less.
                copy_bytes(archive.fileobj, size - have, path, total)
                settle(name, path, total, sha256, mode)
                staged[name] = path
                archive.members = []  # type: ignore[attr-defined]  # Or the archive keeps every member it has passed.
    except tarfile.TarError as error:
        if str(error) in NOT_GZIP:
            raise Failure("bad_stream", "what arrived is not a gzip stream: %s" % error)
        raise Failure("cut_short", "the transfer was cut short")
    if len(staged) < len(wanted):
        raise Failure("cut_short", "the transfer was cut short: %d of %d files arrived" % (len(staged), len(wanted)))
    return staged


def settle(name: str, path: str, total: Any, sha256: str, mode: int) -> None:
    """Check a file that is there as a whole, and give it its mode."""
    if total.hexdigest() != sha256:
        raise Failure("damaged", "%r did not arrive as it was sent" % name)
    # Now and not when it is moved: here the time is the network's, there the client waits for it.
    os.chmod(path, mode | 0o600)


def copy_bytes(source: Any, left: int, path: str, total: Any) -> None:
    """Append the next `left` bytes of `source` to a file, and to their sha256 `total`."""
    with open(path, "ab", 0) as file:
        while left:
            part = source.read(min(left, PIECE))
            if not part:
                raise Failure("cut_short", "the transfer was cut short")
            total.update(part)
            left -= len(part)
            while part:
                part = part[file.write(part) :]


def commit(folder: str, files: Dict[str, List[Any]], header: Dict[str, Any], staged: Dict[str, str]) -> None:
    """Move what was staged into place. tree.json is away while files change, so half a tree is never taken for one."""
    mark, top = os.path.join(folder, "tree.json"), os.path.join(folder, "files")
    if os.path.exists(mark):
        os.unlink(mark)
        sync_folder(folder)
    if header["base"] is None:
        remove_tree(top)
    os.makedirs(top, exist_ok=True)
    for name in header["delete"]:
        if name not in files:
            delete_below(top, name)
    made: Set[str] = set()
    for name, path in staged.items():
        target = make_parents(top, name, made)
        if os.path.isdir(target) and not os.path.islink(target):
            shutil.rmtree(target)
        replace(path, target)
    save(mark, {"v": 1, "digest": header["digest"], "files": files})


def make_parents(top: str, name: str, made: Set[str]) -> str:
    """The path of `name` below `top`, with real folders all the way: a file or link in between gives way.

    `made`: the folders that were looked at before, to which this adds.
    """
    path = top
    for part in name.split("/")[:-1]:
        path = os.path.join(path, part)
        if path in made:
            continue
        made.add(path)
        if os.path.islink(path) or (os.path.lexists(path) and not os.path.isdir(path)):
            os.unlink(path)
        if not os.path.isdir(path):
            os.mkdir(path)
    return os.path.join(path, name.rpartition("/")[2])


def delete_below(top: str, name: str) -> None:
    """Remove the file `name`, and the folders that this leaves empty."""
    path = top
    for part in name.split("/")[:-1]:
        path = os.path.join(path, part)
        if os.path.islink(path) or not os.path.isdir(path):
            return
    target = os.path.join(path, name.rpartition("/")[2])
    if os.path.isdir(target) and not os.path.islink(target):
        return
    if os.path.lexists(target):
        os.unlink(target)
    while path != top:
        try:
            os.rmdir(path)
        except OSError:
            return
        path = os.path.dirname(path)

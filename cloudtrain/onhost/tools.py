"""What makes environments: uv and micromamba, each fetched by URL and sha256 once for a work folder, or sent."""

from __future__ import annotations

import errno
import os
import re
import sys
import time

from .base import TYPE_CHECKING, Failure, Later
from .files import Run
from .locks import take
from .stream import frame

if TYPE_CHECKING:
    import hashlib
    import zipfile
    import zlib
    from typing import Any, Dict, Iterator, List, Tuple, Type
else:
    hashlib = Later("hashlib")
    zipfile = Later("zipfile")
    zlib = Later("zlib")

MOST = 200 * 1024 * 1024
FETCH_S = 30.0
BEAT_S = 2.0


def locked(path: str, why: str) -> int:
    while True:
        lock = take(path, BEAT_S)
        if lock is not None:
            return lock
        frame({"say": why})


def tool_of(run: Run, wanted: Dict[str, Any]) -> str:
    return os.path.join(run.workdir, "tools", "%s-%s" % (wanted["name"], wanted["version"]), wanted["name"])


def tool(run: Run, wanted: Dict[str, Any]) -> str:
    """The path of a tool: one of this computer where the client has named it, what is there, or what is fetched."""
    if wanted.get("path"):
        return str(wanted["path"])
    path = tool_of(run, wanted)
    folder = os.path.dirname(path)
    os.makedirs(os.path.dirname(folder), 0o700, exist_ok=True)
    lock = locked(folder + ".lock", "another run fetches %s; waiting for it" % wanted["name"])
    try:
        if not os.path.exists(path):
            fetched = fetch(wanted, folder + ".part")
            try:
                with open_tool(fetched, wanted) as file:
                    put_tool(path, iter(lambda: file.read(1 << 20), b""))
            finally:
                os.unlink(fetched)
    finally:
        os.close(lock)
    return path


def open_tool(path: str, wanted: Dict[str, Any]) -> Any:
    """The program in a wheel; what is none is the program itself."""
    if not wanted["url"].endswith(".whl"):
        return open(path, "rb")
    archive = zipfile.ZipFile(path)
    return archive.open(next(name for name in archive.namelist() if name.endswith(".data/scripts/" + wanted["name"])))


def put_tool(path: str, pieces: Iterator[bytes]) -> None:
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    aside = "%s.%d.part" % (path, os.getpid())
    try:
        with open(aside, "wb") as file:
            for piece in pieces:
                file.write(piece)
        os.chmod(aside, 0o700)
        os.replace(aside, path)
    finally:
        if os.path.exists(aside):
            os.unlink(aside)


def receive_tool(run: Run, wanted: Dict[str, Any]) -> None:
    """A tool as the client has sent it, which is checked like a fetched one."""
    try:
        body = zlib.decompress(sys.stdin.buffer.read(wanted["size"]))
    except zlib.error:
        body = b""
    if hashlib.sha256(body).hexdigest() != wanted["sent_sha256"]:
        raise Failure("damaged", "%s did not arrive as it was sent" % wanted["name"])
    put_tool(tool_of(run, wanted), iter([body]))


def fetch(wanted: Dict[str, Any], path: str) -> str:
    """It at `path`: a wheel from the index that this login is set to, or from where it is published."""
    told = "%s %s" % (wanted["name"], wanted["version"])
    if not wanted.get("url"):
        raise Failure("tool_unreachable", "there is no %s for this system" % told)
    why: List[str] = []
    for url in urls_of(wanted["url"], why):
        frame({"say": "fetching " + told})
        try:
            download(url, path, wanted["sha256"], told)
            return path
        except unfetched() as error:
            if os.path.exists(path):
                os.unlink(path)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            why.append("%s: %s" % (url.split("/")[2].rpartition("@")[2] if "//" in url else url, error))
    raise Failure("tool_unreachable", "%s cannot be fetched: %s" % (told, "; ".join(why)[:800]))


def urls_of(url: str, why: List[str]) -> Iterator[str]:
    from urllib.parse import urljoin

    name = url.rpartition("/")[2]
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL") if name.endswith(".whl") else ():
        index = os.environ.get(variable)
        if index:
            page = "%s/%s/" % (index.rstrip("/"), name.partition("-")[0])
            try:
                with opened(page) as answer:
                    text = answer.read(8 << 20).decode("utf-8", "replace")
                    found = re.search(r'href="([^"]*%s[^"]*)"' % re.escape(name), text)
                if found:
                    yield urljoin(page, found.group(1).replace("&amp;", "&"))
                else:
                    why.append("%s has no %s" % (variable, name))
            except unfetched() as error:
                why.append("%s: %s" % (variable, error))
            break
    yield url


def opened(url: str) -> Any:
    """Open a page; a name and password in its address go where such belong, and into no message."""
    import base64
    from urllib.parse import unquote, urlsplit, urlunsplit
    from urllib.request import Request, urlopen

    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    headers = {"Accept": "text/html, */*", "User-Agent": "cloudtrain"}
    if login:
        headers["Authorization"] = "Basic " + base64.b64encode(unquote(login).encode()).decode()
    return urlopen(Request(urlunsplit(parts._replace(netloc=host)), headers=headers), timeout=FETCH_S)


def unfetched() -> Tuple[Type[Exception], ...]:
    """What it raises when a page or file does not come whole."""
    from http.client import HTTPException

    return OSError, ValueError, HTTPException


def download(url: str, path: str, sha256: str, name: str) -> None:
    digest, size, told = hashlib.sha256(), 0, time.monotonic()
    with opened(url) as answer, open(path, "wb") as file:
        while True:
            piece = answer.read(1 << 18)
            if not piece:
                break
            digest.update(piece)
            file.write(piece)
            size += len(piece)
            if size > MOST:
                raise ValueError("it is larger than it can be")
            if time.monotonic() - told > BEAT_S:
                told = time.monotonic()
                frame({"say": "fetching %s, %.1f MB" % (name, size / 1e6)})
    if digest.hexdigest() != sha256:
        raise ValueError("its sha256 is not the one that is known")

"""The verbs `environment` and `build`: an environment below WORKDIR/envs, made once for all runs that ask for the same.

It is made under its lock, and its file `ready` is written last: what has none is half of one, and goes. uv comes as a
wheel by URL and sha256, or is sent (docs/protocol.md, "Environments").
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import time

from .base import HEADER_LIMIT, TYPE_CHECKING, Failure, Later, Options
from .files import Run, check_name, load, remove_tree, save
from .locks import take
from .stream import frame

if TYPE_CHECKING:
    import hashlib
    import queue
    import subprocess
    import threading
    import zipfile
    import zlib
    from typing import Any, Dict, Iterator, List, Optional
else:
    hashlib = Later("hashlib")
    queue = Later("queue")
    subprocess = Later("subprocess")
    threading = Later("threading")
    zipfile = Later("zipfile")
    zlib = Later("zlib")

MOST_WHEEL = 200 * 1024 * 1024
FETCH_S = 30.0
BEAT_S = 2.0
ASKED = "environment.json"
LOCKED = "pylock.toml"
# Where systems keep the certificates that they trust.
CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")

# Gives the environment of this interpreter what is in argv[1:] to see, and its programs under its own interpreter.
EXTEND = r"""
import os, sys, sysconfig
from importlib import metadata
own, scripts, sites = sysconfig.get_path("purelib"), sysconfig.get_path("scripts"), sys.argv[1:]
with open(os.path.join(own, "machine.pth"), "w") as file:
    file.write("".join("import site; site.addsitedir(%r)\n" % site for site in sites))
if os.name == "posix":
    for found in metadata.distributions(path=sites):
        for entry in found.entry_points:
            path = os.path.join(scripts, entry.name)
            if entry.group == "console_scripts" and os.path.basename(path) == entry.name and not os.path.exists(path):
                module, _, rest = entry.value.partition(":")
                name = rest.split("[")[0].strip()
                with open(path, "w") as file:
                    file.write("#!%s\nimport sys\nfrom %s import %s\nsys.exit(%s())\n" % (
                        sys.executable, module.strip(), name.split(".")[0], name))
                os.chmod(path, 0o755)
"""


def do_environment(options: Options) -> Dict[str, Any]:
    """Take a request, {"v": 1, "key", "python", "extends", "lock" or "resolve", "uv": {...}}, and say whether it is
    there already. Without the one or the other it is a question alone. After it may come `uv.size` bytes: uv itself."""
    run = Run(options.run)
    asked = request_of(sys.stdin.buffer.readline(HEADER_LIMIT))
    folder = folder_of(run, asked)
    if asked["uv"].get("size"):
        receive_tool(run, asked["uv"])
    there = ready(folder)
    if not there and (asked.get("lock") is not None or asked.get("resolve")):
        save(run.path(ASKED), asked)
    return {"ready": there, **paths_of(folder)}


def request_of(raw: bytes) -> Dict[str, Any]:
    try:
        asked: Dict[str, Any] = json.loads(raw.decode("utf-8"))
        good = (
            asked["v"] == 1
            and re.match(r"[0-9a-f]{16}$", asked["key"])
            and isinstance(asked["python"], str)
            and isinstance(asked.get("lock"), (str, type(None)))
            and all(isinstance(site, str) for site in asked["extends"])
            and isinstance(asked["uv"], dict)
            and re.match(r"[\w.-]+$", asked["uv"]["version"])
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure("bad_spec", "what to make cannot be read: %s" % error)
    if not good:
        raise Failure("bad_spec", "what to make is not of the form that this program knows")
    return asked


def folder_of(run: Run, asked: Dict[str, Any]) -> str:
    return os.path.join(run.workdir, "envs", asked["key"])


def paths_of(folder: str) -> Dict[str, str]:
    scripts = os.path.join(folder, "Scripts" if os.name == "nt" else "bin")
    return {"python": os.path.join(scripts, "python.exe" if os.name == "nt" else "python"), "bin": scripts}


def ready(folder: str) -> bool:
    """Whether it is whole, and its Python still there; its time is then the last at which it was wanted."""
    whole = os.path.exists(os.path.join(folder, "ready")) and os.path.exists(paths_of(folder)["python"])
    if whole:
        os.utime(os.path.join(folder, "ready"))
    return whole


def do_build(options: Options) -> Dict[str, Any]:
    """Make what `environment` was told; tells how it goes by lines {"say": ...}, and uv's own by {"uv": ...}."""
    run = Run(options.run)
    asked = load(run.path(ASKED))
    if asked is None:
        raise Failure("bad_spec", "there is nothing to make")
    folder = folder_of(run, asked)
    os.makedirs(os.path.dirname(folder), 0o700, exist_ok=True)
    if asked.get("resolve"):
        os.unlink(run.path(ASKED))
        return {"lock": resolve(run, asked)}
    lock = locked(folder + ".lock", "another run makes the same environment; waiting for it")
    try:
        if not ready(folder):
            make(run, asked, folder)
        os.unlink(run.path(ASKED))
    finally:
        os.close(lock)
    return {"ready": True, **paths_of(folder)}


def locked(path: str, why: str) -> int:
    while True:
        lock = take(path, BEAT_S)
        if lock is not None:
            return lock
        frame({"say": why})


def make(run: Run, asked: Dict[str, Any], folder: str) -> None:
    clear(folder)
    uv = tool(run, asked["uv"])
    try:
        ask_uv(run, [uv, "venv", "--quiet", "--python", asked["python"], folder])
        python = paths_of(folder)["python"]
        if asked["lock"]:
            path = os.path.join(folder, LOCKED)
            with open(path, "w", encoding="utf-8") as file:
                file.write(asked["lock"])
            install = [uv, "pip", "install", "--python", python, "--no-deps", "--preview-features", "pylock"]
            ask_uv(run, install + ["--color", "never", "--requirements", path])
        if asked["extends"]:
            done = subprocess.run([python, "-I", "-c", EXTEND] + asked["extends"], stderr=subprocess.PIPE)
            if done.returncode:
                raise Failure("environment", done.stderr.decode("utf-8", "replace")[-1000:])
        save(os.path.join(folder, "ready"), {"v": 1, "made": time.time()})
    except BaseException:
        clear(folder)  # A disk that it has filled is free again.
        raise


def resolve(run: Run, asked: Dict[str, Any]) -> str:
    """The exact packages for what a project asks for, where some come as source and must run to tell."""
    uv, folder = tool(run, asked["uv"]), run.path("resolve")
    clear(folder)
    try:
        for name, text in asked["resolve"]["files"].items():
            path = os.path.join(folder, *check_name(name).split("/"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        out = os.path.join(folder, LOCKED)
        ask_uv(run, [uv] + asked["resolve"]["argv"] + ["--output-file", out], folder)
        with open(out, encoding="utf-8") as file:
            return file.read()
    finally:
        clear(folder)


def clear(folder: str) -> None:
    if os.path.lexists(folder):
        remove_tree(folder)


def ask_uv(run: Run, argv: List[str], folder: Optional[str] = None) -> None:
    """Run uv, passing on its lines; ends it if nobody listens any more."""
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    if "PIP_INDEX_URL" in environment and "UV_INDEX_URL" not in environment:
        environment.setdefault("UV_DEFAULT_INDEX", environment["PIP_INDEX_URL"])
    if any(map(os.path.exists, CERTIFICATES)):
        # As Python and pip here do: a company's proxy signs with a certificate of its own.
        environment.setdefault("UV_SYSTEM_CERTS", "1")
    if os.path.dirname(argv[0]).startswith(os.path.join(run.workdir, "tools")):
        # Beside the environments, so that packages need no second place on the disk. Of a user's own uv it is that.
        environment.setdefault("UV_CACHE_DIR", os.path.join(run.workdir, "cache", "uv"))
    process = subprocess.Popen(
        argv,
        cwd=folder or os.path.join(run.workdir, "envs"),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        before = received()
        for line in lines_of(process):
            frame({"uv": line, "received": received() - before})
        code = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    if code:
        raise Failure("environment", "%s ended with exit code %d" % (" ".join(argv[1:3]), code))


def received() -> int:
    """Bytes that have come to this machine by its network; 0 where nothing tells."""
    try:
        with open("/proc/net/dev") as file:
            rows = [line.partition(":") for line in file if ":" in line]
        return sum(int(row.split()[0]) for name, _, row in rows if name.strip() != "lo")
    except (OSError, ValueError, IndexError):
        return 0


def lines_of(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Its lines as they come; "" as a sign of life while there are none."""
    lines: Any = queue.Queue()

    def read() -> None:
        for line in process.stderr or ():
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=BEAT_S)
        except queue.Empty:
            yield ""
            continue
        if line is None:
            return
        yield line.decode("utf-8", "replace").rstrip()[:2000]


def tool_of(run: Run, uv: Dict[str, Any]) -> str:
    return os.path.join(run.workdir, "tools", "uv-" + uv["version"], "uv.exe" if os.name == "nt" else "uv")


def tool(run: Run, uv: Dict[str, Any]) -> str:
    """The path of uv: one of this computer where the client has named it, what is there, or what is fetched."""
    if uv.get("path"):
        return str(uv["path"])
    path = tool_of(run, uv)
    folder = os.path.dirname(path)
    os.makedirs(os.path.dirname(folder), 0o700, exist_ok=True)
    lock = locked(folder + ".lock", "another run fetches uv; waiting for it")
    try:
        if not os.path.exists(path):
            wheel = fetch(uv, folder + ".whl")
            try:
                with zipfile.ZipFile(wheel) as archive:
                    member = next(name for name in archive.namelist() if name.endswith(".data/scripts/uv"))
                    with archive.open(member) as file:
                        put_tool(path, iter(lambda: file.read(1 << 20), b""))
            finally:
                os.unlink(wheel)
    finally:
        os.close(lock)
    return path


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


def receive_tool(run: Run, uv: Dict[str, Any]) -> None:
    """uv as the client has sent it, which is checked like a fetched one."""
    try:
        body = zlib.decompress(sys.stdin.buffer.read(uv["size"]))
    except zlib.error:
        body = b""
    if hashlib.sha256(body).hexdigest() != uv["sent_sha256"]:
        raise Failure("damaged", "uv did not arrive as it was sent")
    put_tool(tool_of(run, uv), iter([body]))


def fetch(uv: Dict[str, Any], path: str) -> str:
    """The wheel at `path`: from the index that this login is set to, or from where it is published."""
    if not uv.get("url"):
        raise Failure("tool_unreachable", "there is no uv for this system")
    why: List[str] = []
    for url in urls_of(uv["url"], why):
        frame({"say": "fetching uv %s" % uv["version"]})
        try:
            download(url, path, uv["sha256"])
            return path
        except (OSError, ValueError) as error:
            if os.path.exists(path):
                os.unlink(path)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            why.append("%s: %s" % (url.split("/")[2] if "//" in url else url, error))
    raise Failure("tool_unreachable", "uv cannot be fetched: %s" % "; ".join(why)[:800])


def urls_of(url: str, why: List[str]) -> Iterator[str]:
    from urllib.parse import urljoin

    name = url.rpartition("/")[2]
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        index = os.environ.get(variable)
        if index:
            page = index.rstrip("/") + "/uv/"
            try:
                with opened(page) as answer:
                    text = answer.read(8 << 20).decode("utf-8", "replace")
                    found = re.search(r'href="([^"]*%s[^"]*)"' % re.escape(name), text)
                if found:
                    yield urljoin(page, found.group(1).replace("&amp;", "&"))
                else:
                    why.append("%s has no %s" % (variable, name))
            except (OSError, ValueError) as error:
                why.append("%s: %s" % (variable, error))
            break
    yield url


def opened(url: str) -> Any:
    from urllib.request import Request, urlopen

    return urlopen(Request(url, headers={"Accept": "text/html, */*", "User-Agent": "cloudtrain"}), timeout=FETCH_S)


def download(url: str, path: str, sha256: str) -> None:
    digest, size, told = hashlib.sha256(), 0, time.monotonic()
    with opened(url) as answer, open(path, "wb") as file:
        while True:
            piece = answer.read(1 << 18)
            if not piece:
                break
            digest.update(piece)
            file.write(piece)
            size += len(piece)
            if size > MOST_WHEEL:
                raise ValueError("it is larger than uv can be")
            if time.monotonic() - told > BEAT_S:
                told = time.monotonic()
                frame({"say": "fetching uv, %.1f MB" % (size / 1e6)})
    if digest.hexdigest() != sha256:
        raise ValueError("its sha256 is not the one that is known")

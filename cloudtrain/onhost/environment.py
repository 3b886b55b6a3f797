"""The verbs `environment` and `build`: an environment below WORKDIR/envs, made once for all runs that ask for the same.

It is made under its lock, and its file `ready` is written last: what has none is half of one, and goes
(docs/protocol.md, "Environments").
"""

from __future__ import annotations

import json
import os
import re
import sys
import time

from .base import HEADER_LIMIT, TYPE_CHECKING, Failure, Later, Options
from .container import info
from .files import Run, check_name, load, remove_tree, save
from .start import copy_tree
from .stream import frame
from .tools import BEAT_S, locked, receive_tool, tool

if TYPE_CHECKING:
    import queue
    import subprocess
    import threading
    from typing import Any, Dict, Iterator, List, Optional
else:
    queue = Later("queue")
    subprocess = Later("subprocess")
    threading = Later("threading")

ASKED = "environment.json"
LOCKED, CONDA = "pylock.toml", "conda.txt"
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
    """Take a request, {"v": 1, "key", "python", "extends", "tool", "lock" or "resolve" or "conda" or "docker"}, and
    say whether it is there already. Without one of these it is a question alone. After it may come `tool.size` bytes:
    the tool."""
    run = Run(options.run)
    asked = request_of(sys.stdin.buffer.readline(HEADER_LIMIT))
    folder = folder_of(run, asked)
    if asked["tool"].get("size"):
        receive_tool(run, asked["tool"])
    there = ready(folder)
    if any(asked.get(what) is not None for what in ("lock", "resolve", "conda", "docker")):
        save(run.path(ASKED), asked)
    return {"ready": there, "lock": text_of(os.path.join(folder, CONDA)), **paths_of(folder)}


def request_of(raw: bytes) -> Dict[str, Any]:
    try:
        asked: Dict[str, Any] = json.loads(raw.decode("utf-8"))
        good = (
            asked["v"] == 1
            and re.match(r"[0-9a-f]{16}$", asked["key"])
            and isinstance(asked["python"], str)
            and isinstance(asked.get("lock"), (str, type(None)))
            and all(isinstance(site, str) for site in asked["extends"])
            and all(re.match(r"[\w.-]+$", asked["tool"][name]) for name in ("name", "version"))
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
    """Make what `environment` was told; tells how it goes by lines {"say": ...}, and a tool's by {"said": ...}."""
    run = Run(options.run)
    asked = load(run.path(ASKED))
    if asked is None:
        raise Failure("bad_spec", "there is nothing to make")
    folder = folder_of(run, asked)
    os.makedirs(os.path.dirname(folder), 0o700, exist_ok=True)
    if asked.get("resolve"):
        os.unlink(run.path(ASKED))
        return {"lock": resolve(run, asked)}
    if asked.get("docker") is not None:
        os.unlink(run.path(ASKED))
        return make_image(run, asked["docker"])
    lock = locked(folder + ".lock", "another run makes the same environment; waiting for it")
    try:
        if not ready(folder):
            remove_tree(folder)
            try:
                (make_conda if asked.get("conda") else make)(run, asked, folder)
                save(os.path.join(folder, "ready"), {"v": 1, "made": time.time()})
            except BaseException:
                remove_tree(folder)  # A disk that it has filled is free again.
                raise
        os.unlink(run.path(ASKED))
    finally:
        os.close(lock)
    return {"ready": True, "lock": text_of(os.path.join(folder, CONDA)), **paths_of(folder)}


def text_of(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def make(run: Run, asked: Dict[str, Any], folder: str) -> None:
    uv = tool(run, asked["tool"])
    ask(run, [uv, "venv", "--quiet", "--python", asked["python"], folder])
    python = paths_of(folder)["python"]
    if asked["lock"]:
        path = os.path.join(folder, LOCKED)
        with open(path, "w", encoding="utf-8") as file:
            file.write(asked["lock"])
        install = [uv, "pip", "install", "--python", python, "--no-deps", "--preview-features", "pylock"]
        ask(run, install + ["--color", "never", "--requirements", path])
    if asked["extends"]:
        done = subprocess.run([python, "-I", "-c", EXTEND] + asked["extends"], stderr=subprocess.PIPE)
        if done.returncode:
            raise Failure("environment", done.stderr.decode("utf-8", "replace")[-1000:])


def make_conda(run: Run, asked: Dict[str, Any], folder: str) -> None:
    """By micromamba, of an environment.yml; what it has chosen is listed by URL."""
    micromamba, files = tool(run, asked["tool"]), run.path("resolve")
    own = ["--root-prefix", os.path.join(run.workdir, "cache", "conda"), "--prefix", folder]
    try:
        write_files(files, asked["conda"]["files"])
        ask(run, [micromamba, "create", "--yes"] + own + ["--file", asked["conda"]["file"]], files)
        if not os.path.exists(paths_of(folder)["python"]):
            raise Failure("environment", "%s names no python" % asked["conda"]["file"])
        chosen = subprocess.run([micromamba, "list", "--explicit"] + own, stdout=subprocess.PIPE).stdout
        with open(os.path.join(folder, CONDA), "wb") as file:
            file.write(chosen)
    finally:
        remove_tree(files)


def make_image(run: Run, wanted: Dict[str, str]) -> Dict[str, Any]:
    """The image, as docker has it, pulls it, or builds it of a folder of a tree; without one: docker can be used."""
    info()
    image = wanted.get("image")
    known = known_by(image) if image else ""
    was = bool(known)
    if image and not was:
        folder = run.path("context")
        try:
            if wanted.get("tree"):
                remove_tree(folder)
                for _ in copy_tree(run, wanted, folder, {}):
                    pass
                context = os.path.join(folder, *check_name(wanted["folder"]).split("/"))
                build = ["docker", "build", "--pull=false", "--label=cloudtrain", "--tag", image]
                ask(run, build + ["--file", wanted["file"], "."], context, "image_not_built")
            else:
                ask(run, ["docker", "pull", image], None, "image_not_pulled")
        finally:
            remove_tree(folder)
        known = known_by(image)
    return {"lock": known, "was": was}


def known_by(image: str) -> str:
    """What docker knows an image by, a line each: its id, and its digests in registries; "": it has none."""
    form = "{{.Id}}{{range .RepoDigests}} {{.}}{{end}}"
    argv = ["docker", "image", "inspect", "--format", form, "--", image]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    words = done.stdout.decode("utf-8", "replace").split() if done.returncode == 0 else []
    return "".join(word + "\n" for word in words)


def write_files(folder: str, files: Dict[str, str]) -> None:
    remove_tree(folder)
    for name, text in files.items():
        path = os.path.join(folder, *check_name(name).split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def resolve(run: Run, asked: Dict[str, Any]) -> str:
    """The exact packages for what a project asks for, where some come as source and must run to tell."""
    uv, folder = tool(run, asked["tool"]), run.path("resolve")
    try:
        write_files(folder, asked["resolve"]["files"])
        out = os.path.join(folder, LOCKED)
        ask(run, [uv] + asked["resolve"]["argv"] + ["--output-file", out], folder)
        return text_of(out)
    finally:
        remove_tree(folder)


def ask(run: Run, argv: List[str], folder: Optional[str] = None, fails: str = "environment") -> None:
    """Run a tool, passing on its lines; ends it if nobody listens any more."""
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
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        before = received()
        for line in lines_of(process):
            frame({"said": line, "received": received() - before})
        code = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    if code:
        raise Failure(fails, "%s ended with exit code %d" % (" ".join(argv[1:3]), code))


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
        for line in process.stdout or ():
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

"""Start, reach and end a region that outlives the command which started it. Imports neither moto nor asyncssh."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from cloudtrain import core
from cloudtrain.core.disk import private_dir
from cloudtrain.core.errors import CloudtrainError, UsageError
from cloudtrain.emulator import posix_shell, processes
from cloudtrain.emulator.faults import parse

LIMIT_S = 90.0
"""How long a start may take: importing moto takes 2 to 5 s on a laptop, far longer on a busy one."""


class RegionFailed(CloudtrainError):
    """The emulated region did not start or does not answer; nothing is billed, nothing was sent anywhere."""

    code = "rehearsal"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A living region: its address, and what a client of it needs in its environment."""

    url: str
    environment: dict[str, str]


def ensure(
    folder: Path,
    *,
    faults: Sequence[str] = (),
    region: str = "us-east-1",
    data: Path | None = None,
    options: Sequence[str] = (),
) -> Endpoint:
    """The region in `folder`, started if none lives there.

    Args:
        faults: in force from now on; a living region drops those it had.
        region: AWS Region that the environment names.
        data: folder told to the machines' sessions as `CLOUDTRAIN_DATA`.
        options: further options of `python -m cloudtrain.emulator serve`.

    Raises:
        UsageError: a fault is not one, or the extra `rehearse` is not installed.
        RegionFailed: it did not come up in time.
    """
    parse(faults)
    folder = private_dir(Path(folder).absolute())
    with filelock.FileLock(folder / "region.lock", timeout=LIMIT_S, mode=0o600):
        told = living(folder)
        if told is None:
            told = _start(folder, faults, region, data, options)
        elif faults:
            ask(told, "faults", {"faults": list(faults)})
    url = str(told["endpoint_url"])
    return Endpoint(url, client_environment(url, region, access_key(told)))


def access_key(told: Mapping[str, Any]) -> tuple[str, str]:
    """Key id and secret of the region that `living` told of."""
    # One that was started by the release before has none, and asks for none.
    id, secret = told.get("access_key") or ("AKIAREHEARSAL0000000", "rehearsal")
    return str(id), str(secret)


def client_environment(endpoint_url: str, region: str, access_key: tuple[str, str]) -> dict[str, str]:
    """Variables that point any AWS client at an emulated region and away from the user's own account."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": access_key[0],
        "AWS_SECRET_ACCESS_KEY": access_key[1],
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def living(folder: Path) -> dict[str, Any] | None:
    """`region.json` of the region that lives in `folder`; None if there is none, or only a dead one's."""
    try:
        told = json.loads((Path(folder) / "region.json").read_bytes())
        pid = int(told["pid"])
    except (OSError, ValueError, KeyError):
        return None
    if not processes.alive(pid):
        return None
    try:
        answer = ask(told, "ping", limit_s=10)
    except RegionFailed:
        return None
    return told if answer.get("pid") == pid else None


def inventory(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What exists in the region in `folder`; of a dead one nothing does, since its machines end with it."""
    told = living(folder)
    if told is None:
        sweep(folder)
        return {}
    found: dict[str, list[dict[str, Any]]] = ask(told, "inventory")
    return found


def calls(folder: Path) -> list[dict[str, Any]]:
    """Every AWS call that the living region in `folder` has seen."""
    told = living(folder)
    found: list[dict[str, Any]] = ask(told, "calls") if told else []
    return found


def stop(folder: Path, *, limit_s: float = 30.0) -> bool:
    """End the region in `folder` and all its machines. Returns whether one lived. Sweeps what a dead one left.

    Raises:
        RegionFailed: it still lives after `limit_s` seconds.
    """
    folder = Path(folder).absolute()
    told = living(folder)
    if told is None:
        sweep(folder)
        return False
    with contextlib.suppress(RegionFailed):  # it may be gone before its answer is out; what counts is its end
        ask(told, "stop", {})
    deadline = time.monotonic() + limit_s
    while processes.alive(int(told["pid"])):
        if time.monotonic() > deadline:
            raise RegionFailed(
                "the emulated region does not end",
                hint=f"end process {told['pid']} yourself",
                consequence="nothing is billed",
            )
        time.sleep(0.02)
    return True


def sweep(folder: Path) -> int:
    """End what a region that died left in `folder`: processes and disks of its machines. Returns how many processes."""
    try:
        told = json.loads((folder / "region.json").read_bytes())
        pid, mark = int(told["pid"]), str(told["mark"])
    except (OSError, ValueError, KeyError):
        return 0
    if pid != os.getpid() and processes.alive(pid) and living(folder) is not None:
        return 0
    ended = processes.end_all(f"{mark}/", grace=0)
    shutil.rmtree(folder / "machines", ignore_errors=True)
    (folder / "region.json").unlink(missing_ok=True)
    return ended


def ask(told: dict[str, Any], page: str, body: Any = None, *, limit_s: float = 30.0) -> Any:
    """Read `/_region/PAGE`, or post `body` to it.

    Raises:
        RegionFailed: no answer.
    """
    request = urllib.request.Request(
        f"{told['endpoint_url']}/_region/{page}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"X-Region-Token": str(told["token"])},
    )
    # A proxy of the user's must not see loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=limit_s) as answer:
            return json.loads(answer.read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise RegionFailed(f"the emulated region does not answer: {error}", consequence="nothing is billed") from error


def _start(
    folder: Path, faults: Sequence[str], region: str, data: Path | None, options: Sequence[str]
) -> dict[str, Any]:
    _check_installed()
    sweep(folder)
    argv = [sys.executable, "-m", "cloudtrain.emulator", "serve", "--folder", str(folder), "--region", region]
    argv += [word for fault in faults for word in ("--fault", fault)]
    argv += ["--data", str(data)] if data else []
    argv += options
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    here = str(Path(core.__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [environment.get("PYTHONPATH")])])
    log = folder / "region.log"
    with open(log, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env=environment,
            start_new_session=os.name == "posix",
            # Detached, in a process group of its own: Ctrl-C here must not reach it.
            creationflags=0x00000208 if sys.platform == "win32" else 0,
        )
    # It is never waited for by this command, but a finished child must not stay a zombie of a long-lived one.
    threading.Thread(target=process.wait, name="reap region", daemon=True).start()
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        told = living(folder)
        if told is not None:
            return told
        if process.returncode is not None:
            break
        time.sleep(0.05)
    with contextlib.suppress(OSError):
        process.kill()
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
    raise RegionFailed(
        "the emulated region did not start", hint=f"its log: {log}", consequence="nothing is billed", detail=tail
    )


def _check_installed() -> None:
    missing = [name for name in ("moto", "asyncssh", "flask") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the rehearsal needs {' and '.join(missing)}",
            hint='pip install "cloudtrain[rehearse]"',
            consequence="nothing was started",
            code="not_installed",
        )
    if posix_shell.find() is None:
        raise UsageError(
            "the rehearsal needs a POSIX shell for its machines: that of Git for Windows",
            hint="winget install Git.Git, then again; --local trains here without it",
            consequence="nothing was started",
            code="not_installed",
        )

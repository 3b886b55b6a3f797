"""The program on a host that makes environments: what it is told to make, and how that goes on the screen."""

from __future__ import annotations

import hashlib
import re
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cloudtrain.core.decode import Odd, json_object
from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.events import Emit, Noted, StepProgress
from cloudtrain.core.text import seconds, shortened, size
from cloudtrain.environment import failures, uv
from cloudtrain.transfer.supervisor import Supervisor
from cloudtrain.transport.base import Stream

LIMIT_S = 1200.0
"""Seconds that an installation may take: torch with CUDA's libraries is 3 GB."""
SILENT_S = 30.0
_LONGEST_LINE = 16 * 2**20  # one may hold a lock
_WORDS = 200  # lines of a tool's that are kept


def have_built(supervisor: Supervisor, request: Mapping[str, Any], platform: str, emit: Emit) -> Mapping[str, Any]:
    """Have the request done; what our program there answers."""
    supervisor.environment(request)
    answer = _build(supervisor, emit)
    if isinstance(answer, str) and request["tool"]["name"] == "uv":
        _send_uv(supervisor, request, platform, answer)
        emit(Noted("the machine cannot fetch uv; this computer's was sent"))
        answer = _build(supervisor, emit)
    if isinstance(answer, str):
        raise failures.not_built(answer, "index_unreachable")
    return answer


def uv_tool(platform: str, here: bool) -> dict[str, Any]:
    """Which uv the machine is to use: this computer's, or a wheel that it fetches."""
    if here:
        return {"name": "uv", "version": uv.VERSION, "path": uv.here()}
    path, sha256 = next((wheel for name, wheel in uv.WHEELS.items() if platform.startswith(name)), ("", ""))
    return {"name": "uv", "version": uv.VERSION, "url": uv.FILES + path if path else "", "sha256": sha256}


def _send_uv(supervisor: Supervisor, request: Mapping[str, Any], platform: str, why: str) -> None:
    """Send this computer's uv to a machine that cannot fetch one, for the reason `why`.

    Raises:
        ConnectionFailed: it is for another system.
    """
    ours = next((name for name in uv.WHEELS if uv.is_for(name)), None)
    if ours is None or not platform.startswith(ours):
        raise ConnectionFailed(
            "uv, which installs the packages, could not be fetched by the machine",
            hint="UV_DEFAULT_INDEX in its login's environment names an index that it reaches",
            consequence="nothing has trained",
            detail=why,
            code="index_unreachable",
        )
    body = Path(uv.here()).read_bytes()
    packed = zlib.compress(body, 1)
    sent = {"size": len(packed), "sent_sha256": hashlib.sha256(body).hexdigest()}
    supervisor.environment({**request, "tool": {**request["tool"], **sent}}, packed)


def _build(supervisor: Supervisor, emit: Emit) -> Mapping[str, Any] | str:
    """Have it made, telling how it goes: the answer, or why the machine has no uv and can fetch none.

    Raises:
        ConnectionFailed: it was not, and why; or the link broke.
    """
    words: list[str] = []
    began = time.monotonic()
    downloads = _Downloads()
    with supervisor.build() as stream:
        for line in _lines(stream, began):
            if "ok" in line:
                if line["ok"] is True:
                    return line
                told, message = str(line.get("code")), str(line.get("message"))
                if told == "tool_unreachable":
                    return shortened(message, 800)
                raise failures.not_built("\n".join([*words, message]), told)
            said = str(line.get("said") or "")
            words = [*words, said][-_WORDS:] if said else words
            gone = time.monotonic() - began
            text = downloads.take(said, line.get("received"), gone) or shortened(str(line.get("say") or ""), 100)
            emit(StepProgress("packages", text, gone, LIMIT_S, "s"))
        done = stream.finish(30.0)
    raise failures.not_built("\n".join([*words, done.stderr.decode("utf-8", "replace")]))


def _lines(stream: Stream, began: float) -> Iterator[Mapping[str, Any]]:
    """What our program there says, an object a line."""
    rest = b""
    while True:
        if time.monotonic() - began > LIMIT_S:
            raise failures.not_built(f"not done within {seconds(LIMIT_S)}")
        try:
            data = stream.read(SILENT_S)
        except TimeoutError as error:
            raise ConnectionFailed(
                f"the host has been silent for {SILENT_S:.0f} s", consequence="nothing has trained", code="silent"
            ) from error
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            try:
                yield json_object(line, _LONGEST_LINE)
            except Odd:
                continue
        rest = rest[:_LONGEST_LINE]


class _Downloads:
    """How far uv is, by its lines: "Downloading numpy (16.1MiB)", " Downloaded numpy"."""

    def __init__(self) -> None:
        self._under_way: dict[str, str] = {}
        self._done = 0
        self._came = (0.0, 0)  # seconds, and bytes until then
        self._rate = ""

    def take(self, said: str, received: object, at: float) -> str:
        """One human-readable line, after a line of uv's ("": it said nothing) and so many bytes, `at` seconds."""
        if started := re.match(r"\s*(?:Downloading|Building) (\S+)(?: \((.+)\))?$", said):
            self._under_way[started[1][:60]] = f" ({started[2][:20]})" if started[2] else ""
        elif ended := re.match(r"\s*(?:Downloaded|Built) (\S+)$", said):
            self._done += self._under_way.pop(ended[1][:60], None) is not None
        if not self._under_way:
            return shortened(said, 100)
        names = [f"{name}{large}" for name, large in self._under_way.items()]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        told = f"{', '.join(names[:3])}{more}" + (f", {self._done} done" if self._done else "")
        came, (since, before) = received if isinstance(received, int) else 0, self._came
        if came > before and at - since >= 1:
            self._came = (at, came)
            self._rate = f"; {size(came)} received, {size((came - before) / (at - since))}/s"
        return shortened(told + self._rate, 160)

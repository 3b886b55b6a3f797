"""What a host says: its answers, and the frames of its log."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import strategies as st

from cloudtrain.transfer.frames import FrameParser
from cloudtrain.transfer.supervisor import Supervisor
from tests.fakes import Canned
from tests.hostile.odd import Parser, spoilt

EXIT = {
    "v": 1,
    "code": 0,
    "signal": None,
    "at": 1.8e9,
    "log_bytes": 3,
    "log_sha256": "a" * 64,
    "events_bytes": 3,
    "stop": None,
    "events_sha256": "b" * 64,
}
HEADS: tuple[dict[str, Any], ...] = (
    {"k": "log", "o": 0, "n": 3},
    {"k": "events", "o": 0, "n": 3},
    {"k": "beat", "t": 1.8e9, "log": 3, "events": 3},
    {"k": "shrunk", "file": "console.log", "size": 1},
    {"k": "notice", "kind": "spot", "t": 1.8e9, "ends": 1.8e9},
    {"k": "gpu", "t": 1.8e9, "gpus": [{"busy": 5, "used_mib": 1, "total_mib": 2}]},
    {"k": "end", "state": "exited", "exit": EXIT, "log": 3, "events": 3},
)
TAIL = base64.b64encode(b"abc").decode()
STANDS = {"ok": True, "state": "exited", "exit": EXIT, "stop": None}
GPU = {"name": "Tesla T4", "memory_mib": 15360}
REFUSAL = {"ok": False, "code": "refused", "message": "no"}
ANSWERS: dict[str, dict[str, Any]] = {
    "probe": {
        "ok": True,
        "python": {"version": "3.12", "path": "/p"},
        "torch": "2",
        "cuda": "12",
        "driver": "5",
        "gpus": [GPU],
        "cpus": 4,
        "disk_free": 5,
        "os": "x",
        "home": "/h",
        "boot_id": "b",
        "without_cuda": True,
        "why": "given",
        "looked": ["/p"],
        "nvidia_smi": "words",
        "cuda_fault": "words",
        "serves": "12.4",
        "logout": "ends",
    },
    "start": {"ok": True, "state": "running", "started": True, "pid": 3},
    "poll": {**STANDS, "log_size": 3, "events_size": 3, "log": TAIL, "events": TAIL},
    "stop": STANDS,
    "lease": {"ok": True, "state": "running"},
    "manifest": {
        "ok": True,
        "files": [{"name": "w", "size": 3, "sha256": "a" * 64}],
        "growing": ["log.txt"],
        "beside": [{"name": "../data", "size": 3, "files": 2}],
    },
}


def frames(head: Any) -> None:
    """A frame's head."""
    for frame in FrameParser().feed(json.dumps(head).encode() + b"\n" + b"abc"):
        if hasattr(frame, "text"):
            frame.text()


def answers(told: tuple[str, Any]) -> None:
    """The answer to a verb."""
    verb, answer = told
    ask = Supervisor(Canned(json.dumps(answer).encode() + b"\n"), "python3", "r", ".")
    said = getattr(ask, verb)(*([{}] if verb == "start" else []))
    if verb == "probe":
        assert len(said.summary()) <= 300 and len(said.idle_gpu("1x T4") or "") <= 700


def _answers(verb: str) -> st.SearchStrategy[Any]:
    return st.tuples(st.just(verb), spoilt(st.sampled_from([ANSWERS[verb], ANSWERS[verb], REFUSAL])))


PARSERS = {
    "frames": Parser(frames, spoilt(st.sampled_from(HEADS))),
    "answers of the host": Parser(answers, st.sampled_from(sorted(ANSWERS)).flatmap(_answers), costs=2),
}

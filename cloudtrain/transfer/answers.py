"""What the on-host verbs answer, as values; an answer that is none raises `Odd`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cloudtrain.core.decode import Odd, count, each, fields, json_object, known, moment, number, optional, text, truth
from cloudtrain.core.text import counted, shortened
from cloudtrain.core.told import ExitRecord
from cloudtrain.run_folder.artifacts import FileEntry
from cloudtrain.transfer.frames import exit_record

# Why an interpreter was chosen that is not the first that was looked at.
_WHY = {
    "given": "by --python",
    "torch": "the first that has torch",
    "cuda": "the first whose torch can use the driver's CUDA",
}


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as nvidia-smi names it; memory in MiB, None where it does not say."""

    name: str
    memory_mib: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What a host has.

    Attributes:
        python: path of the interpreter chosen for the job.
        torch, cuda: versions of torch and of the CUDA that it was built for; None: has none.
        without_cuda: torch says itself that it was built without.
        why: why this interpreter, a key of `_WHY`; `looked`: where others were looked for.
        nvidia_smi: its words where it lists no GPU; empty where it does; None: it is not there.
        cuda_fault: why CUDA finds no GPU, as it says; None: it does, or was not asked.
        serves: the newest CUDA that the driver has.
        logout: what becomes of programs when their login ends: "ends", "scope" (those in a scope of the user's own go
            on), or None: all go on.
        disk_free: bytes, where runs are kept.
        boot_id: changes when the machine starts anew; None where the system has no such name.
        at: unix seconds by its clock, as it answered.
    """

    python: str
    python_version: str
    torch: str | None
    cuda: str | None
    driver: str | None
    gpus: tuple[Gpu, ...]
    cpus: int
    disk_free: int
    os: str
    home: str
    boot_id: str | None
    at: float | None = None
    without_cuda: bool = False
    why: str | None = None
    looked: tuple[str, ...] = ()
    nvidia_smi: str | None = None
    cuda_fault: str | None = None
    serves: str | None = None
    logout: str | None = None

    def idle_gpu(self, promised: str = "") -> str | None:
        """Why no GPU can be used, for people; None: one can, there is none, or that is not known.

        Args:
            promised: the GPU that the machine has by its type; empty: nobody says so.
        """
        told = []
        if self.serves is None or self.cuda_fault is not None:
            told += [f'nvidia-smi says "{shortened(self.nvidia_smi)}"'] if self.nvidia_smi else []
            told += [f'CUDA says "{shortened(self.cuda_fault)}"'] if self.cuda_fault else []
        if self.nvidia_smi is None and self.serves is None and not told:
            return "there is no nvidia-smi, so it seems to have no driver by NVIDIA" if promised else None
        if self.without_cuda:
            told.append(f"its torch {self.torch} is built without CUDA")
        elif not told and self.cuda and self.serves and _major(self.cuda) > _major(self.serves):
            driver = f"driver {self.driver}" if self.driver else "driver"
            told.append(f"torch {self.torch} is built for CUDA {self.cuda}, its {driver} has {self.serves} at most")
        return shortened(" and ".join(told), 700) or None

    def summary(self) -> str:
        """One line for people: "torch 2.13.0 (CUDA 12.6), Tesla T4 15 GiB, Python 3.12.3"."""
        torch = f"torch {self.torch}" + (f" (CUDA {self.cuda})" if self.cuda else "") if self.torch else "no torch"
        if self.gpus:
            memory = self.gpus[0].memory_mib
            device = (f"{len(self.gpus)} x " if len(self.gpus) > 1 else "") + self.gpus[0].name
            device += f" {memory / 1024:.0f} GiB" if memory else ""
        else:
            device = counted(self.cpus, "CPU")
        chosen = f" of {self.python} ({_WHY[self.why]})" if self.why in _WHY else ""
        return shortened(f"{torch}, {device}, Python {self.python_version}{chosen}", 300)


def _major(version: str) -> int:
    digits = version.partition(".")[0]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 6 else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """How a run stands on its host.

    Attributes:
        state: "exited", "running", "lost" or "absent".
        stop: the reason of the recorded wish to stop, or None.
        log, events: new bytes from the offsets asked for, at most 1 MiB each; `events` in whole lines.
    """

    state: str
    exit: ExitRecord | None
    stop: str | None = None
    log_size: int = 0
    events_size: int = 0
    log: bytes = b""
    events: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFolder:
    """A folder that a host keeps: of a run, or the pushed copy of a project (then `id` and `state` are empty).

    Attributes:
        id: what the run is known by; None: by its folder alone, as runs of the last release are.
        state: "running", "starting", "exited", "lost" or "absent".
        kept: why it was not removed, though that was wanted.
    """

    name: str
    size: int
    removed: bool
    id: str | None = None
    age_s: float = 0.0
    state: str = ""
    kept: str | None = None

    @property
    def lives(self) -> bool:
        """Whether a run goes on there, or may yet begin."""
        return self.state not in ("exited", "lost", "absent")


@dataclass(frozen=True, slots=True)
class HostFolders:
    """What lies below a host's work folder."""

    runs: tuple[HostFolder, ...]
    trees: tuple[HostFolder, ...]


_QUOTED = 300


def host_folders(answer: Mapping[str, Any]) -> HostFolders:
    """What `clean` says."""
    return HostFolders(tuple(each(_run_folder)(answer.get("runs"))), tuple(each(_tree)(answer.get("trees"))))


def _run_folder(value: Any) -> HostFolder:
    told, base = fields(value), _tree(value)
    return replace(
        base,
        id=optional(text, told.get("id")),
        age_s=number(told.get("age_s")),
        state=text(told.get("state")),
        kept=None if (kept := optional(text, told.get("kept"))) is None else kept[:_QUOTED],
    )


def _tree(value: Any) -> HostFolder:
    told = fields(value)
    return HostFolder(
        name=text(told.get("name"))[:_QUOTED], size=count(told.get("bytes")), removed=truth(told.get("removed"))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Answer of `start`: `started` is False if the run was there already."""

    state: str
    started: bool
    pid: int | None


def host_facts(answer: Mapping[str, Any]) -> HostFacts:
    """What `probe` says."""
    python = fields(answer.get("python"))
    return HostFacts(
        python=text(python.get("path")),
        python_version=text(python.get("version")),
        torch=optional(text, answer.get("torch")),
        cuda=optional(text, answer.get("cuda")),
        driver=optional(text, answer.get("driver")),
        gpus=tuple(each(_gpu)(answer.get("gpus"))),
        cpus=count(answer.get("cpus")),
        disk_free=count(answer.get("disk_free")),
        os=text(answer.get("os")),
        home=text(answer.get("home")),
        boot_id=optional(text, answer.get("boot_id")),
        at=optional(moment, answer.get("at")),
        without_cuda=truth(answer.get("without_cuda", False)),
        looked=tuple(each(text)(answer.get("looked", []))),
        **{name: optional(text, answer.get(name)) for name in ("why", "nvidia_smi", "cuda_fault", "serves", "logout")},
    )


def _gpu(value: Any) -> Gpu:
    told = fields(value)
    return Gpu(text(told.get("name")), optional(count, told.get("memory_mib")))


def started(answer: Mapping[str, Any]) -> Started:
    """What `start` says."""
    pid = optional(count, answer.get("pid"))
    return Started(state=text(answer.get("state")), started=truth(answer.get("started")), pid=pid)


def how_it_stands(answer: Mapping[str, Any]) -> RunStatus:
    """What `stop` says, and `poll` before its bytes."""
    stop = optional(text, answer.get("stop"))
    return RunStatus(state=text(answer.get("state")), exit=exit_record(answer.get("exit")), stop=stop)


def run_status(answer: Mapping[str, Any]) -> RunStatus:
    """What `poll` says."""
    return replace(
        how_it_stands(answer),
        log_size=count(answer.get("log_size")),
        events_size=count(answer.get("events_size")),
        log=_bytes(answer.get("log")),
        events=_bytes(answer.get("events")),
    )


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(text(value))
    except ValueError as error:
        raise Odd("not base64") from error


def manifest(answer: Mapping[str, Any]) -> list[FileEntry]:
    """What `manifest` says; a program of the last release knows no links."""
    links = [(text(told.get("name")), text(told.get("to"))) for told in each(fields)(answer.get("links") or [])]
    return [*each(_file)(answer.get("files")), *(FileEntry(name, 0, "").to(to) for name, to in links)]


def _file(value: Any) -> FileEntry:
    # A size or sha256 that is none is that file's failure, not the manifest's: `pull` refuses it by its name.
    told = known(fields(value), {"size": count, "sha256": text})
    size = told.get("size")
    return FileEntry(text(told.get("name")), -1 if size is None else size, told.get("sha256") or "")


def last_object(said: bytes) -> dict[str, Any] | None:
    """The last line as an answer of ours, a JSON object with `ok`; login scripts may have printed before it."""
    try:
        value = json_object(said.rstrip()[said.rstrip().rfind(b"\n") + 1 :])
    except Odd:
        return None
    return value if "ok" in value else None

"""What the on-host verbs answer, as values; an answer that is none raises `Odd`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from cloudtrain.core.decode import Count, Odd, count, each, fields, json_object, known, made, text, there
from cloudtrain.core.host import HostFacts
from cloudtrain.core.notes import UNREAD, FileEntry
from cloudtrain.core.text import counted, size
from cloudtrain.core.told import ExitRecord
from cloudtrain.transfer.frames import exit_record


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(text(value))
    except ValueError as error:
        raise Odd("not base64") from error


def _quoted(value: Any) -> str:
    return text(value)[:300]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """How a run stands on its host, as `stop` says, and `poll` with its bytes.

    Attributes:
        state: "exited", "running", "lost" or "absent".
        stop: the reason of the recorded wish to stop, or None.
        log, events: new bytes from the offsets asked for, at most 1 MiB each; `events` in whole lines.
    """

    state: str
    exit: Annotated[ExitRecord, exit_record] | None = None
    stop: str | None = None
    log_size: Count = 0
    events_size: Count = 0
    log: Annotated[bytes, _bytes] = b""
    events: Annotated[bytes, _bytes] = b""


@dataclass(frozen=True, slots=True)
class HostEnvironment:
    """Where an environment lies, or will: its interpreter, the folder of its programs, and whether it is made; of one
    that was resolved there, `lock` says what it holds."""

    ready: bool
    python: str
    bin: str
    lock: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFolder:
    """A folder that a host keeps: of a run, or the pushed copy of a project or an environment (then `id` and `state`
    are empty).

    Attributes:
        id: what the run is known by; None: by its folder alone, as runs of the last release are.
        state: "running", "starting", "exited", "lost" or "absent".
        kept: why it was not removed, though that was wanted.
    """

    name: Annotated[str, _quoted]
    size: Count
    removed: bool
    id: str | None = None
    age_s: float = 0.0
    state: str = ""
    kept: Annotated[str, _quoted] | None = None

    @property
    def lives(self) -> bool:
        """Whether a run goes on there, or may yet begin."""
        return self.state not in ("exited", "lost", "absent")


@dataclass(frozen=True, slots=True)
class HostFolders:
    """What lies below a host's work folder."""

    runs: tuple[HostFolder, ...]
    trees: tuple[HostFolder, ...]
    environments: tuple[HostFolder, ...] = ()


def host_folders(answer: Mapping[str, Any]) -> HostFolders:
    """What `clean` says."""
    runs, kept = each(_run_folder)(answer.get("runs")), (answer.get("trees"), answer.get("environments") or [])
    return HostFolders(tuple(runs), *(tuple(each(_tree)(folders)) for folders in kept))


def _run_folder(value: Any) -> HostFolder:
    return _tree(there(fields(value), "age_s", "state"))


def _tree(value: Any) -> HostFolder:
    return made(HostFolder, {**fields(value), "size": fields(value).get("bytes")})


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What `start` says: `started` is False if the run was there already."""

    state: str
    started: bool
    pid: Count | None = None


def host_facts(answer: Mapping[str, Any]) -> HostFacts:
    """What `probe` says."""
    python = fields(answer.get("python"))
    told = {**answer, "python": python.get("path"), "python_version": python.get("version")}
    return made(HostFacts, there(told, "gpus", "cpus", "disk_free", "os", "home"))


def run_status(answer: Mapping[str, Any]) -> RunStatus:
    """What `poll` says."""
    return made(RunStatus, there(answer, "log_size", "events_size", "log", "events"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What a job has put beside its project: a file, or a folder with so many; bytes of them."""

    name: Annotated[str, _quoted]
    size: Count
    files: Count

    def words(self) -> str:
        """ "../data, 63 MB in 8 files"."""
        return f"{self.name}, {size(self.size)}" + (f" in {counted(self.files, 'file')}" if self.files > 1 else "")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The results of a run on its host.

    Attributes:
        files: those that are finished, and the links.
        growing: names of those that the job may still be writing.
        beside: what is no result; known once the job has ended.
    """

    files: tuple[FileEntry, ...]
    growing: tuple[str, ...] = ()
    beside: tuple[Beside, ...] = ()


def manifest(answer: Mapping[str, Any]) -> Manifest:
    """What `manifest` says; a program of the last release knows no links."""
    links = [(text(told.get("name")), text(told.get("to"))) for told in each(fields)(answer.get("links") or [])]
    files = (*each(_file)(answer.get("files")), *(FileEntry(name, 0, "").to(to) for name, to in links))
    beside = each(partial(made, Beside))(answer.get("beside") or [])
    return Manifest(files, tuple(each(text)(answer.get("growing") or [])), tuple(beside))


def _file(value: Any) -> FileEntry:
    # A size or sha256 that is none is that file's failure, not the manifest's: `pull` refuses it by its name.
    unread = {"sha256": UNREAD} if "sha256" in fields(value) and fields(value)["sha256"] is None else {}
    told = known({**fields(value), **unread}, {"size": count, "sha256": text})
    size = told.get("size")
    return FileEntry(text(told.get("name")), -1 if size is None else size, told.get("sha256") or "")


def last_object(said: bytes) -> dict[str, Any] | None:
    """The last line as an answer of ours, a JSON object with `ok`; login scripts may have printed before it."""
    try:
        value = json_object(said.rstrip()[said.rstrip().rfind(b"\n") + 1 :])
    except Odd:
        return None
    return value if "ok" in value else None

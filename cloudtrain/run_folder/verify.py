"""Whether a run's files are what its receipt says, and its receipt what this computer's registry says. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from cloudtrain.core import disk
from cloudtrain.core.decode import MOST_BYTES, Count, Odd, integer, json_object, known, made
from cloudtrain.core.errors import UnknownRun, UsageError
from cloudtrain.core.notes import FileEntry, SentCode
from cloudtrain.core.text import shortened
from cloudtrain.core.told import EVENTS, LOG, LOG_FILES
from cloudtrain.run_folder import code_copy, files, links, log_times, receipt, settings_file
from cloudtrain.run_folder.artifacts import OF_ATTEMPTS, refusal
from cloudtrain.store import Run, Store


class Verdict(StrEnum):
    """What became of one check."""

    OK = "ok"
    DIFFERS = "differs"
    MISSING = "missing"
    EXTRA = "extra"  # a file that the receipt does not name: no fault
    UNCHECKED = "unchecked"


@dataclass(frozen=True, slots=True)
class Check:
    """One subject (a file's name below the run's folder, or "registry", "receipt"), its verdict, and why."""

    subject: str
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """All checks of one run.

    Attributes:
        known: this computer's registry has the run.
        results: names of the run's results.
    """

    run: str
    folder: Path
    checks: tuple[Check, ...]
    known: bool
    results: frozenset[str]

    @property
    def wrong(self) -> tuple[Check, ...]:
        """What differs or is missing."""
        return tuple(check for check in self.checks if check.verdict in (Verdict.DIFFERS, Verdict.MISSING))

    def to_dict(self) -> dict[str, Any]:
        """What was looked at and found, JSON-ready."""
        checks = [
            {"subject": check.subject, "verdict": check.verdict.value, "detail": check.detail} for check in self.checks
        ]
        return {"folder": str(self.folder), "checks": checks}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    bytes: Count | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Over:
    n: int
    log: _Sums | None = None
    events: _Sums | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What of a receipt is held against the files here."""

    name: str
    code: SentCode
    log: _Sums
    artifacts: tuple[FileEntry, ...]
    id: str | None = None
    ended_how: str | None = None
    events: _Sums | None = None
    attempts: tuple[_Over, ...] | None = None


# What the registry and the receipt must agree on. The rest of a receipt is told by the job or by this computer's clock.
_LEDGER = ("name", "status", "exit_code", "ended_how", "created", "ended", "exit", "target", "code", "log", "artifacts")
_OURS = frozenset({receipt.NAME, settings_file.NAME, code_copy.NAME, files.SUMS, log_times.NAME, *LOG_FILES})


def load(path: Path) -> dict[str, Any]:
    """The receipt in the file `path`, or in the folder `path`.

    Raises:
        UsageError: there is none (code `no_receipt`), or it cannot be understood (`bad_receipt`).
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[dict[str, Any], _Told]:
    file = path / receipt.NAME if path.is_dir() else path
    try:
        with disk.plain(file) as receipt_file:
            found = json_object(receipt_file.read(MOST_BYTES + 1))
    except OSError as error:
        raise UsageError(
            f"there is no receipt to check: {file}: {(error.strerror or str(error)).lower()}",
            hint="name a run (cloudtrain ls), a folder with a run.json, or the file itself",
            consequence="nothing was checked",
            code="no_receipt",
        ) from error
    except Odd as error:
        raise _bad(file, f"it is {error}") from error
    version = known(found, {"schema_version": integer}).get("schema_version")
    if version is None:
        raise _bad(file, "it has no schema_version")
    if version > receipt.SCHEMA_VERSION:
        raise _bad(file, f"a later cloudtrain wrote it (schema {version})", "upgrade cloudtrain")
    try:
        return found, made(_Told, found)
    except Odd as error:
        raise _bad(file, "its fields are not those of a receipt") from error


def check(path: Path, store: Store | None = None) -> Verification:
    """Check everything in the folder of the receipt at `path` (file or folder) against it.

    Args:
        store: the registry that may know the run; None: it is not asked.

    Raises:
        UsageError: as `load`.
    """
    found, told = _read(path)
    folder = path if path.is_dir() else path.parent
    named = frozenset(entry.here for entry in told.artifacts)
    row = _row(told, store)
    checks = [*_files(folder, told), *_extras(folder, named)]
    sound = all(one.verdict in (Verdict.OK, Verdict.UNCHECKED) for one in checks if one.subject == EVENTS)
    checks += _figures(folder, found, sound=sound)
    checks.append(_against_registry(found, row, store))
    return Verification(shortened(told.name), folder, tuple(checks), row is not None, named)


def _files(folder: Path, told: _Told) -> Iterator[Check]:
    for entry in told.artifacts:
        reason = refusal(entry.here) or refusal(entry.link or "-")
        if reason is not None:
            yield Check(shortened(repr(entry.here)), Verdict.DIFFERS, f"no result can have this name: {reason}")
        elif entry.link:
            yield _link(folder, entry.here, entry.link)
        else:
            yield _file(folder, entry.here, entry.size, entry.sha256)
    for name, facts in ((LOG, told.log), (EVENTS, told.events)):
        if facts is not None and facts.sha256:
            yield _file(folder, name, facts.bytes, facts.sha256)
        else:
            why = "the run had not ended" if told.ended_how is None else "its host left no record of it"
            yield Check(name, Verdict.UNCHECKED, why)
    for over in told.attempts or ():
        for name, facts in ((LOG, over.log), (EVENTS, over.events)):
            if facts is not None:
                yield _file(folder, files.of_attempt(name, over.n), facts.bytes, facts.sha256 or "")
    yield _code(folder, told.code)


def _file(folder: Path, name: str, size: int | None, sha256: str) -> Check:
    path = folder / name
    try:
        if not disk.present(path):
            return Check(name, Verdict.MISSING, "it is not here")
        if not disk.is_plain(path) or not files.is_inside(folder, name):
            return Check(name, Verdict.DIFFERS, "it is not a plain file")
        here = path.stat().st_size
        if size is not None and here != size:
            return Check(name, Verdict.DIFFERS, f"{here} bytes, the receipt says {size}")
        if disk.sha256(path) != sha256:
            return Check(name, Verdict.DIFFERS, "its sha256 does not match")
    except OSError as error:
        return Check(name, Verdict.DIFFERS, f"it cannot be read: {(error.strerror or str(error)).lower()}")
    return Check(name, Verdict.OK, f"{here} bytes")


def _link(folder: Path, name: str, to: str) -> Check:
    with suppress(OSError):
        if files.is_inside(folder, name) and links.leads(folder, name, to):
            return Check(name, Verdict.OK, f"a link to {to}")
    if disk.present(folder / name):
        return Check(name, Verdict.DIFFERS, f"it is neither a link to {to} nor equal to it")
    return Check(name, Verdict.MISSING, "it is not here")


def _code(folder: Path, code: SentCode) -> Check:
    archive = code.archive
    if archive is None:
        why = "no copy of the code was kept" if code.digest else "no code was sent"
        return Check(code_copy.NAME, Verdict.UNCHECKED, why)
    found = _file(folder, code_copy.NAME, archive.size, archive.sha256)
    if found.verdict is not Verdict.OK:
        return found
    try:
        if code_copy.digest_in(folder / code_copy.NAME) != code.digest:
            return Check(code_copy.NAME, Verdict.DIFFERS, "its code is not what was sent")
    except (OSError, ValueError) as error:
        return Check(code_copy.NAME, Verdict.DIFFERS, str(error))
    return found


def _figures(folder: Path, found: Mapping[str, Any], *, sound: bool) -> Iterator[Check]:
    """What a receipt says that came of the training, against the events that tell it; none where it says nothing."""
    said = receipt.figures_of(found)
    if not said:
        return
    if not sound:
        yield Check("figures", Verdict.UNCHECKED, "the events that tell them are not as the receipt says")
        return
    told = receipt.figures_in(folder)
    wrong = [
        f"{name} is {value}, the events say {told.get(name, 'nothing')}"
        for name, value in said.items()
        if told.get(name) != value
    ]
    if wrong:
        yield Check("figures", Verdict.DIFFERS, shortened("; ".join(wrong), 500))
    else:
        yield Check("figures", Verdict.OK, f"the {len(said)} figures of the receipt are those of the events")


def _extras(folder: Path, named: frozenset[str]) -> Iterator[Check]:
    for name, _ in files.below(folder):
        copied = any(parent.as_posix() in named for parent in PurePosixPath(name).parents)  # below a linked folder
        if name not in named and not copied and name not in _OURS and not OF_ATTEMPTS.fullmatch(name):
            yield Check(name, Verdict.EXTRA, "the receipt does not name it")


def _against_registry(told: Mapping[str, Any], row: Run | None, store: Store | None) -> Check:
    if row is None or store is None:
        why = "this computer does not know the run; a receipt is not signed: trust it as far as you trust its source"
        return Check("registry", Verdict.UNCHECKED, why)
    if not row.state.final:
        return Check("registry", Verdict.UNCHECKED, f"the run has not ended ({row.state.value})")
    here = receipt.build(row, store)
    differing = [key for key in _LEDGER if key in told and told[key] != here[key]]
    if differing:
        return Check("registry", Verdict.DIFFERS, f"it has another {', '.join(differing)} than the receipt")
    return Check("registry", Verdict.OK, "it agrees with the receipt")


def _row(told: _Told, store: Store | None) -> Run | None:
    """The run of this very receipt; another of the same name is not it."""
    if store is None or not told.id:
        return None
    try:
        row = store.get(told.name)
    except UnknownRun:
        return None
    return row if store.read_journal(row.name).id == told.id else None


def _bad(file: Path, why: str, hint: str = "take it from a copy") -> UsageError:
    return UsageError(
        f"{file} cannot be understood: {why}", hint=hint, consequence="nothing was checked", code="bad_receipt"
    )

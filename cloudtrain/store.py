"""The registry of runs: one SQLite file, one row a run, every change of state guarded by the state it expects."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

from cloudtrain.core import disk, secrets
from cloudtrain.core.decode import as_far, brief, json_object, made, moment, optional
from cloudtrain.core.errors import Busy, RunError, StoreDamaged, UnknownRun, UsageError
from cloudtrain.core.instance import Instance
from cloudtrain.core.notes import N, Notes, RunNotes
from cloudtrain.core.plan import Plan
from cloudtrain.core.states import FINAL, InstanceLife, RunState, may_move
from cloudtrain.core.text import meant
from cloudtrain.core.told import ExitRecord, Figures

_MADE_WITHIN_S = 10.0
# The latest so many rows, and each other that may live or be billed, or whose plan is torn: the rest is not decoded.
_SHOWN = f"""rowid IN (SELECT rowid FROM runs ORDER BY created_at DESC, rowid DESC LIMIT ?) OR NOT json_valid(plan)
    OR state NOT IN ({", ".join(f"'{state}'" for state in sorted(FINAL))}) OR life NOT IN ('none', 'terminated')"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One row.

    Attributes:
        ending: the host's exit record once known, else None.
        error: what ended or stopped the story, else None.
        created_at, updated_at, ended_at: unix seconds.
    """

    name: str
    state: RunState
    life: InstanceLife
    plan: Plan
    instance: Instance | None
    progress: Figures = field(default_factory=Figures)
    ending: ExitRecord | None = None
    error: RunError | None = None
    created_at: float = 0.0
    updated_at: float = 0.0
    ended_at: float | None = None

    @property
    def folder(self) -> Path:
        """The run's results on this computer."""
        return self.plan.spec.folder

    @property
    def stop(self) -> str | None:
        """Why its job was told to end ("user", "deadline", "spot", ...); None: it was not, or that is not known."""
        return self.ending.stop if self.ending else None


class Facts(TypedDict, total=False):
    """What may be stored of a run beside its state."""

    instance: Instance | None
    life: InstanceLife
    progress: Figures
    ending: ExitRecord | None
    error: RunError | None


def _create_runs(db: sqlite3.Connection) -> None:
    db.execute(
        """CREATE TABLE runs (
            name TEXT PRIMARY KEY, state TEXT NOT NULL, life TEXT NOT NULL, plan TEXT NOT NULL, instance TEXT,
            journal TEXT NOT NULL DEFAULT '{}', progress TEXT NOT NULL DEFAULT '{}', ending TEXT, error TEXT,
            created_at REAL NOT NULL, updated_at REAL NOT NULL, ended_at REAL)""",
    )
    db.execute("CREATE TABLE moves (run TEXT NOT NULL, state TEXT NOT NULL, at REAL NOT NULL)")
    db.execute("CREATE INDEX moves_run ON moves (run)")


# Applied in order, each once, each in its own transaction. Append only.
MIGRATIONS: tuple[tuple[str, Callable[[sqlite3.Connection], object]], ...] = (
    ("0001_runs", _create_runs),
    ("0002_latest", lambda db: db.execute("CREATE INDEX runs_latest ON runs (created_at, name)")),
)


class Store:
    """The registry at `path` (default: the state folder). Opens one connection a use, so that processes can share it.

    Args:
        wait_s: how long a write waits for another process's.

    Raises (every method):
        StoreDamaged: the file is not a registry, cannot be written, or is held by another process for too long.
    """

    def __init__(
        self, path: Path | None = None, *, clock: Callable[[], float] = time.time, wait_s: float = 30.0
    ) -> None:
        self.path = path or disk.state_dir() / "registry.sqlite"
        self._clock = clock
        self._wait_s = wait_s
        with self._db() as db:
            self._migrate(db)

    @contextmanager
    def _db(self) -> Iterator[sqlite3.Connection]:
        db = None
        try:
            disk.private_dir(self.path.parent)
            self._refuse_cut()
            disk.private_file(self.path)
            db = sqlite3.connect(self.path, timeout=self._wait_s, isolation_level=None)
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA journal_mode=WAL")
            # The registry is the ledger of what may cost money: an answered write must survive a power cut.
            db.execute("PRAGMA synchronous=FULL")
            yield db
        except (sqlite3.Error, OSError) as error:
            what = f"the run registry {self.path} cannot be used: {error}"
            raise StoreDamaged(what, hint=self._mend(error), consequence="no run was changed") from error
        finally:
            if db is not None:
                db.close()

    def _refuse_cut(self) -> None:
        """A registry is empty for the moment alone in which it is made; SQLite would fill it as if it were new."""
        with suppress(FileNotFoundError):
            status = self.path.stat()
            if status.st_size == 0 and time.time() - status.st_mtime > _MADE_WITHIN_S:
                raise StoreDamaged(
                    f"the run registry {self.path} is empty: something has truncated it",
                    hint="restore it from a copy, or delete it to start a new one; cloudtrain clean finds what lives in"
                    " the account, results in runs/ are untouched",
                )

    def _mend(self, error: sqlite3.Error | OSError) -> str:
        """What a user should do. To move the file away is right only where it is spoilt: it knows what is billing."""
        # The low byte is the cause, the rest its details (sqlite.org/rescode.html); a refusal by the system has none.
        cause = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CANTOPEN) & 0xFF
        if cause in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return "another cloudtrain command is in the middle of a write: let it go on (fg) or end it, then try again"
        if cause in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR):
            return "move that file away to start a new one; results in runs/ are untouched"
        return (
            f"see that {self.path.parent} is a folder that can be written and that its disk has space, then try again"
        )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._db() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def _migrate(self, db: sqlite3.Connection) -> None:
        known = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'migrations'"
        names = "SELECT name FROM migrations"
        applied = {row["name"] for row in db.execute(names)} if db.execute(known).fetchone() else set()
        if applied >= {name for name, _ in MIGRATIONS}:
            return
        db.execute("BEGIN IMMEDIATE")
        db.execute("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied_at REAL NOT NULL)")
        # Read again under the lock: another process may have come first.
        applied = {row["name"] for row in db.execute(names)}
        for name, migrate in MIGRATIONS:
            if name not in applied:
                migrate(db)
                db.execute("INSERT INTO migrations VALUES (?, ?)", (name, self._clock()))
        db.execute("COMMIT")

    def get(self, name: str) -> Run:
        """The run called exactly `name`.

        Raises:
            UnknownRun: there is none; names the nearest.
        """
        with self._db() as db:
            row = db.execute("SELECT * FROM runs WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise self._unknown(name)
        return self._run(row)

    def find(self, name: str | None) -> Run:
        """The run that a user means: a name, a unique beginning of one, `@last` or None for the latest.

        Raises:
            UnknownRun: none fits, or several do.
        """
        names = self.names()
        if name is None or name == "@last":
            if not names:
                raise UnknownRun("there is no run yet", hint="cloudtrain run --model 3 --local")
            return self.get(names[0])
        fits = [name] if name in names else [known for known in names if known.startswith(name)]
        if len(fits) == 1:
            return self.get(fits[0])
        if fits:
            raise UnknownRun(f"{name!r} fits several runs: {', '.join(sorted(fits)[:5])}", hint="type more of the name")
        raise self._unknown(name)

    def _unknown(self, name: str) -> UnknownRun:
        return UnknownRun(f'no run "{name}"', hint=meant(name, self.names(), "cloudtrain ls"))

    def names(self) -> list[str]:
        """The names of all runs, latest first."""
        with self._db() as db:
            return [row["name"] for row in db.execute("SELECT name FROM runs ORDER BY created_at DESC, rowid DESC")]

    def runs(self, damaged: Callable[[StoreDamaged], None] | None = None, *, latest: int | None = None) -> list[Run]:
        """All runs, latest first.

        Args:
            damaged: hears of each row that cannot be read; None: the first such is raised.
            latest: only so many, and each older one that may live or be billed.
        """
        some, values = (f"WHERE {_SHOWN}", (latest,)) if latest is not None else ("", ())
        with self._db() as db:
            rows = db.execute(f"SELECT * FROM runs {some} ORDER BY created_at DESC, rowid DESC", values).fetchall()
        runs = []
        for row in rows:
            try:
                runs.append(self._run(row))
            except StoreDamaged as error:
                if damaged is None:
                    raise
                damaged(error)
        return runs

    def moves(self, name: str) -> list[tuple[RunState, float]]:
        """The states the run has been in, with the unix time of each entry, oldest first."""
        with self._db() as db:
            rows = db.execute("SELECT state, at FROM moves WHERE run = ? ORDER BY rowid", (name,)).fetchall()
        try:
            return [(RunState(row["state"]), moment(row["at"])) for row in rows]
        except ValueError as error:
            raise self._damaged(name, error) from error

    def _run(self, row: sqlite3.Row) -> Run:
        try:
            plan = Plan.from_dict(json_object(row["plan"]))
            secrets.missing(plan.spec.job.secrets)  # whoever shows something of it hides those that this shell has
            return Run(
                name=row["name"],
                state=RunState(row["state"]),
                life=InstanceLife(row["life"]),
                plan=plan,
                instance=made(Instance, json_object(row["instance"])) if row["instance"] else None,
                # What a host or a job told is left out where it is odd: it must not keep anybody from the run.
                progress=as_far(Figures, row["progress"]),
                ending=as_far(ExitRecord, row["ending"]) if row["ending"] else None,
                error=as_far(RunError, row["error"]) if row["error"] else None,
                created_at=moment(row["created_at"]),
                updated_at=moment(row["updated_at"]),
                ended_at=optional(moment, row["ended_at"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(row["name"], error) from error

    def _damaged(self, name: str, error: Exception) -> StoreDamaged:
        return StoreDamaged(
            f"the registry's row of {name} cannot be read: {str(error)[:200]}",
            hint=f"move {self.path} away to start a new one; results in runs/ are untouched",
        )

    def add(self, plan: Plan) -> Run:
        """A new run in state PLANNED.

        Raises:
            UsageError: the name is taken.
        """
        now, name = self._clock(), plan.spec.name
        with self._writing() as db:
            if db.execute("SELECT 1 FROM runs WHERE name = ?", (name,)).fetchone():
                hint = f"cloudtrain show {name}, or choose another --name"
                raise UsageError(f"there is a run {name} already", hint=hint, code="name_taken")
            db.execute(
                "INSERT INTO runs (name, state, life, plan, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)",
                (name, RunState.PLANNED, InstanceLife.NONE, json.dumps(plan.to_dict()), now, now),
            )
            db.execute("INSERT INTO moves VALUES (?, ?, ?)", (name, RunState.PLANNED, now))
        return self.get(name)

    def move(self, run: Run, new: RunState, **facts: Unpack[Facts]) -> Run:
        """Take `run` from the state it was read in to `new`, storing `facts` (see `note`) in the same transaction.

        Raises:
            Busy: another process has moved it meanwhile.
            ValueError: the move is not legal.
        """
        if not may_move(run.state, new):
            raise ValueError(f"{run.name}: {run.state} -> {new} is not a legal move")
        now = self._clock()
        with self._writing() as db:
            changed = db.execute(
                "UPDATE runs SET state = ?, updated_at = ?, ended_at = ? WHERE name = ? AND state = ?",
                (new, now, now if new.final else None, run.name, run.state),
            )
            if changed.rowcount != 1:
                what, hint = f"another command has taken {run.name} on", f"cloudtrain logs {run.name}"
                raise Busy(what, hint=hint, consequence="this one changed nothing")
            db.execute("INSERT INTO moves VALUES (?, ?, ?)", (run.name, new, now))
            self._set(db, run.name, facts)
        return self.get(run.name)

    def note(self, run: Run, **facts: Unpack[Facts]) -> Run:
        """Store facts without a change of state."""
        self.write((run.name, None, facts))
        return self.get(run.name)

    def heard(self, run: Run, **facts: Unpack[Facts]) -> Run:
        """Store facts as `note` does, unless the row was changed since `run` was read: whoever did that knows more."""
        with self._writing() as db:
            as_read = "SELECT 1 FROM runs WHERE name = ? AND updated_at = ?"
            if db.execute(as_read, (run.name, run.updated_at)).fetchone():
                self._set(db, run.name, {**facts, "updated_at": self._clock()})
        return self.get(run.name)

    @staticmethod
    def _set(db: sqlite3.Connection, name: str, facts: Mapping[str, Any]) -> None:
        for column, value in facts.items():
            if column not in {*Facts.__annotations__, "updated_at"}:
                raise ValueError(f"runs have no {column}")
            if is_dataclass(value):
                told = value.to_dict() if isinstance(value, Instance) else brief(value)
                value = json.dumps(secrets.hidden(told))
            # The column is one of the names above, never input.
            db.execute(f"UPDATE runs SET {column} = ? WHERE name = ?", (value, name))

    def forget(self, name: str) -> None:
        """Drop a run's row: for plans that were never started."""
        with self._writing() as db:
            db.execute("DELETE FROM runs WHERE name = ? AND state = ?", (name, RunState.PLANNED))
            db.execute("DELETE FROM moves WHERE run = ?", (name,))

    def journal(self, name: str) -> RunJournal:
        """The durable notes of a run."""
        return RunJournal(self, name)

    def read_journal(self, name: str) -> RunNotes:
        """The notes that every run has, of `name`'s journal."""
        return self.read_notes(name, RunNotes)

    def read_notes(self, name: str, kind: type[N]) -> N:
        """Those notes of `name`'s journal that `kind` has."""
        with self._db() as db:
            row = db.execute("SELECT journal FROM runs WHERE name = ?", (name,)).fetchone()
        return self._notes(name, row["journal"] if row else "{}", kind)[1]

    def _notes(self, name: str, journal: str, kind: type[N]) -> tuple[dict[str, Any], N]:
        try:
            whole = json_object(journal)
            return whole, kind.of(whole)
        except (ValueError, TypeError) as error:
            raise self._damaged(name, error) from error

    def write_journal(self, name: str, notes: Notes) -> None:
        """Merge what `notes` were given into `name`'s journal; on the disk when this returns."""
        self.write((name, notes, {}))

    def write(self, *changes: tuple[str, Notes | None, Facts]) -> None:
        """The same, and facts (see `note`), of several runs: all is on the disk when this returns, or nothing."""
        with self._writing() as db:
            for name, notes, facts in changes:
                if notes is not None:
                    row = db.execute("SELECT journal FROM runs WHERE name = ?", (name,)).fetchone()
                    if row is None:
                        raise UnknownRun(f'no run "{name}"', hint="cloudtrain ls")
                    merged = self._notes(name, row["journal"], type(notes))[0] | notes.entries()
                    db.execute("UPDATE runs SET journal = ? WHERE name = ?", (json.dumps(merged), name))
                if facts:
                    self._set(db, name, {**facts, "updated_at": self._clock()})


@dataclass(frozen=True, slots=True)
class RunJournal:
    """One run's journal, see `core.notes.Journal`."""

    store: Store
    name: str

    def read(self, kind: type[N]) -> N:
        """All notes of this kind so far."""
        return self.store.read_notes(self.name, kind)

    def write(self, notes: Notes) -> None:
        """Merge in what `notes` were given; on the disk when this returns."""
        self.store.write_journal(self.name, notes)

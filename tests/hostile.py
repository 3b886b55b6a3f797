"""Any JSON in any field of what hosts, jobs and damaged files say, through everything that reads or shows it.

`python -m tests.hostile 5000` tries so many inputs on each parser, of whole runs a twentieth, and prints
the table of docs/hostile.md.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from cloudtrain.config import settings as config
from cloudtrain.console.log_text import LogView
from cloudtrain.console.pages import listing, stopping
from cloudtrain.console.reporters.base import Reporter
from cloudtrain.console.reporters.jsonl import JsonReporter
from cloudtrain.console.reporters.live import LiveReporter
from cloudtrain.console.reporters.plain import PlainReporter
from cloudtrain.core.decode import made
from cloudtrain.core.errors import CloudtrainError
from cloudtrain.core.events import Event
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.lifecycle import checkpoints
from cloudtrain.lifecycle.progress import Progress
from cloudtrain.report import markdown, sources
from cloudtrain.report.notebook import LoadedRun
from cloudtrain.run_folder import outcome, receipt
from cloudtrain.store import Run, Store
from cloudtrain.transfer.follow import Follower
from cloudtrain.transfer.frames import End, EventsFrame, ExitRecord, FrameParser, LogFrame
from cloudtrain.transfer.supervisor import Supervisor
from cloudtrain.transport.base import Completed, Stream, Transport
from tests import plans

ESCAPES = ("\x1b[2J\x1b]0;x\x07", "\x9b2J", "\ud800", "\u202e", "\0", "a\nb", "é", "x" * 3000, "")
ODD_NUMBERS = (float("nan"), float("inf"), 1e308, 5e-324, -1e99, 10**400, -(10**30), 2**63, 0, -1, True)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(ESCAPES + ODD_NUMBERS)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]
odd = anything | st.just(DEEP)

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
    "manifest": {"ok": True, "files": [{"name": "w", "size": 3, "sha256": "a" * 64}]},
}
EVENTS: tuple[dict[str, Any], ...] = (
    {
        "v": 1,
        "t": 1.8e9,
        "kind": "start",
        "model": 3,
        "parameters": 7902,
        "epochs": 2,
        "batch_size": 64,
        "seed": 1,
        "lr": 0.1,
        "recipe": "best",
        "device": "cpu",
        "device_name": "x",
        "torch": "2",
        "steps": 9,
        "goals": ["a"],
        "goal_test_acc": 99.4,
        "settings": {"a": {"b": 1}},
        "subset": None,
        "resumed": None,
    },
    {"kind": "data", "source": "mirror", "done": 3, "total": 9},
    {"kind": "data", "source": "mirror", "sha256": {"a": "b"}},
    {"kind": "step", "epoch": 1, "step": 3, "steps": 9, "loss": 0.5, "train_acc": 50.0, "rate": 9.5},
    {
        "kind": "epoch",
        "epoch": 1,
        "epochs": 2,
        "train_loss": 0.5,
        "train_acc": 90.0,
        "test_loss": 0.5,
        "test_acc": 91.0,
        "lr": 0.1,
        "seconds": 3.5,
        "best": True,
        "scored_on": "test set",
    },
    {"kind": "checkpoint", "epoch": 1, "name": "c.pt", "step": 3},
    {"kind": "warning", "message": "m"},
    {"kind": "error", "code": "c", "message": "m", "hint": "h"},
    {"kind": "mine", "a": 1},
    {
        "kind": "result",
        "parameters": 7902,
        "best_epoch": 1,
        "best_test_acc": 91.0,
        "best_train_acc": 90.0,
        "final_test_acc": 91.0,
        "goals": {"a": True},
    },
)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container within `value` with a key of it."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


@st.composite
def spoilt(draw: st.DrawFn, whole: Any) -> Any:
    """`whole` with anything at some of its places, or anything at all."""
    value = json.loads(json.dumps(draw(whole)))
    places = list(_places(value))
    for _ in range(draw(st.integers(1, 3))):
        container, key = draw(st.sampled_from(places))
        container[key] = draw(odd)
    return draw(odd) if draw(st.integers(0, 19)) == 0 else value


class Canned(Transport):
    """A host with one answer."""

    def __init__(self, stdout: bytes) -> None:
        self._stdout = stdout

    def run(self, argv: Sequence[str], *, stdin: Any = b"", timeout: float = 60.0, awaits: bytes = b"") -> Completed:
        return Completed(0, argv[-1][::-1].encode() + b"\n" + self._stdout, b"")

    def stream(self, argv: Sequence[str]) -> Stream:
        raise NotImplementedError

    def close(self) -> None:
        pass


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
        said.summary()
        said.idle_gpu("1x T4")


class _Link:
    """A host that sends these events, a log, and the end."""

    def __init__(self, lines: bytes) -> None:
        record = {key: value for key, value in EXIT.items() if key != "v"}
        end = End("exited", ExitRecord(**record), 3, len(lines))  # type: ignore[arg-type]
        self._frames = [LogFrame(0, b"a\x1b[2Jb\n"), EventsFrame(0, lines), end]

    def supervisor(self) -> Any:
        return SimpleNamespace(follow=lambda log, events: contextlib.nullcontext(iter(self._frames)))

    def drop(self) -> None:
        raise AssertionError("the link broke")


@contextmanager
def _registry() -> Iterator[tuple[Store, Run]]:
    """A registry with one run that trains."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "registry.sqlite")
        run = store.add(plans.plan(Path(folder) / "runs"))
        for state in (RunState.PROVISIONING, RunState.BOOTING, RunState.SYNCING):
            run = store.move(run, state)
        machine = plans.machine(expires_at=4e9)
        run = store.move(run, RunState.RUNNING, instance=machine, life=InstanceLife.RUNNING)
        run.folder.mkdir(parents=True)
        yield store, run


def _shown(run: Run, store: Store) -> str:
    """Every page about a run, as text that goes to a screen."""
    notes = store.read_journal(run.name)
    lines = [*listing.table(store.runs()), *listing.page(run, store), *stopping.table([run])]
    lines += [stopping.question(run), *stopping.losses(run, [], "", notes)]
    json.dumps(listing.record(run), allow_nan=False)
    with contextlib.suppress(OSError):  # a folder that is not there is no fault of the row's words
        receipt.write(run, store)
    checkpoints.latest(run, notes)
    facts = sources.find(run.name, store)
    lines += [*markdown.section(facts).splitlines(), repr(LoadedRun(facts))]
    return "\n".join(lines)


def _reporters() -> tuple[list[Reporter], io.StringIO]:
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, color_system=None, width=80, soft_wrap=True)
    return [PlainReporter(), LiveReporter(console, ticking=False), JsonReporter(), LogView()], drawn


def events(told: Any) -> None:
    """A job's events, followed by every reporter, and whatever is made of them later."""
    lines = b"".join(json.dumps(value).encode() + b"\n" for value in told)
    with _registry() as (store, run):
        reporters, _ = _reporters()
        progress = Progress(run, store)
        err = io.StringIO()
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
            for reporter in reporters:
                reporter.about(run, lambda: store.get(run.name))

            def emit(event: Event) -> None:
                for reporter in reporters:
                    reporter.emit(event)

            Follower(run.folder, _Link(lines), emit, on_event=progress.take).run()
            progress.store(force=True)
            _end(store, reporters)
            for reporter in reporters:
                reporter.close()
            shown = _shown(store.get(run.name), store)
        _no_escapes(shown)
        _no_escapes(err.getvalue())


def _end(store: Store, reporters: Sequence[Reporter]) -> None:
    """The run ends in each way."""
    (run,) = store.runs()
    run = store.move(run, RunState.PULLING, ending=made(ExitRecord, {**EXIT, "state": "exited", "code": 1}))
    state, error = outcome.ending(run)
    run = store.move(run, state, error=error)
    for reporter in reporters:
        reporter.result(outcome.result(run, store.read_journal(run.name), 1.9e9))


def _no_escapes(text: str) -> None:
    bad = [c for c in text if (ord(c) < 32 and c not in "\n\t") or "\x7f" <= c <= "\x9f" or c == "\u202e"]
    assert not bad, bad


def registry(row: dict[str, Any]) -> None:
    """A row of the registry, as an earlier version or damage may have left it."""
    with _registry() as (store, run):
        other = store.add(plans.plan(run.folder.parent, "calm-raven"))
        with closing(sqlite3.connect(store.path)) as db, db:
            for column, value in row.items():
                text = value if isinstance(value, (int, float)) or value is None else json.dumps(value)
                with contextlib.suppress(sqlite3.Error, OverflowError):  # what cannot stand there
                    db.execute(f"UPDATE runs SET {column} = ? WHERE name = ?", (text, run.name))
        assert other.name in [one.name for one in store.runs(damaged=lambda _: None)]
        store.moves(run.name)
        found = store.get(run.name)
        _no_escapes(_shown(found, store))
        outcome.result(found, store.read_journal(run.name), 1.9e9)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(str(key))} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(inner) for inner in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value) if not isinstance(value, int) or abs(value) < 10**100 else "1" + "0" * 400
    return json.dumps(value if isinstance(value, str) else "").replace("\x7f", "\\u007f")


def setting(told: tuple[str, Any]) -> None:
    """A value of a settings file, and in the environment."""
    name, value = told
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cloudtrain.toml"
        path.write_text(f"{name} = {_toml(value)}\n", encoding="utf-8", errors="surrogatepass")
        config.load({}, folder=Path(folder), environment={}).origins()
    config.load({}, environment={f"CLOUDTRAIN_{name.upper()}": str(value)[:2000]}).origins()


def _row() -> st.SearchStrategy[dict[str, Any]]:
    plan = plans.plan(Path("runs"), target=plans.Target.EC2, ec2=plans.FULL_EC2).to_dict()
    pulled = [{"name": "w", "size": 3, "sha256": "a" * 64}]
    whole: dict[str, Any] = {
        "plan": plan,
        "instance": plans.machine(expires_at=4e9, parked_s=3.0).to_dict(),
        "progress": {"epoch": 1, "epochs": 2, "best_test_acc": 91.0, "best_epoch": 1, "parameters": 5},
        "ending": {**EXIT, "state": "exited"},
        "error": {"code": "c", "message": "m", "hint": "h", "detail": "d", "cause": "c", "exit": 3},
        "journal": {
            "id": "a",
            "host": {"os": "x", "gpus": [GPU], "cpus": 4},
            "pulled": pulled,
            "leftovers": ["x"],
            "attempts": [],
            "aws_requests": [{"call": "x", "id": "y", "error": None, "at": 1.8e9}],
            "checkpoint": {"name": "c", "size": 3, "sha256": "a" * 64, "epoch": 1, "step": 0},
            "code": {"digest": "d", "archive": None, "git": None},
        },
        "created_at": 1.8e9,
        "ended_at": None,
    }

    @st.composite
    def columns(draw: st.DrawFn) -> dict[str, Any]:
        chosen = draw(st.sets(st.sampled_from(sorted(whole)), min_size=1, max_size=3))
        row = {name: draw(spoilt(st.just(whole[name]))) if name[-3:] != "_at" else draw(odd) for name in chosen}
        return row

    return columns()


PARSERS: dict[str, tuple[Callable[[Any], None], st.SearchStrategy[Any]]] = {
    "frames": (frames, spoilt(st.sampled_from(HEADS))),
    "answers of the host": (
        answers,
        st.sampled_from(sorted(ANSWERS)).flatmap(lambda verb: st.tuples(st.just(verb), spoilt(st.just(ANSWERS[verb])))),
    ),
    "events, through the follower, every reporter, pages, receipt, report": (
        events,
        st.lists(spoilt(st.sampled_from(EVENTS)) | st.sampled_from(EVENTS), min_size=1, max_size=8),
    ),
    "rows of the registry, through `ls`, `show`, `stop`'s questions, receipt, report": (registry, _row()),
    "settings": (setting, st.tuples(st.sampled_from([*sorted(config.SETTINGS), "no_such"]), odd)),
}


def attacked(parser: str, inputs: int, *, fresh: bool = True) -> tuple[int, int]:
    """Try a parser: how many inputs, and how many failed otherwise than with a documented error.

    `fresh`: other inputs each time.
    """
    run, strategy = PARSERS[parser]
    tried, failed = 0, 0

    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        derandomize=not fresh,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def one(value: Any) -> None:
        nonlocal tried, failed
        tried += 1
        try:
            run(value)
        except CloudtrainError:
            pass
        except BaseException:
            failed += 1
            raise

    one()
    return tried, failed


def main() -> None:
    """Print the table."""
    print("| parser | inputs | not handled |\n| - | - | - |")
    for parser in PARSERS:
        # A run with all its pages takes a hundred times as long as an answer.
        tried, failed = attacked(parser, int(sys.argv[1]) // (20 if "through" in parser else 1))
        print(f"| {parser} | {tried:,} | {failed} |", flush=True)


if __name__ == "__main__":
    main()

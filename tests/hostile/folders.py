"""A run's folder that somebody handed over: a receipt with anything in it, among files of any kind and content."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from cloudtrain.cli.records import _wrong
from cloudtrain.console.lines import write_result
from cloudtrain.console.pages import comparison as side_by_side
from cloudtrain.console.pages import failure, records
from cloudtrain.core.errors import UsageError
from cloudtrain.core.notes import RunNotes
from cloudtrain.report import comparison, markdown, page, record, sources
from cloudtrain.report.export import write_epochs
from cloudtrain.report.notebook import LoadedRun
from cloudtrain.run_folder import receipt, verify
from cloudtrain.store import Store
from tests.hostile import runs
from tests.hostile.odd import MARKUP, Parser, no_escapes, spoilt

_ENTRY = {"name": "weights/best.safetensors", "size": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
_FACTS = {"bytes": 3, "sha256": _ENTRY["sha256"]}
# What jobs write beside their events.
_METRICS = {
    "scored_on": "validation set",
    "goals": [{"goal": "99.4 %", "value": 99.1}],
    "final": {"epoch": 2, "confusion": [[9, 1], [2, 8]]},
    "test": {"epoch": 2, "test_acc": 99.1, "test_loss": 0.1, "confusion": [[9, 1], [2, 8]]},
}
_PREDICTIONS = "index,label,predicted,confidence\n0,7,7,0.99\n1,2,3,0.61\n"
_NAMES = (
    *("weights/best.safetensors", "weights", "console.log", "console.1.log", "events.jsonl", "events.1.jsonl"),
    *(
        "code.tar.gz",
        "config.toml",
        "SHA256SUMS",
        ".pull/x.part",
        "report.html",
        "exports/a",
        "latest",
        "x\n",
        "\udcff",
    ),
    *("metrics.json", "metrics.jsonl", "predictions.csv", "model_summary.txt", "\x1b[2J", "é", "x" * 255),
)


@cache
def known() -> tuple[Store, dict[str, Any], tempfile.TemporaryDirectory[str]]:
    """A registry that knows a run that has ended, the run's receipt, and the folder that goes with the process."""
    aside = tempfile.TemporaryDirectory()
    with runs.registry_in(Path(aside.name)) as (store, run):
        store.write_journal(run.name, RunNotes(id="a" * 32))
        runs.ended(store, [])
        built = receipt.build(store.get(run.name), store)
    whole = {
        **built,
        "attempts": [{"n": 1, "log": _FACTS, "events": _FACTS, "ended": None}],
        "artifacts": [_ENTRY, {**_ENTRY, "name": "latest", "link": "weights"}, {**_ENTRY, "name": "a", "stored": "b"}],
        "code": {"digest": "d", "archive": {"size": 3, "sha256": _ENTRY["sha256"]}, "git": None},
        "log": _FACTS,
        "settings": {"model": 3, "parameters": 7902, "epochs": 2, "hyperparameters": {"lr": 0.1}},
        "goals": [{"goal": "99.4 %", "met": True}],
        "phases": [{"state": "running", "seconds": 3.0}],
    }
    return store, json.loads(json.dumps(whole)), aside


def _receipts() -> st.SearchStrategy[Any]:
    return st.deferred(lambda: spoilt(st.just(known()[1])))


def _content() -> st.SearchStrategy[Any]:
    """Of a file: bytes, lines of odd events, odd tables; or no file at all: a folder, a link, a FIFO."""
    lines = st.lists(spoilt(st.sampled_from(runs.EVENTS)) | st.sampled_from(runs.EVENTS), max_size=6)
    told = lines.map(lambda values: b"".join(json.dumps(value).encode() + b"\n" for value in values))
    metrics = (spoilt(st.just(_METRICS)) | st.just(_METRICS)).map(lambda value: json.dumps(value).encode())
    table = st.lists(st.lists(st.text(max_size=6) | st.integers().map(str), max_size=5).map(",".join), max_size=4)
    rows = table.map(lambda some: (_PREDICTIONS + "\n".join(some)).encode("utf-8", "surrogatepass"))
    raw = st.binary(max_size=40) | st.sampled_from([b"abc", b"\x1b[2J" + MARKUP.encode(), b"\xff\xfe\0", b"\r" * 99])
    other = st.sampled_from(["folder", "fifo", "link:console.log", "link:..", "link:/etc/hostname", "link:weights"])
    return told | metrics | rows | raw | other


def _folders() -> st.SearchStrategy[Any]:
    files = st.dictionaries(st.sampled_from(_NAMES), _content(), max_size=6)
    return st.tuples(_receipts(), files)


def _put(folder: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        path = folder / name
        with contextlib.suppress(OSError):  # a name that this disk does not take, or one below what is no folder
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif content == "folder":
                path.mkdir()
            elif content == "fifo":
                getattr(os, "mkfifo", Path.touch)(path)
            else:
                path.symlink_to(content.partition(":")[2])


def _no_word(said: str) -> None:
    raise ValueError(f"no JSON: {said}")


def _result(name: str, values: dict[str, Any]) -> None:
    """As a command prints it with `--json`."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        write_result(name, 0, **values)
    json.loads(out.getvalue(), parse_constant=_no_word)
    out.getvalue().encode()


@contextlib.contextmanager
def _folder(told: tuple[Any, dict[str, Any]]) -> Iterator[Path]:
    """A run's folder with a receipt and files as they are told."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "brave-otter"
        folder.mkdir()
        _put(folder, told[1])
        with contextlib.suppress(OSError):
            (folder / receipt.NAME).write_text(json.dumps(told[0]), encoding="utf-8")
        yield folder


def verified(told: tuple[Any, dict[str, Any]]) -> None:
    """`verify` of a folder: every line that it shows, and what it prints for programs."""
    store = known()[0]
    with _folder(told) as folder:
        found = verify.check(folder, store)
        lines = records.lines(found)
        if (wrong := _wrong(found)) is not None:
            lines += failure.lines(wrong)
        no_escapes("\n".join(lines))
        assert len("\n".join(lines)) < 50_000
        _result(found.run, found.to_dict())


def reported(told: tuple[Any, dict[str, Any]]) -> None:
    """`report`, `compare`, `export` and a notebook of a folder."""
    with _folder(told) as folder:
        facts = sources.of_path(folder)
        table = comparison.compare([facts, facts])
        loaded = LoadedRun(facts)
        for html in (page.report(facts), page.comparison(table), loaded._repr_html_()):
            assert MARKUP not in html
            html.encode("utf-8", "replace")
        lines = [*markdown.section(facts).splitlines(), repr(loaded), *side_by_side.lines(table)]
        no_escapes("\n".join(lines))
        _result(facts.name, {"report": record.build(facts), **comparison.record(table)})
        with contextlib.suppress(UsageError):  # no epoch was told
            write_epochs(facts, "csv", folder.parent / "exports")


PARSERS = {
    "receipts and folders of odd files, through `verify`": Parser(verified, _folders(), costs=6),
    "the same, with odd events and metrics, through `report`, `compare`, `export`, notebook": Parser(
        reported, _folders(), costs=12
    ),
}

"""`cloudtrain report`, `compare` and `export`: what is made of a run's results. They ask nobody, no network."""

from __future__ import annotations

import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer

from cloudtrain.cli.options import Json, RunName, RunOrFolder, complete_run
from cloudtrain.console.answer import Answer
from cloudtrain.console.lines import tell
from cloudtrain.console.pages.comparison import lines
from cloudtrain.console.text import shown_path
from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError
from cloudtrain.core.text import screen_safe
from cloudtrain.core.told import LOG_FILES
from cloudtrain.report import comparison, markdown, page, record, sources, write_facts
from cloudtrain.report.export import write_epochs
from cloudtrain.report.facts import Facts
from cloudtrain.store import Store


class Format(StrEnum):
    """What `report` writes."""

    HTML = "html"
    MD = "md"
    JSON = "json"


class Export(StrEnum):
    """What `export` writes."""

    TENSORBOARD = "tensorboard"
    CSV = "csv"


def report(
    run: RunOrFolder = None,
    format: Annotated[
        Format, typer.Option("--format", help="A page to open, a section to hand in, or figures for programs.")
    ] = Format.HTML,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File to write; if left out, html goes to the run's folder, md and json to stdout.",
            show_default=False,
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Like --format json, in the result of a command.")] = False,
) -> Answer:
    """Make the report of a run: goals, learning curves, confusion matrix, mistakes, time, cost, settings."""
    format = Format.JSON if json else format
    if open_ and format is not Format.HTML:
        raise UsageError(f"--open is for the page, not for {format.value}", hint="leave one of them out")
    facts = sources.find(run, Store())
    if out is not None:
        _check_free(out, facts)
    if format is Format.HTML:
        with _writing(out or facts.folder):
            path = write_facts(facts, out)
        unopened = open_ and not webbrowser.open(path.absolute().as_uri())
        asides = ["no browser was found here; open the file yourself"] if unopened else []
        return Answer(dict, lambda _: [_shown(path)], asides=asides)
    built: Mapping[str, Any] = {}
    if format is Format.MD:
        text = markdown.section(facts)
        wrote = f"wrote the section to hand in: goals, results, layer table, cleaned log ({len(facts.log)} lines)"
    else:
        built, wrote = record.build(facts), "wrote the report as JSON"
        text = dumps(built, indent=2) + "\n"
    if out is None:
        values = {"format": format.value, "path": None, "report": built}
        return Answer(lambda: values, lambda _: [text.removesuffix("\n")], run=facts.name, asides=[wrote])
    _write(out, text)
    values = {"format": format.value, "path": str(out), "report": None}
    return Answer(lambda: values, run=facts.name, asides=[f"{wrote}: {_shown(out)}"])


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN RUN...", help="Names, folders or run.json files.", autocompletion=complete_run),
    ],
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page with the curves overlaid.", show_default=False),
    ] = None,
    json: Json = False,
) -> Answer:
    """Put runs side by side: results, and the settings that differ."""
    if len(runs) < 2:
        raise UsageError("one run cannot be compared", hint="cloudtrain compare RUN RUN")
    store = Store()
    found = comparison.compare([sources.find(run, store) for run in runs])
    if html is not None:
        _write(html, page.comparison(found))
        tell(f"wrote {_shown(html)}")
    return Answer(lambda: comparison.record(found), lambda _: lines(found))


def export(
    to: Annotated[Export, typer.Option("--to", help="Format.")],
    run: RunName = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder to write into; exports/NAME/ beside runs/ if left out.", show_default=False
        ),
    ] = None,
    json: Json = False,
) -> Answer:
    """Write a run's epochs in another tool's format."""
    store = Store()
    row = store.find(run)
    with _writing(out or row.folder):
        done = write_epochs(sources.of_run(row, store), to.value, out)
    values = {"to": to.value, "path": str(done.path), "detail": done.detail}
    told = f"{row.name}: {screen_safe(done.detail)}"
    return Answer(lambda: values, lambda _: [_shown(done.path)], run=row.name, asides=[told])


def _shown(path: Path) -> str:
    return screen_safe(shown_path(path))


def _write(path: Path, text: str) -> None:
    with _writing(path):
        disk.write_durably(path, text.encode("utf-8", "replace"), mode=0o644)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Failures of this computer's disk, told as what they are."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{_shown(path)} cannot be written: {(error.strerror or str(error)).lower()}",
            hint="--out FILE writes it somewhere else",
            consequence="the results are untouched",
            code="cannot_write",
        ) from error


def _check_free(out: Path, facts: Facts) -> None:
    """No report takes the place of a result."""
    taken = {(facts.folder / name).resolve() for name in (*facts.artifacts, "run.json", *LOG_FILES)}
    if out.resolve() in taken:
        raise UsageError(
            f"{_shown(out)} is a result of {facts.name}",
            hint="--out with another file",
            consequence="nothing was written",
            code="cannot_write",
        )

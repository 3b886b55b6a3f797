"""`cloudtrain report`, `compare` and `export`: what is made of a run's results. They ask nobody, no network."""

from __future__ import annotations

import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from cloudtrain.cli.options import Json, RunName, RunOrFolder, complete_run
from cloudtrain.console.lines import print_lines, tell, write_result
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
            help="File to write; if left out, html goes to the run's folder, md and json to stdout.", show_default=False
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Like --format json, in the result of a command.")] = False,
) -> None:
    """Make the report of a run: goals, learning curves, confusion matrix, mistakes, time, cost, settings."""
    format = Format.JSON if json else format
    if open_ and format is not Format.HTML:
        raise UsageError(f"--open is for the page, not for {format.value}", hint="leave one of them out")
    facts = sources.find(run, Store())
    if format is Format.HTML:
        _page(facts, out, open_)
    elif format is Format.MD:
        told = f"the section to hand in: goals, results, layer table, cleaned log ({len(facts.log)} lines)"
        _text(facts, markdown.section(facts), told, out)
    else:
        _record(facts, out, json)


def _page(facts: Facts, out: Path | None, open_: bool) -> None:
    _check_free(out, facts)
    with _writing(out or facts.folder):
        path = write_facts(facts, out)
    print_lines(f"{_shown(path)}")
    if open_:
        _open(path)


def _record(facts: Facts, out: Path | None, json: bool) -> None:
    """The figures of a run: as a file or on stdout, or with `json` in the command's result or beside it."""
    built = record.build(facts)
    text = dumps(built, indent=2) + "\n"
    if not json:
        _text(facts, text, "the report as JSON", out)
    elif out is None:
        write_result(facts.name, format="json", path=None, report=built)
    else:
        _write(facts, text, out)
        write_result(facts.name, format="json", path=str(out), report=None)


def _text(facts: Facts, text: str, told: str, out: Path | None) -> None:
    if out is None:
        print_lines(text.removesuffix("\n"))
        tell(f"wrote {told}")
        return
    _write(facts, text, out)
    tell(f"wrote {told}: {_shown(out)}")


def _write(facts: Facts, text: str, out: Path) -> None:
    _check_free(out, facts)
    with _writing(out):
        disk.write_durably(out, text.encode("utf-8", "replace"), mode=0o644)


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN RUN...", help="Names, folders or run.json files.", autocompletion=complete_run),
    ],
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write a page with the curves overlaid.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Put runs side by side: results, and the settings that differ."""
    if len(runs) < 2:
        raise UsageError("one run cannot be compared", hint="cloudtrain compare RUN RUN")
    store = Store()
    found = comparison.compare([sources.find(run, store) for run in runs])
    if html is not None:
        with _writing(html):
            disk.write_durably(html, page.comparison(found).encode("utf-8", "replace"), mode=0o644)
        tell(f"wrote {_shown(html)}")
    if json:
        write_result(**comparison.record(found))
        return

    print_lines(*lines(found))


def export(
    to: Annotated[Export, typer.Option("--to", help="Format: TensorBoard or CSV.")],
    run: RunName = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write into; exports/NAME/ beside runs/ if left out.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Write a run's epochs in another tool's format."""
    store = Store()
    row = store.find(run)
    with _writing(out or row.folder):
        done = write_epochs(sources.of_run(row, store), to.value, out)
    if json:
        write_result(row.name, to=to.value, path=str(done.path), detail=done.detail)
        return
    print_lines(f"{_shown(done.path)}")
    tell(f"{row.name}: {screen_safe(done.detail)}")


def _shown(path: Path) -> str:
    return screen_safe(shown_path(path))


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


def _check_free(out: Path | None, facts: Facts) -> None:
    """No report takes the place of a result."""
    if out is None:
        return
    taken = {(facts.folder / name).resolve() for name in (*facts.artifacts, "run.json", *LOG_FILES)}
    if out.resolve() in taken:
        raise UsageError(
            f"{_shown(out)} is a result of {facts.name}",
            hint="--out with another file",
            consequence="nothing was written",
            code="cannot_write",
        )


def _open(path: Path) -> None:
    if not webbrowser.open(path.absolute().as_uri()):
        tell("no browser was found here; open the file yourself")

"""`cloudtrain config show`, `init` and `trust`: settings, where each comes from, and who may decide it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from cloudtrain.cli.commands import AnsweringCommand, plain_typer, typed
from cloudtrain.cli.options import Json, Yes
from cloudtrain.cli.values import ReadingGroup
from cloudtrain.config import files, project_file, settings
from cloudtrain.config import trust as trust_
from cloudtrain.config.table import SETTINGS
from cloudtrain.console.answer import Answer
from cloudtrain.console.choose import Look, reporter
from cloudtrain.console.text import shown_path
from cloudtrain.core.errors import UsageError
from cloudtrain.core.text import columns, screen_safe
from cloudtrain.source import shipped

app = plain_typer(cls=ReadingGroup, no_args_is_help=True, help="Settings, and where each comes from.")


def guide() -> Answer:
    """Print what a coding agent needs to know: ten commands, JSON, exit codes, what costs money and needs a person's
    yes."""
    return Answer(dict, lambda _: shipped.agent_guide().splitlines())


@app.command("show", cls=AnsweringCommand, epilog=typed("config show --origin", "config show --all"))
def show(
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Also settings without a value.")] = False,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings file that overrides the project's.")
    ] = None,
    json: Json = False,
) -> Answer:
    """Print the settings that a run started here would use."""
    found = settings.load({}, config=config).origins()
    told = {
        name: {"value": _plain(each.value), "origin": each.origin} | ({"trusted": False} if each.fault else {})
        for name, each in found.items()
    }
    refused = {name: f"{each.origin}, which {each.fault}" for name, each in found.items() if each.fault}
    rows = [(name, shown(each.value), refused.get(name, each.origin if origin else "")) for name, each in found.items()]
    if all_:
        rows += [(name, "-", "not set" if origin else "") for name in SETTINGS if name not in found]
        rows.sort()
    header = ("SETTING", "VALUE", "FROM" if origin or refused else "")
    return Answer(lambda: {"settings": told}, lambda _: map(screen_safe, columns(header, rows)))


def shown(value: object) -> str:
    """A setting's value, human-readable."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={text}" for key, text in value.items())
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the project; this one if left out.")] = Path(),
    json: Json = False,
) -> Answer:
    """Write a cloudtrain.toml with each setting explained, and keep runs/ out of git."""
    written = project_file.write(folder)
    values = {"files": [{"path": str(path), "done": what} for path, what in written]}
    asides = [f"ok    {shown_path(path)}: {what}" for path, what in written]
    asides.append("hint:  every line of cloudtrain.toml is a comment until you remove its #")
    return Answer(lambda: values, asides=asides)


def trust(
    path: Annotated[Path, typer.Argument(help="Settings file or its folder; the one in force if left out.")] = Path(),
    yes: Yes = False,
    json: Json = False,
) -> Answer:
    """Let a project's settings file decide on machine, money and keys: shows what it sets, and asks.

    This holds until one of these settings changes in the file. Flags and your own file need no trust.
    """
    file = files.of_project(path.absolute()) if path.is_dir() else files.read(path)
    if file is None:
        raise UsageError(f"there is no settings file in {path.absolute()}", hint="cloudtrain init", code="bad_setting")
    values = settings.of_file(file)
    found = {name: value for name, value in values.items() if name in trust_.SETTINGS}
    if found and file.fault:
        raise trust_.refusal(str(file.path), file.fault, found, asked=min(found))
    name = screen_safe(shown_path(file.path))
    if found:
        asks = reporter(Look(json=json, plain=True))
        rows = [(one, shown(value), SETTINGS[one].help) for one, value in found.items()]
        asks.show(*map(screen_safe, columns(("SETTING", "VALUE", "WHAT IT IS"), rows)))
        if not yes and not asks.ask(f"Let {name} decide this?", default=False):
            return Answer(dict, asides=["note  nothing was changed"])
        trust_.agree(file.path, trust_.digest(values, file.path.parent))
    values = {"path": str(file.path), "settings": {one: _plain(value) for one, value in found.items()}}
    told = "trusted until one of these is changed" if found else "sets nothing that needs trust"
    return Answer(lambda: values, asides=[f"ok    {name}: {told}"])

"""`cloudtrain config show` and `init`: settings, and where each comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cloudtrain.cli.options import Json
from cloudtrain.console.lines import print_lines, tell, write_result
from cloudtrain.core.text import columns, screen_safe

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Settings, and where each comes from.")


@app.command("show")
def show(
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Settings without a value, too.")] = False,
    config: Annotated[Path | None, typer.Option(help="File of settings that beats the project's.")] = None,
    json: Json = False,
) -> None:
    """Print the settings that a run started here would use."""
    from cloudtrain.config import settings

    found = settings.load({}, config=config).origins()
    if json:
        told = {name: {"value": _plain(each.value), "origin": each.origin} for name, each in found.items()}
        write_result(settings=told)
        return
    rows = [(name, shown(each.value), each.origin if origin else "") for name, each in found.items()]
    if all_:
        rows += [(name, "-", "not set" if origin else "") for name in settings.SETTINGS if name not in found]
        rows.sort()
    header = ("SETTING", "VALUE", "FROM" if origin else "")
    print_lines(*map(screen_safe, columns(header, rows)))


def shown(value: object) -> str:
    """A setting's value for people."""
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
) -> None:
    """Write a cloudtrain.toml with each setting explained, and keep runs/ out of git."""
    from cloudtrain.config import project_file
    from cloudtrain.console.text import shown_path

    written = project_file.write(folder)
    if json:
        write_result(files=[{"path": str(path), "done": what} for path, what in written])
        return
    for path, what in written:
        tell(f"ok    {shown_path(path)}: {what}")
    tell("hint:  every line of cloudtrain.toml is a comment until you remove its #")

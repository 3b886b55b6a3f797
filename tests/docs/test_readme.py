"""The README's lists are the real ones. Its commands: tests/docs/test_docs.py."""

from __future__ import annotations

from pathlib import Path

import typer

from cloudtrain.cli.app import app
from cloudtrain.core.errors import ExitCode

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def rows(title: str) -> dict[str, str]:
    """The table below a heading: first cell -> second cell."""
    section = README.split(f"# {title}\n", 1)[1].split("\n#", 1)[0]
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line]
    return {row[0]: row[1] for row in cells[2:]}


def test_the_table_of_commands_is_complete_and_each_has_help() -> None:
    group = typer.main.get_command(app)
    known = {name: command for name, command in group.commands.items() if not command.hidden}  # type: ignore[attr-defined]
    assert {row.split()[0] for row in rows("Commands")} == set(known)
    assert all(command.help for command in known.values())


def test_the_table_of_exit_codes_is_complete() -> None:
    assert {int(code) for code in rows("Exit codes")} == {int(code) for code in ExitCode}


def test_the_tree_shows_what_is_there() -> None:
    tree = README.split("## What is where", 1)[1].split("```")[1]
    room = ""
    for line in tree.splitlines()[1:]:
        names = [part for part in line.split("  ")[0 if not line.startswith("  ") else 1].split() if part]
        if not line.startswith(" "):
            room = names[0]
            assert (ROOT / room).is_dir(), room
        else:
            assert all((ROOT / room / name).exists() for name in names), line

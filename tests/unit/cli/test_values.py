"""What is typed for options is read by us: its type, our words, and no library that takes a while to load."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cloudtrain.cli.app import app
from cloudtrain.cli.commands import COMMANDS
from cloudtrain.cli.values import _Typed


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["run", "--epochs", "abc"], "'abc' is not a whole number"),
        (["run", "--epochs", "3.5"], "'3.5' is not a whole number"),
        (["run", "--epochs", "9" * 5000], "is not a whole number"),
        (["run", "--lr", "x"], "'x' is not a number"),
        (["ls", "-n", "0"], "0 is below 1"),
        (["run", "--on-interrupt", "dettach"], "there is no 'dettach'; did you mean detach?"),
        (["run", "--on-interrupt", "qq"], "there is no 'qq'; choose from detach, stop"),
    ],
)
def test_what_is_wrong_with_a_value_is_said_in_our_words(argv: list[str], says: str) -> None:
    done = CliRunner().invoke(app, argv)
    assert done.exit_code == 2
    assert says in " ".join(done.output.replace("│", " ").split())


def test_the_parameters_of_every_command_are_read_here() -> None:
    def unread(command: Any) -> list[str]:
        params = command.get_params(typer.Context(command))
        left = [f"{command.name} {param.name}" for param in params if type(param.get_runtime_param()) is not _Typed]
        return left + [name for inner in getattr(command, "commands", {}).values() for name in unread(inner)]

    assert not [name for one in COMMANDS for name in unread(COMMANDS[one].load(one))]

"""What is typed for options is read by us: its type, our words, and no library that takes a while to load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from cloudtrain.cli.commands import COMMANDS
from cloudtrain.cli.values import _Typed
from cloudtrain.store import Store
from tests import plans
from tests.typed import Typed

SIX = [  # commands, options, values, runs, Regions, types
    ("rnu", "there is no command 'rnu'", "did you mean cloudtrain run?"),
    ("config shwo", "there is no command 'shwo'", "did you mean cloudtrain config show?"),
    ("help rnu", "there is no command 'rnu'", "did you mean cloudtrain run?"),
    ("run --epoch 3", "there is no option --epoch", "did you mean --epochs?"),
    ("ls --zzz", "there is no option --zzz", "cloudtrain ls --help"),
    ("run --on-interrupt dettach", "--on-interrupt: there is no 'dettach'", "did you mean detach?"),
    ("run --local --device cdua", "there is no device 'cdua'", "did you mean cuda?"),
    ("run --local --recipe bset", "there is no recipe 'bset'", "did you mean best?"),
    ("run --local --if-i-vanish prak", "cannot 'prak' a machine", "did you mean park?"),
    ("ls --status faild", "--status: there is no 'faild'", "did you mean failed?"),
    ("pull brave-otter --only wights", "there is no group of results called 'wights'", "did you mean weights?"),
    ("instances --offline --gpu A1OG", "no instance type here has a GPU called 'A1OG'", "did you mean A10G?"),
    ("show brave-oter", 'no run "brave-oter"', "did you mean brave-otter?"),
    ("clean --region us-east1", "'us-east1' cannot be an AWS Region", "did you mean us-east-1?"),
    (
        "run -i g4dn-xlarge --region us-east-1 --plan",
        "'g4dn-xlarge' cannot be an instance type",
        "did you mean g4dn.xlarge?",
    ),
]
OUR_WORDS = [
    ("run --epochs abc", "--epochs: 'abc' is not a whole number", "cloudtrain run --help"),
    ("run --epochs 3.5", "--epochs: '3.5' is not a whole number", "cloudtrain run --help"),
    ("run --epochs " + "9" * 5000, "is not a whole number", "cloudtrain run --help"),
    ("run --lr x", "--lr: 'x' is not a number", "cloudtrain run --help"),
    ("run --epochs", "--epochs needs a value", "cloudtrain run --help"),
    ("ls --json=1", "--json takes no value", "cloudtrain ls --help"),
    ("ls -n 0", "-n: 0 is below 1", "cloudtrain ls --help"),
    ("extend brave-otter", "TIME is missing", "cloudtrain extend --help"),
    ("export brave-otter", "--to is missing", "cloudtrain export --help"),
    ("run --on-interrupt qq", "--on-interrupt: there is no 'qq'", "one of detach, stop"),
    ("config show --al", "there is no option --al", "did you mean --all?"),
]


@pytest.mark.parametrize(("words", "says", "hint"), SIX + OUR_WORDS, ids=lambda v: v[:40])
def test_what_is_wrong_is_said_in_our_words_with_what_was_probably_meant(
    words: str, says: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Typed]
) -> None:
    monkeypatch.chdir(tmp_path)
    Store().add(plans.plan(tmp_path, "brave-otter"))
    done = cli(*words.split(), code=2)
    assert says in done.err and f"hint:  {hint}" in done.err, done.err


def test_the_parameters_of_every_command_are_read_here() -> None:
    def unread(command: Any) -> list[str]:
        params = command.get_params(typer.Context(command))
        left = [f"{command.name} {param.name}" for param in params if type(param.get_runtime_param()) is not _Typed]
        return left + [name for inner in getattr(command, "commands", {}).values() for name in unread(inner)]

    assert not [name for one in COMMANDS for name in unread(COMMANDS[one].load(one))]

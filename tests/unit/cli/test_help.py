"""What `--help` prints: nothing cut, nothing in a library's words, and the same by each of its names."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from cloudtrain.cli import app as command_line
from cloudtrain.cli.commands import COMMANDS
from cloudtrain.core.version import __version__
from tests.typed import Typed

PAGES = ["", *COMMANDS, "config show"]
A_LIBRARYS = re.compile(r"<\w|\blist\[|\brange\b|\bINTEGER\b|\[\[RUN|\{|[a-z ][.]{3}$|x>=", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_each_page_by_each_of_its_names(page: str, cli: Callable[..., Typed]) -> None:
    shown = cli(*page.split(), "--help").out
    assert shown == cli(*page.split(), "-h").out == cli("help", *page.split()).out
    lines = shown.splitlines()
    assert lines[0].split() >= ["Usage:"] and max(map(len, lines)) <= 80 and "-h, --help" in shown
    assert not A_LIBRARYS.search(shown.replace("[[--]", "")), A_LIBRARYS.search(shown)
    if page not in ("config", "ps"):
        begins = f"cloudtrain {page}".strip()
        examples = shown.split("\nExamples:\n")[1].splitlines()
        assert examples and all(example.strip().startswith(begins) for example in examples), examples


def test_the_list_of_commands_has_all_of_their_words(cli: Callable[..., Typed]) -> None:
    shown = cli("--help").out
    headings = re.findall(r"^(\S.*):$", shown, flags=re.MULTILINE)
    assert headings[1:] == ["Train", "Watch", "Results", "Machine", "Money", "Settings and help", "Examples"]
    for name, command in COMMANDS.items():
        assert (re.search(rf"^  {name} +{re.escape(command.help)}$", shown, flags=re.MULTILINE) is None) == (
            name == "ps"
        )


def test_the_options_of_a_run_stand_under_what_they_are_about(cli: Callable[..., Typed]) -> None:
    shown = cli("run", "-h").out
    headings = re.findall(r"^(\S.*):$", shown, flags=re.MULTILINE)
    own = "Your own program, instead of the one that comes along"
    assert headings == ["What is trained", own, "The machine", "Money", "Watching", "Options", "Examples"]
    money = shown.split("\nMoney:\n")[1].split("\n\n")[0]
    assert "--max-cost USD" in money and "[default: 10m]" in money and "--if-i-vanish park|terminate" in money
    assert "python train.py" in shown.split("\nExamples:\n")[1]


def test_the_version_by_each_of_its_names(cli: Callable[..., Typed]) -> None:
    assert cli("version").out == cli("--version").out == f"cloudtrain {__version__}\n"


def test_a_group_alone_is_its_help(cli: Callable[..., Typed]) -> None:
    assert cli("config", code=2).err == cli("config", "-h").out
    assert cli(code=2).err == cli("-h").out


def test_h_behind_a_command_is_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["cloudtrain", "ssh", "brave-otter", "--", "df", "-h"])
    context = COMMANDS["ssh"].load("ssh").make_context("ssh", ["brave-otter", "--", "df", "-h"])
    assert context.args == ["df", "-h"] and command_line._own(["ssh", "x", "--", "df", "-h"]) == ["ssh", "x"]

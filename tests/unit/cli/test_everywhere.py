"""What holds for every command: colour, questions and the bell, by flag, environment, and what each stream is."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import typer

from cloudtrain.cli import app as command_line
from cloudtrain.cli import following, request
from cloudtrain.cli.options import look
from cloudtrain.config import settings
from cloudtrain.console.choose import Look, reporter
from cloudtrain.console.reporters import base
from cloudtrain.console.reporters.base import Reporter
from cloudtrain.console.reporters.plain import PlainReporter
from cloudtrain.core import decode
from cloudtrain.core.errors import ConfirmationNeeded, ConnectionFailed, ExitCode
from cloudtrain.core.events import Noted, Warned
from cloudtrain.core.spec import RunSpec
from cloudtrain.core.states import RunState
from cloudtrain.run_folder.outcome import Result
from cloudtrain.store import Store
from tests import plans


class Terminal(io.StringIO):
    """A stream with a person at the other end."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def usual(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No wish of whoever runs the tests."""
    for name in ("NO_COLOR", "FORCE_COLOR", "CLOUDTRAIN_NO_INPUT", "CLOUDTRAIN_PLAIN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Terminal]:
    """Puts a terminal on stdin and stderr; the person says `answer`. Gives stderr."""

    def sit(answer: str = "") -> Terminal:
        error = Terminal()
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        monkeypatch.setattr(sys, "stderr", error)
        return error

    return sit


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cloudtrain", *words])
    return command_line.run()


def test_flags_of_a_launch_reach_the_run_and_the_one_that_goes_on_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[RunSpec] = []
    monkeypatch.setattr(following, "begin", lambda spec, *_, **__: seen.append(spec) or 0)
    flags = ["--tag", "team=vision", "--tag", "cost center=4=2", "--private-ip", "--login", "trainer"]
    assert command(monkeypatch, "run", "--dry-run", "--instance", "g4dn.xlarge", *flags) == 0
    [spec] = seen
    assert spec.ec2 is not None and (spec.ec2.private_ip, spec.ec2.user) == (True, "trainer")
    assert spec.ec2.tags == {"team": "vision", "cost center": "4=2"}
    assert decode.made(RunSpec, json.loads(json.dumps(asdict(spec)))) == spec
    again = settings.load(request.of_run(spec, elsewhere=False))
    assert (again.get("tags"), again.get("private_ip"), again.get("login")) == (spec.ec2.tags, True, "trainer")
    assert command(monkeypatch, "run", "--dry-run", "--tag", "aws:x=1") == ExitCode.USAGE


@pytest.mark.parametrize(
    "words", [["--no-color", "--no-input", "show", "x"], ["show", "x", "--no-input", "--no-color"]]
)
def test_options_of_every_command_stand_before_or_after_it(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str | None, bool]] = []

    def told(look: Look, error: object) -> None:
        seen.append((os.environ.get("NO_COLOR"), base.no_input()))

    monkeypatch.setattr(command_line, "_told", told)
    assert command(monkeypatch, *words) == 2
    assert seen == [("1", True)]
    assert "NO_COLOR" not in os.environ and not base.no_input(), "they hold for one command"


def test_what_follows_two_dashes_is_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["cloudtrain", "run", "--no-input", "--", "--no-color"])
    with command_line._everywhere() as words:
        assert words == ["run", "--", "--no-color"]
        assert base.no_input() and "NO_COLOR" not in os.environ


def test_no_question_is_asked_where_none_is_wanted(
    monkeypatch: pytest.MonkeyPatch, person: Callable[..., Terminal]
) -> None:
    store, error = Store(), person("y\n")
    run = store.add(plans.plan(Path("runs").absolute()))
    for state in (RunState.PROVISIONING, RunState.BOOTING, RunState.SYNCING, RunState.RUNNING):
        run = store.move(run, state)
    assert command(monkeypatch, "stop", run.name, "--no-input", "--plain") == 2
    assert sys.stdin.read() == "y\n", "nobody was asked"
    assert "cannot ask for confirmation with --no-input" in error.getvalue()
    assert "--yes" in error.getvalue()
    assert store.get(run.name).state is RunState.RUNNING


def test_a_question_with_a_name_that_a_host_gave_is_nothing_that_a_terminal_obeys(
    person: Callable[..., Terminal],
) -> None:
    error = person("y\nwords\n")
    asked = PlainReporter()
    assert asked.ask("Remove \x1b[2Jrun?\nIt is\x07 gone then:", default=False)
    assert asked.line("Code of \x9b2Jdevice:") == "words\n"
    assert (
        "\x1b[" not in error.getvalue()
        and "Remove run?\nIt is gone then: [y/N] Code of device: " in error.getvalue().replace("\x07", "")
    )
    assert error.getvalue().count("\x07") <= 2, "its own bells alone"


@pytest.mark.parametrize("silent", ["stdin", "stderr"])
def test_a_question_needs_a_terminal_on_both_sides(
    silent: str, monkeypatch: pytest.MonkeyPatch, person: Callable[..., Terminal]
) -> None:
    person("y\n")
    monkeypatch.setattr(sys, silent, io.StringIO("y\n"))
    with pytest.raises(ConfirmationNeeded, match="without a terminal"):
        PlainReporter().ask("Start?", default=True)


def test_a_question_needs_none_on_stdout(person: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch) -> None:
    error, out = person("n\n"), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    assert PlainReporter().ask("Start?", default=True) is False
    assert error.getvalue() == "Start? [Y/n] "
    assert out.getvalue() == ""


def test_stderr_alone_decides_whether_lines_are_redrawn(
    person: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloudtrain.console.reporters.live import LiveReporter

    monkeypatch.setenv("TERM", "xterm-256color")
    person()
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert isinstance(reporter(Look()), LiveReporter)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert isinstance(reporter(Look()), PlainReporter)


def failing(wanted: Look) -> None:
    """A command that follows a run and fails."""
    with pytest.raises(typer.Exit), following.console(wanted, "brave-otter"):
        raise ConnectionFailed("the host cannot be reached")


def test_the_bell_rings_once_when_a_run_ends(person: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    error = person()
    failing(Look(bell=True))
    assert error.getvalue().count("\a") == 1
    error = person()
    failing(Look())
    assert "\a" not in error.getvalue()


def test_the_bell_rings_when_a_run_ends_well(person: Callable[..., Terminal]) -> None:
    error, shown = person(), PlainReporter()
    shown.bell = True
    end = Result(run="brave-otter", state=RunState.SUCCEEDED, exit_code=ExitCode.DONE, folder=Path("runs/brave-otter"))
    following.ended(end, Store(), shown)
    assert error.getvalue().endswith("\n\a") and error.getvalue().count("\a") == 1


def test_the_bell_rings_when_a_question_waits(person: Callable[..., Terminal]) -> None:
    error, asking = person("\n"), PlainReporter()
    asking.bell = True
    asking.ask("Start?", default=True)
    assert error.getvalue() == "\aStart? [Y/n] "


def test_no_bell_for_a_pipe_or_where_a_screen_is_read_aloud(
    person: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look(json=False, plain=True, bell=True).bell is False
    person()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    failing(Look(bell=True))
    assert "\a" not in sys.stderr.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("command_name", ["run", "logs", "wait"])
def test_the_bell_is_an_option_where_one_waits(command_name: str) -> None:
    tree = typer.main.get_command(command_line.app)
    assert "--bell" in {name for option in tree.commands[command_name].params for name in option.opts}  # type: ignore[attr-defined]


def lines_of(shown: Reporter) -> str:
    shown.emit(Noted("reconnected"))
    shown.emit(Warned("connection lost", hint="cloudtrain logs"))
    shown.failure(ConnectionFailed("the host cannot be reached", hint="cloudtrain logs", consequence="it goes on"))
    return sys.stderr.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("environment", "plain", "coloured"),
    [
        ({}, False, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "1"}, True, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
        ({"FORCE_COLOR": "", "CI": "true"}, False, False),
    ],
)
def test_colour_in_a_pipe(
    environment: dict[str, str], plain: bool, coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    text = lines_of(reporter(Look(plain=plain)))
    assert ("\x1b[33mwarn\x1b[0m connection lost" in text) is coloured
    assert ("\x1b[1;31merror:\x1b[0m the host" in text) is coloured
    assert ("\x1b" in text) is coloured
    assert "note reconnected" in text, "the word carries the meaning, in colour or not"


@pytest.mark.parametrize(("value", "plain"), [("1", True), ("true", True), ("0", False), ("false", False)])
def test_plain_is_a_setting_and_a_variable(value: str, plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDTRAIN_PLAIN", value)
    assert look(json=False, plain=False).plain is plain
    monkeypatch.delenv("CLOUDTRAIN_PLAIN")
    Path("cloudtrain.toml").write_text(f"plain = {str(plain).lower()}\n")
    assert look(json=False, plain=False).plain is plain
    Path("cloudtrain.toml").write_text("plain = [\n")
    assert look(json=False, plain=False).plain is False, "what is wrong with the file is told by whoever needs it"

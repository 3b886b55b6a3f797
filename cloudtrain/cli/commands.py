"""The commands: the words of each in `cloudtrain --help`, and the module that a call of it needs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import typer
from typer import core

from cloudtrain.cli.values import ReadingCommand, ReadingGroup
from cloudtrain.console.answer import Answer
from cloudtrain.console.choose import Look, reporter
from cloudtrain.console.lines import nobody_reads
from cloudtrain.core.errors import ExitCode, Interrupted


class AnsweringCommand(ReadingCommand):
    """A command. What it returns is shown as its flags ask, and becomes its exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run it."""
        found = super().invoke(ctx)
        if not isinstance(found, Answer):
            return found
        return reporter(Look(json=ctx.params.get("json", False), plain=ctx.params.get("plain", False))).answer(found)


class _PassingOn(AnsweringCommand):
    """A command about a run that hands what stands behind -- to another program: no run's name is taken from there."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Read the words."""
        values = {flag for each in self.get_params(ctx) if not getattr(each, "is_flag", True) for flag in each.opts}
        named = value = False
        for at, word in enumerate(args):
            if word == "--" and not value:
                args = args if named else [*args[: at + 1], "", *args[at + 1 :]]
                break
            named = named or not (value or word.startswith("-"))
            value = not value and word in values
        return super().parse_args(ctx, args)


class Command(NamedTuple):
    """One command.

    Attributes:
        where: module of this package and the function in it; a module alone is a group of commands, its `app`.
        help: its line in the list; "" keeps it out of the list.
        passes_on: words that are no option of it are its own to read.
        ends_options: its options end at the first of these words.
    """

    where: str
    help: str = ""
    passes_on: bool = False
    ends_options: bool = False

    def load(self, name: str) -> Any:
        """The command as the parser wants it. Imports its module."""
        module, _, function = self.where.partition(".")
        loaded = importlib.import_module(f"cloudtrain.cli.{module}")
        if not function:
            return typer.main.get_group(loaded.app)
        alone = plain_typer(add_completion=False)
        settings = {"allow_extra_args": self.passes_on, "allow_interspersed_args": not self.ends_options}
        passing = self.passes_on and not self.ends_options
        kind = _PassingOn if passing else AnsweringCommand
        alone.command(name, cls=kind, context_settings=settings, hidden=not self.help)(getattr(loaded, function))
        return typer.main.get_command(alone)


def plain_typer(**options: Any) -> typer.Typer:
    """Plain help: quicker by half, and readable in every terminal and by every screen reader."""
    return typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, **options)


COMMANDS: Mapping[str, Command] = {
    "run": Command(
        "train.run", "Train: plan, ask, start, follow, pull, end the machine.", passes_on=True, ends_options=True
    ),
    "logs": Command("logs.logs", "Show a run's console log; follow it while the run is active."),
    "ls": Command("runs.ls", "List the runs of this computer, latest first."),
    "ps": Command("runs.ls"),
    "show": Command("runs.show", "Show one run: settings, epochs, goals, files, cost."),
    "pull": Command("runs.pull", "Fetch a run's results, verified."),
    "wait": Command("waiting.wait", "Wait until runs have ended, and pull their results."),
    "stop": Command("stopping.stop", "End a run: save, pull its results, end its machine."),
    "clean": Command("leftovers.clean", "List what is left in the account, and end it."),
    "adopt": Command("leftovers.adopt", "Take back an instance that this computer has lost."),
    "verify": Command("records.verify", "Check a run's files against its receipt."),
    "rerun": Command("records.rerun", "Repeat a run from its own record."),
    "report": Command("report.report", "Make the report of a run: goals, curves, confusions."),
    "compare": Command("report.compare", "Compare runs: results, and settings that differ."),
    "export": Command("report.export", "Write a run's epochs in another tool's format."),
    "extend": Command("lease.extend", "Give a run more time while it trains."),
    "ssh": Command("shell.ssh", "Open a shell on a run's machine, or run a command there.", passes_on=True),
    "instances": Command("cloud.instances", "List GPU types with prices, your quota and zones."),
    "doctor": Command("cloud.doctor", "Check everything a launch needs; nothing is created."),
    "init": Command("config.init", "Write a cloudtrain.toml with each setting explained."),
    "trust": Command("config.trust", "Let a project's settings decide on machine and money."),
    "guide": Command("config.guide", "Print a page for coding agents: commands, output, what costs."),
    "config": Command("config", "Settings, and where each comes from."),
}


class _OnDemand(Mapping[str, Any]):
    """The commands by name. One is loaded when somebody asks for it: a call needs the modules of one command."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = COMMANDS[name].load(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class Commands(ReadingGroup):
    """The group of all commands. Its help and the completion of a command's name load none of them."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _OnDemand()  # type: ignore[assignment]  # read, never written

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Names in the order of the table."""
        return list(COMMANDS)

    def invoke(self, ctx: Any) -> Any:
        """Run the command. What typer would make of a Ctrl-C (no word) and of a pipe that is closed (exit code 1) is
        not ours."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted("interrupted") from error
        except BrokenPipeError as error:
            # The reader of our output has left (`| head`): nothing to say, nobody to say it to.
            nobody_reads()
            raise typer.Exit(int(ExitCode.DONE)) from error

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list at the end of `cloudtrain --help`."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_listed()))

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Commands and options that begin with what is typed."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        item = core.CompletionItem  # type: ignore[attr-defined]
        return [item(name, help=words) for name, words in _listed() if name.startswith(incomplete)]


def _listed() -> Iterator[tuple[str, str]]:
    return ((name, command.help) for name, command in COMMANDS.items() if command.help)

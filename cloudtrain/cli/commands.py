"""The commands: the words of each in `cloudtrain --help`, and the module that a call of it needs."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from itertools import takewhile
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
        # Of an answer only an error is drawn by Rich, whose import would be a third of `ls`.
        plain = ctx.params.get("plain", False) or found.error is None
        return reporter(Look(json=ctx.params.get("json", False), plain=plain)).answer(found)


def valued(params: Iterable[Any]) -> set[str]:
    """The options that take a value."""
    return {flag for each in params if not getattr(each, "is_flag", True) for flag in each.opts}


def takes_next(word: str, values: Collection[str]) -> bool:
    """Whether the next word is the value of the option `word`, or of the last of several short ones in it (-dm 3)."""
    if word.startswith("--"):
        return word in values  # --epochs=2 is not
    first = next((at for at, letter in enumerate(word) if at and f"-{letter}" in values), None)
    return word.startswith("-") and first is not None and first == len(word) - 1


def before_command(words: Iterable[str], values: Collection[str]) -> list[str]:
    """Of what follows `run` on a command line, cloudtrain's own part: a program's command begins after it.

    Args:
        values: the options of `run` that take one.
    """
    value = False

    def is_ours(word: str) -> bool:
        nonlocal value
        of_an_option, value = value, not value and takes_next(word, values)
        return of_an_option or (word.startswith("-") and word != "--")

    return list(takewhile(is_ours, words))


class _PassingOn(AnsweringCommand):
    """A command about a run that hands what stands behind -- to another program: no run's name is taken from there."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Read the words."""
        values = valued(self.get_params(ctx))
        named = value = False
        for at, word in enumerate(args):
            if word == "--" and not value:
                args = args if named else [*args[: at + 1], "", *args[at + 1 :]]
                break
            named = named or not (value or word.startswith("-"))
            value = not value and takes_next(word, values)
        return super().parse_args(ctx, args)


class Command(NamedTuple):
    """One command.

    Attributes:
        where: module of this package and the function in it; a module alone is a group of commands, its `app`.
        help: its line in the list; "" keeps it out of the list.
        examples: what its help ends with, without "cloudtrain".
        passes_on: words that are no option of it are its own to read.
        ends_options: its options end at the first of these words.
    """

    where: str
    help: str = ""
    examples: tuple[str, ...] = ()
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
        alone.command(
            name,
            cls=kind,
            context_settings=settings,
            hidden=not self.help,
            epilog=typed(*self.examples),
            options_metavar="[OPTIONS] [[--] COMMAND...]" if self.ends_options else "[OPTIONS]",
        )(getattr(loaded, function))
        return typer.main.get_command(alone)


def typed(*examples: str) -> str:
    """The end of a command's help: each of its examples in a line, as it is typed."""
    return "\n".join(f"cloudtrain {example}" for example in examples)


def plain_typer(**options: Any) -> typer.Typer:
    """Plain help: quicker by half, and readable in every terminal and by every screen reader."""
    return typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, **options)


# Heading in `cloudtrain --help` -> its commands.
GROUPS: Mapping[str, Mapping[str, Command]] = {
    "Train": {
        "run": Command(
            "train.run",
            "Train: plan, ask, start, follow, pull, end the machine.",
            ("run --local", "run -i g4dn.xlarge --max-cost 1", "run -i g4dn.xlarge -- python train.py --lr 3e-4"),
            passes_on=True,
            ends_options=True,
        ),
        "rerun": Command(
            "records.rerun", "Repeat a run from its own record.", ("rerun brave-otter --plan", "rerun runs/brave-otter")
        ),
        "stop": Command(
            "stopping.stop",
            "End a run: save, pull its results, end its machine.",
            ("stop", "stop brave-otter --yes", "stop --all"),
        ),
    },
    "Watch": {
        "ls": Command(
            "runs.ls", "List the runs of this computer, latest first.", ("ls", "ls --status failed --since 3d")
        ),
        "ps": Command("runs.ls"),
        "show": Command(
            "runs.show", "Show one run: settings, epochs, goals, files, cost.", ("show", "show brave-otter --json")
        ),
        "logs": Command(
            "logs.logs",
            "Show a run's console log; follow it while the run is active.",
            ("logs", "logs brave-otter -n 20 --no-follow", "logs brave-otter --epochs"),
        ),
        "wait": Command(
            "waiting.wait",
            "Wait until runs have ended, and pull their results.",
            ("wait brave-otter", "wait brave-otter calm-fox --timeout 2h"),
        ),
    },
    "Results": {
        "pull": Command(
            "runs.pull", "Fetch a run's results, verified.", ("pull", "pull brave-otter --only weights --out best")
        ),
        "verify": Command(
            "records.verify", "Check a run's files against its receipt.", ("verify", "verify runs/brave-otter")
        ),
        "report": Command(
            "report.report",
            "Make the report of a run: goals, curves, confusions.",
            ("report --open", "report brave-otter --format md --out RESULTS.md"),
        ),
        "compare": Command(
            "report.compare",
            "Compare runs: results, and settings that differ.",
            ("compare brave-otter calm-fox", "compare brave-otter calm-fox --html compared.html"),
        ),
        "export": Command(
            "report.export", "Write a run's epochs in another tool's format.", ("export brave-otter --to tensorboard",)
        ),
    },
    "Machine": {
        "ssh": Command(
            "shell.ssh",
            "Open a shell on a run's machine, or run a command there.",
            ("ssh", "ssh brave-otter -- nvidia-smi", "ssh brave-otter --forward 6006"),
            passes_on=True,
        ),
        "instances": Command(
            "cloud.instances",
            "List GPU types with prices, your quota and zones.",
            ("instances --gpu T4", "instances --offline"),
        ),
        "doctor": Command(
            "cloud.doctor",
            "Check everything a launch needs; nothing is created.",
            ("doctor", "doctor --instance g4dn.xlarge --region us-east-1"),
        ),
    },
    "Money": {
        "extend": Command(
            "lease.extend",
            "Give a run more time while it trains.",
            ("extend brave-otter 30m", "extend brave-otter 1h30m"),
        ),
        "clean": Command(
            "leftovers.clean",
            "List what is left in the account, and end it.",
            ("clean --all-regions --dry-run", "clean --yes"),
        ),
        "adopt": Command(
            "leftovers.adopt",
            "Take back an instance that this computer has lost.",
            ("adopt i-0123456789abcdef0 --region us-east-1",),
        ),
    },
    "Settings and help": {
        "init": Command("config.init", "Write a cloudtrain.toml with each setting explained.", ("init",)),
        "trust": Command("config.trust", "Let a project's settings decide on machine and money.", ("trust",)),
        "config": Command("config", "Settings, and where each comes from."),
        "guide": Command("config.guide", "Print a page for coding agents: commands, output, what costs.", ("guide",)),
        "help": Command("about.help", "Print the help of a command.", ("help run", "help config show")),
        "version": Command("about.version", "Print the version.", ("version",)),
    },
}
COMMANDS: Mapping[str, Command] = {name: one for group in GROUPS.values() for name, one in group.items()}


@cache
def loaded(name: str) -> Any:
    """The command of that name, as the parser wants it."""
    return COMMANDS[name].load(name)


class _OnDemand(Mapping[str, Any]):
    """The commands by name. One is loaded when somebody asks for it: a call needs the modules of one command."""

    def __getitem__(self, name: str) -> Any:
        return loaded(name)

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
        """The lists at the end of `cloudtrain --help`."""
        width = max(map(len, COMMANDS))
        for heading, group in GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl([(f"{name:{width}}", one.help) for name, one in group.items() if one.help])

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Commands and options that begin with what is typed."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        item = core.CompletionItem  # type: ignore[attr-defined]
        return [item(name, help=words) for name, words in listed() if name.startswith(incomplete)]


def listed() -> Iterator[tuple[str, str]]:
    """The commands that help and completion show: names, and their words."""
    return ((name, command.help) for name, command in COMMANDS.items() if command.help)

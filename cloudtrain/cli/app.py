"""The command tree, and the one place where failures become messages and exit codes."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path

import typer

from cloudtrain.cli import signals
from cloudtrain.cli.commands import Commands, before_command, loaded, plain_typer, typed, valued
from cloudtrain.cli.values import path_of
from cloudtrain.console.choose import Look, reporter
from cloudtrain.console.lines import Unwritten, let_go, nobody_reads, print_lines, tell
from cloudtrain.console.reporters.base import NO_INPUT, forgive_encodings
from cloudtrain.core.errors import CloudtrainError, ExitCode, Interrupted, UsageError
from cloudtrain.core.version import __version__

# Options of `cloudtrain` itself, accepted anywhere in a command line, and the variable that each one sets.
EVERYWHERE = {"--no-color": "NO_COLOR", "--no-input": NO_INPUT}

app = plain_typer(
    name="cloudtrain",
    cls=Commands,
    no_args_is_help=True,
    epilog=typed("run --local", "run -i g4dn.xlarge --dry-run", "help run"),
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train on an EC2 GPU from your laptop: launch, stream the log, pull verified results, end the instance.",
)


def _version(asked: bool) -> None:
    if asked:
        print_lines(f"cloudtrain {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and leave."
    ),
    no_color: bool = typer.Option(False, "--no-color", help="No colour, like NO_COLOR=1. May also follow the command."),
    no_input: bool = typer.Option(
        False,
        "--no-input",
        help="Never ask: leave with exit code 2 instead. May also follow the command.",
    ),
) -> None:
    """Train on an EC2 GPU from your laptop: launch, stream the log, pull verified results, end the instance."""


def run() -> int:
    """Run the command that `sys.argv` asks for; its exit code.

    No traceback reaches a user: an unexpected failure is written to a file and named.
    """
    _open_streams()
    forgive_encodings()
    with _everywhere() as words:
        return _run(words)


def _open_streams() -> None:
    """Standard streams that were closed (`>&-`) are there again, so that no file that is opened later takes their
    place. What is written to stdout still fails; what would be said on stderr is lost."""
    for name, flags in (("stdin", os.O_RDONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            # The lowest free number: that of the stream.
            number = os.open(os.devnull, flags)
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", encoding="utf-8"))


@contextmanager
def _everywhere() -> Iterator[list[str]]:
    """The command line without the options that hold for every command; for this long the environment has them."""
    typed = _own(sys.argv[1:])
    words = [word for word in typed if word not in EVERYWHERE] + sys.argv[1 + len(typed) :]
    before = {variable: os.environ.get(variable) for variable in EVERYWHERE.values()}
    os.environ.update({variable: "1" for flag, variable in EVERYWHERE.items() if flag in typed})
    if "--json" in typed:
        os.environ[NO_INPUT] = "1"  # docs/json.md: nothing is asked
    try:
        yield words
    finally:
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value


def _own(words: list[str]) -> list[str]:
    """Those of the command line that are cloudtrain's: none of a program that it is to run."""
    command = next((i for i, word in enumerate(words) if not word.startswith("-")), len(words))
    if words[command : command + 1] == ["run"]:
        values = valued(loaded("run").params)
        return words[: command + 1] + before_command(words[command + 1 :], values)
    return list(takewhile(lambda word: word != "--", words))


def _run(words: list[str]) -> int:
    typed = _own(words)
    look = Look(json="--json" in typed, plain="--plain" in typed)
    try:
        with signals.raised():
            code = app(words, standalone_mode=False)
        return code if isinstance(code, int) else int(ExitCode.DONE)
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            tell(error.format_message())  # the help
        else:
            _told(look, _mistyped(error))
        return int(ExitCode.USAGE)
    except CloudtrainError as error:
        _told(look, error)
        return int(error.exit_code)
    except (KeyboardInterrupt, signals.Leave):
        _told(look, Interrupted("interrupted"))
        return int(ExitCode.INTERRUPTED)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except Exception as error:
        if isinstance(error, OSError) and nobody_reads():
            return int(ExitCode.INTERRUPTED)
        # Help alone is not written by `print_lines`.
        helping = bool({"-h", "--help"} & {*typed}) or words[:1] == ["help"]
        unwritten = isinstance(error, Unwritten) or (isinstance(error, OSError) and helping)
        shown = _unwritten(error) if unwritten else _gone() or _unexpected(error)
        _told(look, shown)
        return int(shown.exit_code)


def _unwritten(error: Exception) -> UsageError:
    """Standard output takes nothing: it is closed, or its disk is full."""
    return UsageError(
        f"standard output cannot be written: {getattr(error, 'strerror', None) or error}",
        hint="send it elsewhere, or free some space, then run the same command again",
        consequence="what the command had done stays done; a training run goes on",
        code="cannot_write",
    )


def _gone() -> UsageError | None:
    """The failure of a command whose folder is gone; None: it is there."""
    try:
        Path.cwd()
    except OSError:
        return UsageError(
            "the current folder no longer exists",
            hint="cd to an existing folder, then run the same command again",
            consequence="a training run goes on",
            code="folder",
        )
    return None


def _told(look: Look, error: CloudtrainError) -> None:
    """Show why a command failed that had no run to speak of yet."""
    from cloudtrain.billing import running

    try:
        reporter(look, billing=running.now).failure(error)
    except OSError:
        # A stream takes nothing: who wanted JSON on it gets words on the other one.
        with suppress(OSError):
            reporter(Look(plain=True)).failure(error)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            let_go(stream)


def _mistyped(error: typer.TyperException) -> UsageError:
    """A command line that cannot be parsed, as an error like all others."""
    context = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".")
    command = path_of(context) if context is not None else "cloudtrain"
    return UsageError(message[:1].lower() + message[1:], hint=f"{command} --help")


def _unexpected(error: Exception) -> CloudtrainError:
    """A message for a failure that nobody foresaw, with the traceback kept in a file."""
    from cloudtrain.core import disk, secrets

    where = "its details could not be saved"
    try:
        folder = disk.private_dir(disk.state_dir() / "crashes")
        path = folder / time.strftime("%Y%m%d-%H%M%S.txt")
        path.write_text(secrets.hide("".join(traceback.format_exception(error))), encoding="utf-8")
        where = f"details in {path}"
        for old in sorted(folder.glob("*.txt"))[:-5]:
            old.unlink(missing_ok=True)
    except (OSError, CloudtrainError):
        pass
    return CloudtrainError(
        f"something unexpected happened: {type(error).__name__}: {error}",
        hint=f"{where}; your runs: cloudtrain ls",
        # Notes say what becomes of a machine that is up (`standing.told`).
        consequence="; ".join(["a training run goes on", *getattr(error, "__notes__", [])]),
    )

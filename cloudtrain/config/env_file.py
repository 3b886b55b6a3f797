"""`--env-file`: NAME=VALUE lines, from which come the secrets that this shell lacks. Nothing else in it is used."""

from __future__ import annotations

from pathlib import Path

from cloudtrain.core import secrets
from cloudtrain.core.errors import UsageError
from cloudtrain.core.spec import RunSpec

MOST = 1 << 20  # bytes


def give(path: Path | None) -> None:
    """What the file at `path` sets is known to this command.

    Raises:
        UsageError: it cannot be read; the message repeats nothing of it.
    """
    if path is None:
        return
    try:
        with path.expanduser().open("rb") as file:
            data = file.read(MOST + 1)
        if len(data) > MOST or b"\0" in data:
            raise ValueError("it is no list of variables")
        lines = data.decode("utf-8-sig").splitlines()
        secrets.give(dict(_variable(number, line) for number, line in enumerate(lines, 1) if _says(line)))
    except (OSError, RuntimeError, ValueError) as error:
        why = (
            error.strerror
            if isinstance(error, OSError)
            else "it is no UTF-8"
            if isinstance(error, UnicodeError)
            else error
        )
        hint = "--env-file FILE with lines such as HF_TOKEN=..."
        raise UsageError(f"{path} cannot be read: {why}", hint=hint, code="bad_setting") from None


def check(path: Path | None, spec: RunSpec) -> None:
    """That the file was given for something.

    Raises:
        UsageError: the run has no secrets.
    """
    if path is not None and not spec.job.secrets:
        raise UsageError(
            "--env-file was given, and no secret is named",
            hint="add --secret NAME for each variable of it that the training is to get",
            code="bad_setting",
        )


def _says(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _variable(number: int, line: str) -> tuple[str, str]:
    """One line: `NAME=VALUE`, also after `export`; a value in quotes is what is between them, else what is before a
    comment."""
    name, equals, value = line.strip().removeprefix("export ").partition("=")
    name, value = name.strip(), value.strip()
    if not equals or not secrets.NAME.fullmatch(name):
        raise ValueError(f"line {number} is not NAME=VALUE")
    quote = value[:1]
    if quote in ("'", '"') and (end := value.find(quote, 1)) > 0:
        if (rest := value[end + 1 :].lstrip()) and not rest.startswith("#"):
            raise ValueError(f"line {number} goes on behind the quote that ends its value")
        return name, value[1:end]
    return name, value.partition(" #")[0].rstrip()

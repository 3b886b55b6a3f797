"""Where settings come from: flag > `CLOUDTRAIN_*` > `--config` > `cloudtrain.toml` > pyproject > user file."""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str | float | int) -> float:
    """Seconds of "90s", "30m", "1h", "1h30m" or a plain number of seconds.

    Raises:
        ValueError: it is none of these, or not above zero.
    """
    if isinstance(text, (int, float)):
        seconds = float(text)
    else:
        if not re.fullmatch(r"(?:\d+(?:\.\d+)?\s*(?:s|min|m|h|d)\s*)+|\d+(?:\.\d+)?", text.strip()):
            raise ValueError(f"{text!r} is not a duration such as 45m or 1h30m")
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*(min|s|m|h|d)?", text)
        seconds = sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)
    if seconds <= 0:
        raise ValueError(f"{text!r} is not above zero")
    return seconds


def _words(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, (list, tuple)) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise ValueError(f"{value!r} is not a list of words")


def _arguments(value: Any) -> tuple[str, ...]:
    """Arguments of a program: a list as it is, one text as a shell would take it apart."""
    return tuple(shlex.split(value)) if isinstance(value, str) else _words(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in {"1", "true", "yes", "on", "0", "false", "no", "off"}:
        return value.lower() in {"1", "true", "yes", "on"}
    raise ValueError(f"{value!r} is neither true nor false")


def _whole(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(f"{value!r} is not a whole number")
    return int(value)


def _rate(value: Any) -> float:
    """MiB a second, 0 for none at all."""
    rate = float(value)
    if not 0 <= rate < float("inf"):
        raise ValueError(f"{value!r} is not a rate in MiB a second; 0 is off")
    return rate


# Every setting: how its text or TOML value is read. The names are the flags' names; CLOUDTRAIN_MAX_TIME is `max_time`.
SETTINGS: dict[str, Any] = {
    **dict.fromkeys(("model", "epochs", "batch_size", "seed", "volume_size", "spot_restarts"), _whole),
    **dict.fromkeys(("lr", "max_cost", "confirm_above"), float),
    **dict.fromkeys(("device", "recipe", "runs_dir", "job", "module", "region", "profile", "identity"), _text),
    **dict.fromkeys(("ami", "subnet", "security_group", "ssh_cidr", "if_i_vanish"), _text),
    **dict.fromkeys(("boot_limit", "max_time", "grace"), duration),
    **dict.fromkeys(("spot", "plain"), _truth),
    **dict.fromkeys(("outputs", "instance"), _words),
    "args": _arguments,
    "trickle_rate": _rate,
}

# `trickle_rate`: MiB a second at which finished results of a run that is followed come down while it trains; 0: not.
DEFAULTS: dict[str, Any] = {
    "model": 3,
    "seed": 1,
    "device": "auto",
    "runs_dir": "runs",
    "confirm_above": 0.0,
    "trickle_rate": 4.0,
}


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and, for people, where it came from."""

    value: Any
    origin: str


class Settings:
    """All settings after the merge.

    Attributes:
        project: folder of `cloudtrain.toml` or of the pyproject with a `[tool.cloudtrain]`, else the working folder;
            relative paths in settings are meant from there.
    """

    def __init__(self, values: Mapping[str, Setting], project: Path) -> None:
        self._values = dict(values)
        self.project = project

    def get(self, name: str) -> Any:
        """The value of `name`, None where nobody set it."""
        setting = self._values.get(name)
        return setting.value if setting else None

    def origins(self) -> dict[str, Setting]:
        """Every setting that has a value, by name."""
        return dict(sorted(self._values.items()))

    @property
    def runs_dir(self) -> Path:
        """Folder of the runs, absolute."""
        return (self.project / str(self.get("runs_dir"))).absolute()


def load(
    flags: Mapping[str, Any],
    *,
    config: Path | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Merge all sources. `flags` holds what the command line gave; None means not given.

    Args:
        config: a file of settings that beats the project's, such as `runs/NAME/config.toml`.

    Raises:
        UsageError: a file cannot be read, holds an unknown setting, or a value is not what the setting takes.
    """
    here = (folder or Path.cwd()).absolute()
    environment = os.environ if environment is None else environment
    merged = {name: Setting(value, "default") for name, value in DEFAULTS.items()}
    project = here
    user_file = disk.config_dir() / "config.toml"
    layers: list[tuple[str, Mapping[str, Any]]] = [(str(user_file), _read(user_file))]
    found = _project_file(here)
    if found is not None:
        path, table = found
        project = path.parent
        layers.append((str(path), table))
    if config is not None:
        if not config.is_file():
            raise UsageError(f"there is no settings file {config}", hint="--config FILE", code="bad_setting")
        layers.append((str(config), _read(config)))
    given = [(name, value, origin) for origin, table in layers for name, value in table.items()]
    variables = {name: f"CLOUDTRAIN_{name.upper()}" for name in SETTINGS}
    given += [(name, environment[key], key) for name, key in variables.items() if environment.get(key)]
    given += [(name, value, f"--{name.replace('_', '-')}") for name, value in flags.items() if value is not None]
    merged |= {name: Setting(_checked(name, value, origin), origin) for name, value, origin in given}
    return Settings(merged, project)


def known(name: str) -> Any:
    """The value of one setting, its default where a settings file is damaged: whoever needs the settings says so."""
    try:
        return load({}).get(name)
    except UsageError:
        return DEFAULTS.get(name)


def _checked(name: str, value: Any, origin: str) -> Any:
    read = SETTINGS.get(name)
    if read is None:
        raise UsageError(f"{origin}: there is no setting {name!r}", hint="cloudtrain config show", code="bad_setting")
    try:
        return read(value)
    except (ValueError, TypeError) as error:
        hint = "cloudtrain run --help" if origin.startswith("--") else f"correct {name} there"
        raise UsageError(f"{origin}: {error}", hint=hint, code="bad_setting") from error


def _project_file(here: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """The nearest `cloudtrain.toml`, or pyproject with a table for us, from `here` upwards."""
    for folder in (here, *here.parents):
        own = folder / "cloudtrain.toml"
        if own.is_file():
            return own, _read(own)
        pyproject = folder / "pyproject.toml"
        if pyproject.is_file():
            tool = _read(pyproject).get("tool", {})
            table = tool.get("cloudtrain") if isinstance(tool, dict) else None
            if isinstance(table, dict):
                return pyproject, table
    return None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        # Editors on Windows begin a file with a byte order mark, which TOML does not know.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read: {error}", hint="correct or remove that file", code="bad_setting"
        ) from error

"""Where settings come from: flag > `CLOUDTRAIN_*` > `--config` > `cloudtrain.toml` > pyproject > user file.

A project's file decides what is trained; of money and trust only what the user has agreed to (`trust.py`).
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cloudtrain.config import files, trust
from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError

_LONGEST_S = 100 * 365 * 86400.0
MOST_TAGS = 40
_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str | float | int) -> float:
    """Seconds of "90s", "30m", "1h", "1h30m" or a plain number of seconds.

    Raises:
        ValueError: it is none of these, or not above zero.
    """
    if not isinstance(text, str):
        seconds = _number(text)
    else:
        if not re.fullmatch(r"(?:\d+(?:\.\d+)?\s*(?:s|min|m|h|d)\s*)+|\d+(?:\.\d+)?", text.strip()):
            raise ValueError(f"{_shown(text)} is not a duration such as 45m or 1h30m")
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*(min|s|m|h|d)?", text)
        seconds = sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)
    if not 0 < seconds <= _LONGEST_S:
        raise ValueError(f"{_shown(text)} is not above zero" if seconds <= 0 else f"{_shown(text)} is too long")
    return seconds


def _shown(value: Any) -> str:
    """A value for a message, shortened where it is long."""
    said = repr(value)
    return said if len(said) <= 200 else f"{said[:200]}…"


def _words(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in _text(value).split(",") if part.strip())
    if isinstance(value, (list, tuple)) and all(isinstance(part, str) and "\0" not in part for part in value):
        return tuple(value)
    raise ValueError(f"{_shown(value)} is not a list of words")


def _arguments(value: Any) -> tuple[str, ...]:
    """Arguments of a program: a list as it is, one text as a shell would take it apart."""
    return _words(shlex.split(value) if isinstance(value, str) else value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError(f"{_shown(value)} is not text in one line")
    return value


def _number(value: Any) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else float("nan")
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if abs(number) > 1e100 or number != number:
        raise ValueError(f"{_shown(value)} is not a number")
    return number


def _tags(value: Any) -> dict[str, str]:
    """A table, or texts KEY=VALUE. Held to AWS's limits here, so that no launch is refused for them in its middle."""
    if not isinstance(value, Mapping):
        pairs = [text.partition("=") for text in _words(value)]
        if wrong := [key for key, equals, _ in pairs if not equals]:
            raise ValueError(f"{_shown(wrong[0])} is not KEY=VALUE")
        value = {key.strip(): text.strip() for key, _, text in pairs}
    if len(value) > MOST_TAGS:
        raise ValueError(f"{len(value)} tags are too many: {MOST_TAGS} at most, since AWS takes 50 with our own")
    for key, text in value.items():
        if not isinstance(text, str) or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", key + text):
            raise ValueError(f"the tag {_shown(key)} is not text in one line")
        if not 0 < len(key) <= 128 or len(text) > 256:
            raise ValueError(f"the tag {_shown(key)} is too long or has no name: AWS takes 128 and 256 characters")
        if key.lower().startswith(("aws:", "cloudtrain:", "emulator:")):
            raise ValueError(f"the tag {_shown(key)} cannot be set: names that begin so are AWS's own, or cloudtrain's")
    return dict(value)


def _login(value: Any) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_.-]{0,31}", _text(value)):
        raise ValueError(f"{_shown(value)} cannot be a login name")
    return str(value)


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in {"1", "true", "yes", "on", "0", "false", "no", "off"}:
        return value.lower() in {"1", "true", "yes", "on"}
    raise ValueError(f"{_shown(value)} is neither true nor false")


def _whole(value: Any) -> int:
    if isinstance(value, (str, int, float)) and _number(value).is_integer():
        return int(value)
    raise ValueError(f"{_shown(value)} is not a whole number")


def _amount(value: Any) -> float:
    number = _number(value)
    if number < 0:
        raise ValueError(f"{_shown(value)} is not a number from 0 up")
    return number


# Every setting: how its text or TOML value is read. The names are the flags' names; CLOUDTRAIN_MAX_TIME is `max_time`.
SETTINGS: dict[str, Any] = {
    **dict.fromkeys(("model", "epochs", "batch_size", "seed", "volume_size", "spot_restarts"), _whole),
    **dict.fromkeys(("lr", "max_cost", "confirm_above", "trickle_rate"), _amount),
    **dict.fromkeys(("device", "recipe", "runs_dir", "job", "module", "region", "profile", "identity"), _text),
    **dict.fromkeys(("python", "ami", "subnet", "security_group", "ssh_cidr", "if_i_vanish"), _text),
    **dict.fromkeys(("boot_limit", "max_time", "grace"), duration),
    **dict.fromkeys(("spot", "private_ip", "plain", "allow_cpu", "keep_on_host"), _truth),
    **dict.fromkeys(("outputs", "instance"), _words),
    "args": _arguments,
    "tags": _tags,
    "login": _login,
}

# Flags that are not called as their setting is.
FLAGS = {"tags": "--tag"}
# `trickle_rate`: MiB a second at which finished results of a run that is followed come down while it trains; 0: not.
DEFAULTS: dict[str, Any] = {
    "model": 3,
    "seed": 1,
    "device": "auto",
    "runs_dir": "runs",
    "confirm_above": 0.0,
    "trickle_rate": 4.0,
    "keep_on_host": False,
}


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and, for people, where it came from.

    Attributes:
        of_file: that is a file.
        fault: why it must not be taken from there, for people; "": it may.
    """

    value: Any
    origin: str
    of_file: bool = False
    fault: str = ""


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
        """The value of `name`, None where nobody set it.

        Raises:
            UsageError: it is a matter of money or trust, and comes from a file that may not decide it.
        """
        setting = self._values.get(name)
        if setting is not None and setting.fault:
            beside = (key for key, one in self._values.items() if one.fault and one.origin == setting.origin)
            raise trust.refusal(setting.origin, setting.fault, beside, asked=name)
        return setting.value if setting else None

    def from_files(self) -> dict[str, str]:
        """The settings of money and trust that a file decides, each with its path."""
        taken = {name: one.origin for name, one in self.origins().items() if one.of_file and not one.fault}
        return {name: origin for name, origin in taken.items() if name in trust.SETTINGS}

    def origins(self) -> dict[str, Setting]:
        """Every setting that has a value, by name."""
        return dict(sorted(self._values.items()))

    @property
    def runs_dir(self) -> Path:
        """Folder of the runs, absolute.

        Raises:
            UsageError: as `get`.
        """
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
    own = files.read(disk.config_dir() / "config.toml")
    if own is not None:
        _add(merged, own, lambda name, value: False)
    found = files.of_project(here)
    project = found.path.parent if found is not None else here
    if found is not None:
        before = {name: setting.value for name, setting in merged.items()}
        _add(merged, found, lambda name, value: trust.needed(name, value, before.get(name), project))
    if config is not None:
        named = files.read(config) if config.is_file() else None
        if named is None:
            raise UsageError(f"there is no settings file {config}", hint="--config FILE", code="bad_setting")
        # The user has named it, and sees what it sets in the plan: but only if the plan is asked about.
        theirs = trust.SETTINGS if named.fault else (trust.CONSENT,)
        _add(merged, named, lambda name, value: name in theirs)
    for name in SETTINGS:
        variable = f"CLOUDTRAIN_{name.upper()}"
        if environment.get(variable):
            merged[name] = _over(merged, name, Setting(_checked(name, environment[variable], variable), variable))
    for name, value in flags.items():
        if value is not None:
            origin = FLAGS.get(name) or f"--{name.replace('_', '-')}"
            merged[name] = _over(merged, name, Setting(_checked(name, value, origin), origin))
    return Settings(merged, project)


def of_file(file: files.File) -> dict[str, Any]:
    """What a file sets, read and checked.

    Raises:
        UsageError: it holds an unknown setting, or a value is not what the setting takes.
    """
    return {name: _checked(name, value, str(file.path)) for name, value in file.table.items()}


def _add(merged: dict[str, Setting], file: files.File, doubtful: Callable[[str, Any], bool]) -> None:
    """Lay what `file` sets over what is there; what is `doubtful` counts only as far as the user trusts the file."""
    values = of_file(file)
    doubts = {name for name, value in values.items() if doubtful(name, value)}
    fault = ""
    if doubts:
        agreed = trust.holds(file.path, trust.digest(values, file.path.parent))
        fault = file.fault or ("" if agreed else trust.UNTRUSTED)
    for name, value in values.items():
        setting = Setting(value, str(file.path), of_file=True, fault=fault if name in doubts else "")
        merged[name] = _over(merged, name, setting)


def _over(merged: Mapping[str, Setting], name: str, setting: Setting) -> Setting:
    """`setting` in the place of the one before it. Of tags each is one by itself: those that only one sets stay."""
    before = merged.get(name)
    if name != "tags" or before is None or before.fault:
        return setting
    return replace(setting, value=_checked(name, {**before.value, **setting.value}, setting.origin))


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
    except ValueError as error:
        hint = "cloudtrain run --help" if origin.startswith("--") else f"correct {name} there"
        raise UsageError(f"{origin}: {error}", hint=hint, code="bad_setting") from error

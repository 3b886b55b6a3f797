"""Where settings come from: flag > `CLOUDTRAIN_*` > `--config` > `cloudtrain.toml` > pyproject > user file.

A project's file decides what is trained; of money and trust only what the user has agreed to (`trust.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cloudtrain.config import files, trust
from cloudtrain.config.table import SETTINGS
from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError
from cloudtrain.core.text import meant

# What a setting is called in the table `[job]`, where that is not its own name.
_OF_JOB = {"folder": "job", "env": "environment", "results": "outputs", "resume": "resume_args"}


@dataclass(frozen=True, slots=True)
class Value:
    """A value and, in words, where it came from.

    Attributes:
        of_file: that is a file.
        fault: why it must not be taken from there, in words; "": it may.
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

    def __init__(self, values: Mapping[str, Value], project: Path) -> None:
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

    def fields(self, part: str) -> dict[str, Any]:
        """What of a run's `part`, such as "ec2", somebody has set: its fields. What is empty is not set.

        Raises:
            UsageError: as `get`.
        """
        values = {each.goes_to: self.get(each.name) for each in SETTINGS.values() if each.part == part}
        return {goes_to.rpartition(".")[2]: value for goes_to, value in values.items() if value not in (None, "", ())}

    def from_files(self) -> dict[str, str]:
        """The settings of money and trust that a file decides, each with its path."""
        taken = {name: one.origin for name, one in self.origins().items() if one.of_file and not one.fault}
        return {name: origin for name, origin in taken.items() if name in trust.SETTINGS}

    def origins(self) -> dict[str, Value]:
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
    merged = {name: Value(each.default, "default") for name, each in SETTINGS.items() if each.default is not None}
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
    for name, each in SETTINGS.items():
        if text := environment.get(each.variable):
            merged[name] = _over(merged, name, Value(_checked(name, text, each.variable), each.variable))
    for name, value in flags.items():
        if value is not None:
            origin = SETTINGS[name].option
            merged[name] = _over(merged, name, Value(_checked(name, value, origin), origin))
    return Settings(merged, project)


def of_file(file: files.File) -> dict[str, Any]:
    """What a file sets, read and checked.

    Raises:
        UsageError: it holds an unknown setting, or a value is not what the setting takes.
    """
    table = dict(file.table)
    if isinstance(of_job := table.get("job"), Mapping):
        del table["job"]
        table |= {_OF_JOB.get(str(name), str(name)): value for name, value in of_job.items()}
    return {name: _checked(name, value, str(file.path)) for name, value in table.items()}


def _add(merged: dict[str, Value], file: files.File, doubtful: Callable[[str, Any], bool]) -> None:
    """Lay what `file` sets over what is there; what is `doubtful` counts only as far as the user trusts the file."""
    values = of_file(file)
    doubts = {name for name, value in values.items() if doubtful(name, value)}
    fault = ""
    if doubts:
        agreed = trust.holds(file.path, trust.digest(values, file.path.parent))
        fault = file.fault or ("" if agreed else trust.UNTRUSTED)
    for name, value in values.items():
        setting = Value(value, str(file.path), of_file=True, fault=fault if name in doubts else "")
        merged[name] = _over(merged, name, setting)


def _over(merged: Mapping[str, Value], name: str, setting: Value) -> Value:
    """`setting` in the place of the one before it. Of tags, variables and secrets each is one by itself: those that
    only one sets stay."""
    before = merged.get(name)
    if name not in ("tags", "vars", "secrets") or before is None or before.fault:
        return setting
    if name == "secrets":
        return replace(setting, value=tuple(dict.fromkeys((*before.value, *setting.value))))
    return replace(setting, value=_checked(name, {**before.value, **setting.value}, setting.origin))


def known(*names: str) -> list[Any]:
    """The values of settings, their defaults where a settings file is damaged: whoever needs the settings says so."""
    try:
        return [*map(load({}).get, names)]
    except UsageError:
        return [SETTINGS[name].default for name in names]


def _checked(name: str, value: Any, origin: str) -> Any:
    setting = SETTINGS.get(name)
    if setting is None:
        raise UsageError(
            f"{origin}: there is no setting {name!r}",
            hint=meant(name, SETTINGS, "cloudtrain config show"),
            code="bad_setting",
        )
    try:
        return setting.read(value)
    except ValueError as error:
        hint = "cloudtrain run --help" if origin.startswith("--") else f"correct {name} there"
        raise UsageError(f"{origin}: {error}", hint=hint, code="bad_setting") from error

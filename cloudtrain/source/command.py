"""A user's own command: the project that it belongs to, what of that it runs, and how a host is to run it."""

from __future__ import annotations

import ast
import importlib.util
import os
import posixpath
import re
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from cloudtrain.core.environment import Environment
from cloudtrain.core.errors import UsageError
from cloudtrain.core.spec import JobSpec, RunSpec
from cloudtrain.core.text import meant, nearest
from cloudtrain.source.tree import Tree

_MARKS = ("cloudtrain.toml", "pyproject.toml", ".git")
# What tells of packages: where one of these is, a program or a module may come with them.
_PACKAGES = ("uv.lock", "pyproject.toml", "requirements.txt", "environment.yml", "conda-lock.yml", "Dockerfile")
_PYTHON = re.compile(r"python(?:3(?:\.\d+)?)?")
_SHELLS = ("bash", "sh", "zsh")
_LAUNCHERS = ("torchrun", "accelerate", "deepspeed")
_COMMON = ("python", "python3", *_SHELLS, *_LAUNCHERS, "papermill", "jupyter")
# Options of Python and of shells that take the next word with them.
_WITH_VALUE = ("-W", "-X", "-o", "-O")
NOTEBOOK = ".ipynb"
# Runs a notebook; its output cells and its errors become the log.
NOTEBOOK_PACKAGES = ("papermill", "ipykernel")


def project_of(here: Path) -> tuple[Path, str]:
    """The project that a command typed in the folder `here` belongs to, and the place of `here` in it (POSIX, "": the
    project itself): the nearest folder upwards that is marked as one, else `here`.

    Raises:
        UsageError: that would be the user's home, or a whole disk.
    """
    home = Path(os.path.expanduser("~")).resolve()  # noqa: PTH111 - that of pathlib raises where there is none
    for folder in (here, *here.parents):
        if home == folder or home.is_relative_to(folder):
            break
        if any(os.path.lexists(folder / mark) for mark in _MARKS):
            return folder, "" if folder == here else here.relative_to(folder).as_posix()
    if home.is_relative_to(here):
        raise UsageError(
            f"{here} is no folder of a project: all that is in it would be sent",
            hint="cd to the folder of your program first",
            consequence="nothing was started",
            code="no_program",
        )
    return here, ""


def argv(job: JobSpec, python: str) -> list[str]:
    """The command as a host runs it, by the interpreter `python`."""
    first, *rest = job.command
    if first.endswith(NOTEBOOK):
        where, name = posixpath.split(first)
        told = posixpath.join(where, f"{name.removesuffix(NOTEBOOK)}.out{NOTEBOOK}")
        return [python, "-m", "papermill", first, told, "--log-output", "--cwd", where or ".", *rest]
    if first.endswith(".py"):
        return [python, *job.command]
    return [python, *rest] if _PYTHON.fullmatch(first) else list(job.command)


def program(
    spec: RunSpec, environment: Environment, added: tuple[str, ...], folders: tuple[str, ...]
) -> dict[str, Any]:
    """What the supervisor is to start, with further arguments, where, and which new files are results; and the
    `folders` that the program may look for, though no file of them was sent."""
    job = spec.job
    if not job.command:
        return {"argv": [environment.python, "-m", job.module, *spec.train.argv()]}
    top = Path(job.source).name
    return {
        "argv": [*argv(job, environment.python), *added],
        "cwd": f"{top}/{job.cwd}".rstrip("/"),
        "bin": environment.bin or posixpath.dirname(environment.python),
        "imports": f"{top}/{environment.imports}" if environment.imports else None,
        "results": top,
        "folders": folders,
    }


class _Entry(NamedTuple):
    """What a command runs, as far as its words tell: a file, or a module of Python."""

    file: str | None = None
    module: str | None = None


def check(job: JobSpec, found: Tree) -> None:
    """The command can begin on another machine, as far as that can be told here.

    Args:
        found: what will be sent of the project.

    Raises:
        UsageError: it cannot (code `no_program`).
    """
    first = job.command[0]
    entry = _entry(job.command)
    image = (job.environment or "").startswith("image ")
    declared = image or bool(job.packages) or any(f"{found.source.name}/{name}" in found.files for name in _PACKAGES)
    if entry.file is not None:
        _check_file(entry.file, job, found)
    elif entry.module is not None:
        _check_module(entry.module, job, found, declared=declared)
    elif first not in _COMMON and shutil.which(first) is None:
        near = nearest(first, _COMMON, 0.8)
        if declared and not near:
            return
        raise _refused(
            f"there is no program {first!r} here, and nothing in the project says what brings it",
            f"did you mean {near}?" if near else "--with PACKAGE names the Python package that it comes with",
        )


def _entry(words: tuple[str, ...]) -> _Entry:
    first, rest = words[0], list(words[1:])
    if _is_path(first):
        return _Entry(first)
    if first in _LAUNCHERS:
        return _Entry(next((word for word in rest if word.endswith(".py")), None))
    if not _PYTHON.fullmatch(first) and first not in _SHELLS:
        return _Entry()
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option == "-m" and first not in _SHELLS:
            return _Entry(module=rest[0] if rest else None)
        if option in ("-c", "-s", "-"):
            return _Entry()
        if option in _WITH_VALUE and rest:
            rest.pop(0)
    return _Entry(rest[0] if rest else None)


def _is_path(word: str) -> bool:
    return word.endswith((".py", NOTEBOOK)) or "/" in word or (os.name == "nt" and "\\" in word)


def _check_file(typed: str, job: JobSpec, found: Tree) -> None:
    name, top = repr(typed), found.source.name
    if Path(typed).is_absolute():
        raise _refused(f"{name} is a path of this computer", "name it relative to the current folder")
    path = posixpath.normpath(posixpath.join(top, job.cwd, typed.replace("\\", "/") if os.name == "nt" else typed))
    if not path.startswith(f"{top}/"):
        raise _refused(
            f"{name} lies outside {found.source}, the folder that is sent",
            "cd to a folder above both, or mark one as the project: cloudtrain init writes its cloudtrain.toml",
        )
    if path in found.files:
        if path.endswith(".py"):
            _check_python(found.root / path, name)
        return
    here = found.root / path
    if here.is_dir():
        raise _refused(f"{name} is a folder", "name the file in it that is to run")
    if here.exists():
        rules = [one.rule for one in found.skipped if one.path in (path, *(f"{up}/" for up in _above(path)))]
        why = f" ({rules[0]})" if rules else ""
        raise _refused(f"{name} is not sent{why}", f"a line !{path.partition('/')[2]} in .cloudtrainignore sends it")
    beside = [other.rpartition("/")[2] for other in found.files if posixpath.dirname(other) == posixpath.dirname(path)]
    raise _refused(f"there is no file {name}", meant(path.rpartition("/")[2], beside, "check the name and the folder"))


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts))]


def _check_python(file: Path, name: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        at = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        version = ".".join(map(str, sys.version_info[:2]))
        raise _refused(
            f"{name} is not Python{at}: {getattr(error, 'msg', error)} (read by Python {version})",
            "correct it; what needs a newer Python starts from a script: -- bash run.sh",
        ) from error
    except OSError as error:
        raise _refused(f"{name} cannot be read: {error.strerror}", "check the file") from error


def _check_module(module: str, job: JobSpec, found: Tree, *, declared: bool) -> None:
    first, path = module.partition(".")[0], module.replace(".", "/")
    for place in dict.fromkeys((job.cwd, posixpath.join(job.cwd, "src"), "src")):
        below = posixpath.normpath(posixpath.join(found.source.name, place))
        names = [name[len(below) + 1 :] for name in found.files if name.startswith(f"{below}/{first}")]
        if any(name == f"{first}.py" or name.startswith(f"{first}/") for name in names):
            if f"{path}.py" in names or any(name.startswith(f"{path}/") and name.endswith(".py") for name in names):
                return
            raise _refused(f"there is no module {module!r} in {found.source / place}", "check the name")
    there = first in sys.stdlib_module_names or first == "torch" or declared
    if not there and importlib.util.find_spec(first) is None:
        raise _refused(
            f"there is no module {module!r} in {found.source / job.cwd}, nor is it installed here",
            f"check the name, or --with {first} if it is a package",
        )


def _refused(message: str, hint: str) -> UsageError:
    return UsageError(message, hint=hint, consequence="nothing was started", code="no_program")

"""What a project asks for: its packages, found in the files that projects have for that. Nothing of it is run."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from cloudtrain.core.errors import UsageError
from cloudtrain.core.spec import JobSpec
from cloudtrain.source.command import NOTEBOOK_PACKAGES

HOST = "host"
UV_LOCK, PYPROJECT, REQUIREMENTS = "uv.lock", "pyproject.toml", "requirements.txt"
_CONDA = ("environment.yml", "environment.yaml")
# The order in which they are looked for in a folder; a Dockerfile counts where there is none of them.
_FOUND = (UV_LOCK, REQUIREMENTS, PYPROJECT, *_CONDA)
_CONDA_LOCK, _DOCKERFILE = "conda-lock.yml", "Dockerfile"
_NO_LOCK = f"{_CONDA_LOCK} asks for a conda environment of its own kind, which cloudtrain does not make"
_IMAGE = re.compile(r"[A-Za-z0-9][\w.:/@-]{0,250}", re.ASCII)
_NAMES_OTHERS = re.compile(r"(?m)^[ \t]*(?:-r|--requirement|-c|--constraint)[ \t=]+(\S+)")
_EDITABLE = re.compile(r"(?m)^[ \t]*(?:-e|--editable)[ \t=]|^[ \t]*(?:\.{0,2}/|\.[ \t]*$|file:)|@[ \t]?file:")
_LOCAL = "it names a project on this computer"
_DYNAMIC = "its dependencies are dynamic: a program of the project makes them"
_MOST_FILES, _MOST_BYTES = 50, 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a program needs beside Python.

    Attributes:
        source: where that stands, in words: "uv.lock", "train.py", "requirements.txt and --with".
        folder: where uv is to look.
        lock: a lock of uv's, of a project or of a script; else `files` are resolved.
        files: requirements, a pyproject.toml or a script with inline metadata: names below `folder`.
        packages: further ones, as pip takes them.
        requires: which Python it takes, ">=3.11"; "": any.
        direct: what is asked for by name, with its versions.
        options: it is asked for with more than names, such as another index.
        texts: all that decides the answer: name below `folder` -> text; of what is not below it the whole path.
        runs_code: why a program of the project would have to run to resolve it, in words; "": none would.
        script: of a lock, the script that it is of.
        conda: name of a file of conda's, which is resolved on the machine; "": none.
        dockerfile: name below `folder`, what it may copy, of a Dockerfile; image: what docker is to pull; "": none.
    """

    source: str
    folder: Path
    lock: Path | None = None
    files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    requires: str = ""
    direct: tuple[str, ...] = ()
    options: bool = False
    texts: Mapping[str, str] = field(default_factory=dict)
    runs_code: str = ""
    script: Path | None = None
    conda: str = ""
    dockerfile: str = ""
    image: str = ""

    @property
    def container(self) -> bool:
        """Whether the program runs in a container."""
        return bool(self.dockerfile or self.image)

    def sent(self) -> dict[str, str]:
        """Those of `texts` that can lie on another machine as they lie here."""
        return {name: text for name, text in self.texts.items() if not Path(name).is_absolute()}


def look(job: JobSpec) -> Asked | None:
    """What the project of `job` asks for; None: nothing, or to take the machine's Python as it is.

    Raises:
        UsageError: it is not readable, names nothing that is there, or asks for what cannot be made.
    """
    if job.environment == HOST:
        return _with(None, job) if job.packages else None
    if job.environment is not None:
        asked = _with(_named(job, job.environment), job)
        if asked and asked.container and not job.command:
            raise UsageError(
                "a container runs a command of yours, and none was given",
                hint="cloudtrain run ... -- python train.py",
                code="requirements",
            )
        return asked
    if not job.command:
        source = Path(job.source)
        # The shipped job's own, or the folder's.
        named = (source / "job" / REQUIREMENTS, source / REQUIREMENTS)
        return _with(next((_requirements(path) for path in named if path.is_file()), None), job)
    script = _script_of(job)
    if script is not None and (found := _of_script(script)) is not None:
        return _with(found, job)
    return _with(_found(job), job)


def check(asked: Asked) -> None:
    """It can be resolved for another machine, on which its project runs alone.

    Raises:
        UsageError: not without running a program of the project on this computer.
    """
    if asked.runs_code:
        raise UsageError(
            f"{asked.source} cannot be resolved without running a program of the project here: {asked.runs_code}",
            hint="uv lock in the project makes a lock, which says all; or name the packages alone: the project's own"
            " are found where its files are",
            code="requirements",
        )


def imports(job: JobSpec) -> str | None:
    """The folder of the project, below its top, that an installation of it would import from: it is not installed,
    since the next run sends other files."""
    top = Path(job.source)
    installs = any((top / name).is_file() for name in (PYPROJECT, "setup.py"))
    return "src" if job.command and installs and (top / "src").is_dir() else None


def suits(version: str, requires: str) -> bool:
    """Whether a Python of `version` ("3.12") is one that `requires` (">=3.11, <3.14") takes, as far as its first two
    numbers tell."""
    have = _numbers(version)
    for operator, text in re.findall(r"(===|==|~=|!=|<=|>=|<|>)\s*(\d+(?:\.\d+)*)", requires):
        given, exact = _numbers(text), text.count(".") < 2
        mine = have[: len(given)]
        holds = {
            "==": mine == given,
            "===": mine == given,
            "!=": mine != given or not exact,
            "~=": have >= given and have[:1] == given[:1] if exact else mine == given,
            ">=": have >= given,
            ">": have > given or (not exact and have == given),
            "<=": have <= given,
            "<": have < given or (not exact and have == given),
        }[operator]
        if not holds:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def folders(job: JobSpec) -> Iterator[Path]:
    """From where the command runs up to the top of what is sent."""
    top = Path(job.source)
    folder = top / job.cwd
    yield folder
    while folder != top and top in folder.parents:
        folder = folder.parent
        yield folder


def _found(job: JobSpec) -> Asked | None:
    for folder in folders(job):
        for name in _FOUND:
            if (folder / name).is_file() and (asked := _of_file(folder / name)) is not None:
                return asked
        if (folder / _CONDA_LOCK).is_file():
            raise cannot(_NO_LOCK)
    found = next((folder for folder in folders(job) if (folder / _DOCKERFILE).is_file()), None)
    return None if found is None else Asked(source=_DOCKERFILE, folder=found, dockerfile=_DOCKERFILE)


def _named(job: JobSpec, name: str) -> Asked:
    """What the setting `environment` names."""
    if image := re.fullmatch(r"image +(\S.*)", name):
        if not _IMAGE.fullmatch(image[1]):
            hint = 'env = "image pytorch/pytorch:2.9.1-cuda12.8-cudnn9-runtime"'
            raise UsageError(f"{image[1]!r} is no name of an image", hint=hint, code="requirements")
        return Asked(source=f"image {image[1]}", folder=Path(job.source), image=image[1])
    name = _DOCKERFILE if name == _DOCKERFILE.lower() else name
    folder = next((folder for folder in folders(job) if (folder / name).is_file()), None)
    if folder is None:
        raise UsageError(
            f"there is no {name} in the project {job.source}",
            hint="env: uv.lock, requirements.txt, pyproject.toml, environment.yml, dockerfile, image NAME, or host to"
            " take the machine's Python as it is",
            code="requirements",
        )
    path = folder / name
    if _DOCKERFILE in path.name:
        return Asked(source=name, folder=folder, dockerfile=name)
    if path.name == _CONDA_LOCK:
        raise cannot(_NO_LOCK)
    asked = _of_file(path)
    if asked is None:
        raise UsageError(f"{name} names no packages", hint="env: host takes what is there", code="requirements")
    return asked


def cannot(what: str, detail: str | None = None) -> UsageError:
    """A refusal of what the project asks for, with the ways that lead on."""
    return UsageError(
        what,
        hint='put the packages in requirements.txt or uv.lock; or env = "host" below [job] takes the machine\'s Python'
        " as it is",
        detail=detail,
        code="requirements",
    )


def _with(asked: Asked | None, job: JobSpec) -> Asked | None:
    """The same, with the packages of `--with`."""
    if not job.packages:
        return asked
    if asked and (asked.conda or asked.container):
        more = [name for name in job.packages if name not in NOTEBOOK_PACKAGES]
        if not more:
            return asked  # It has what runs a notebook, or the run says what it lacks.
        raise UsageError(
            f"--with does not go together with {asked.source}, which names all packages",
            hint=f"add {', '.join(more)} to {asked.source}",
            code="requirements",
        )
    base = asked or Asked(source="", folder=Path(job.source))
    return replace(
        base,
        source=" and ".join(filter(None, [base.source, "--with"])),
        packages=job.packages,
        direct=(*base.direct, *job.packages),
        runs_code=base.runs_code or (_LOCAL if _EDITABLE.search("\n".join(job.packages)) else ""),
    )


def _of_file(path: Path) -> Asked | None:
    if path.name == UV_LOCK:
        return _of_lock(path)
    if path.suffix in (".yml", ".yaml"):
        return _of_conda(path)
    return _of_pyproject(path) if path.name == PYPROJECT else _requirements(path)


def _of_lock(path: Path) -> Asked:
    project = path.parent / PYPROJECT
    own, text = _read(project) if project.is_file() else "", _read(path)
    table = _parsed(own, project).get("project") or {}
    # All that it says of itself stands before its packages, of which it may have many.
    locked = _parsed(text.partition("[[package]]")[0], path)
    return Asked(
        source=UV_LOCK,
        folder=path.parent,
        lock=path,
        requires=_python_of(path.parent, str(locked.get("requires-python") or "")),
        direct=_texts(table, "dependencies"),
        texts={PYPROJECT: own, UV_LOCK: text},
    )


def _of_conda(path: Path) -> Asked:
    """A file of conda's, with the requirements for pip that it may name."""
    text = _read(path)
    named = [path.parent / name for name in re.findall(r"(?m)^[ \t]*-[ \t](?:-r|--requirement)[ \t=]+(\S+)", text)]
    texts = {_below(one, path.parent): _read(one) for one in named if one.is_file()}
    return Asked(source=path.name, folder=path.parent, conda=path.name, texts={path.name: text, **texts})


def _of_pyproject(path: Path) -> Asked | None:
    whole = _toml(path)
    table = whole.get("project")
    if not isinstance(table, dict):
        return None
    dynamic = "dependencies" in _texts(table, "dynamic")
    direct = _texts(table, "dependencies")
    if not direct and not dynamic:
        return None
    tool = whole.get("tool")
    uv = tool.get("uv") if isinstance(tool, dict) else None
    local = isinstance(uv, dict) and re.search(r"'(?:path|workspace)'", str(uv.get("sources"))) is not None
    return Asked(
        source=PYPROJECT,
        folder=path.parent,
        files=(path.name,),
        requires=_python_of(path.parent, str(table.get("requires-python") or "")),
        direct=direct,
        texts={path.name: _read(path)},
        runs_code=_DYNAMIC if dynamic else _LOCAL if local else "",
    )


def _requirements(path: Path) -> Asked | None:
    read: dict[Path, str] = {}
    pending = [path]
    while pending and len(read) < _MOST_FILES:
        one = pending.pop()
        if one not in read and one.is_file():
            read[one] = _read(one)
            pending += [one.parent / name for name in _NAMES_OTHERS.findall(read[one]) if "://" not in name]
    lines = [line.strip() for text in read.values() for line in text.splitlines()]
    options = [line for line in lines if line.startswith("-") and not _NAMES_OTHERS.match(line)]
    direct = tuple(re.split(r"\s#|\s--|;", line, maxsplit=1)[0].strip() for line in lines if re.match(r"[^#-]", line))
    if not direct and not options:
        return None
    return Asked(
        source=path.name,
        folder=path.parent,
        files=(path.name,),
        requires=_python_of(path.parent, ""),
        direct=direct,
        options=bool(options),
        texts={_below(one, path.parent): text for one, text in read.items()},
        runs_code=_LOCAL if any(_EDITABLE.search(text) for text in read.values()) else "",
    )


def _below(path: Path, folder: Path) -> str:
    whole = Path(os.path.normpath(path))
    return (whole.relative_to(folder) if whole.is_relative_to(folder) else whole).as_posix()


def _of_script(path: Path) -> Asked | None:
    """The inline metadata of a script (PEP 723), which stands for itself: the project around it does not count."""
    lines = _lines_of_metadata(path)
    if not lines:
        return None
    table = _parsed("\n".join(line[2:] for line in lines[1:-1]), path)
    lock = path.with_name(f"{path.name}.lock")
    return Asked(
        source=path.name,
        folder=path.parent,
        lock=lock if lock.is_file() else None,
        files=(path.name,),
        script=path,
        requires=str(table.get("requires-python") or ""),
        direct=_texts(table, "dependencies"),
        texts={path.name: "\n".join([*lines, ""]), **({lock.name: _read(lock)} if lock.is_file() else {})},
    )


def _lines_of_metadata(path: Path) -> list[str]:
    """The one block `# /// script` of a Python file with its first and last line; else none."""
    try:
        with path.open("rb") as file:
            lines = file.read(_MOST_BYTES).decode("utf-8", "replace").splitlines()
    except OSError as error:
        raise _unreadable(path, error) from error
    begins = [number for number, line in enumerate(lines) if line == "# /// script"]
    if len(begins) != 1:
        return []
    block = list(takewhile(lambda line: line == "#" or line.startswith("# "), lines[begins[0] :]))
    ends = [number for number, line in enumerate(block) if line == "# ///"]
    return block[: ends[-1] + 1] if ends else []


def _script_of(job: JobSpec) -> Path | None:
    """The Python file that the command runs."""
    top = Path(job.source)
    paths = (top / job.cwd / word for word in job.command if word.endswith(".py") and not word.startswith("-"))
    return next((path for path in paths if path.is_file()), None)


def _python_of(folder: Path, requires: str) -> str:
    """What a `.python-version` beside it says, else `requires`."""
    path = folder / ".python-version"
    if path.is_file() and (named := re.match(r"(?:cpython[-@])?(\d+\.\d+)", _read(path).strip())):
        return f"=={named[1]}.*"
    return requires


def _texts(table: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = table.get(name)
    return tuple(value for value in values if isinstance(value, str)) if isinstance(values, list) else ()


def _toml(path: Path) -> dict[str, Any]:
    return _parsed(_read(path), path)


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _unreadable(path, error) from error


def _read(path: Path) -> str:
    most = _MOST_BYTES * (8 if path.suffix == ".lock" else 1)
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise ValueError(f"it has more than {most // 2**20} MiB")
        return data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UsageError:
    return UsageError(f"cannot read {path}: {error}", hint="see what is wrong with that file", code="requirements")

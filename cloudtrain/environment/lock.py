"""The exact packages for what a project asks for: resolved here, before anything is launched.

A lock is a pylock.toml (PEP 751): it names each file by URL and sha256, whichever index it is of, and holds as well for
what is exported of a uv.lock. A resolution is good for a day, so that neither the plan nor the next run waits again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError
from cloudtrain.environment import failures, uv
from cloudtrain.environment.asked import Asked

KEPT = ("torch", "torchvision", "torchaudio")
"""What is built for each other and for the driver's CUDA: taken from the machine where it has them."""

# What a torch brings along and nothing else needs.
_OF_TORCH = re.compile(r"triton|pytorch-triton.*|nvidia-(?!ml-py|dali|modelopt).*|cuda-(?:bindings|pathfinder|toolkit)")
_BLOCK = "[[packages]]\n"
_ELSEWHERE = re.compile(r"(?:sys_platform|platform_system|os_name) == '(?:win32|darwin|Windows|Darwin|nt)'")
# Variables that may decide what uv resolves to.
_SETS = re.compile(r"UV_(?!CACHE_DIR|HTTP_|CONCURRENT)|PIP_INDEX_URL")
_PINS, _WITH = "cloudtrain-pins.txt", "cloudtrain-with.txt"
_GOOD_S = 86400.0
_FORMAT = ("--format", "pylock.toml", "--no-header")


@dataclass(frozen=True)
class Lock:
    """Exact packages.

    Attributes:
        text: a pylock.toml, without what is a folder of the project.
        python: the version that it is for, "3.12".
    """

    text: str
    python: str

    @cached_property
    def versions(self) -> Mapping[str, str]:
        """Of each package its version; of those of another system that alone which is not."""
        found = {}
        for block in self._blocks():
            if not _ELSEWHERE.search(_field(block, "marker")):
                found[_field(block, "name")] = _field(block, "version")
        return found

    def without_torch(self, have: Mapping[str, str]) -> Lock:
        """The same without what the machine has of torch: `have` is name -> version of its KEPT ones."""
        kept = [
            block
            for block in self._blocks()
            if _field(block, "name") not in have and not _OF_TORCH.fullmatch(_field(block, "name"))
        ]
        return replace(self, text=self._with(kept))

    def allows(self, have: Mapping[str, str]) -> bool:
        """Whether the machine's `have` are what is locked; a build of CUDA counts where the lock names one."""
        return all(
            name not in self.versions or self.versions[name] in (version, version.partition("+")[0])
            for name, version in have.items()
        )

    def and_more(self, other: Lock) -> Lock:
        """The same, with those of `other` that it has not."""
        more = [block for block in other._blocks() if _field(block, "name") not in self.versions]
        return replace(self, text=self._with([*self._blocks(), *more]))

    def _blocks(self) -> list[str]:
        return self.text.split(_BLOCK)[1:]

    def _with(self, blocks: list[str]) -> str:
        return _BLOCK.join([self.text.split(_BLOCK)[0], *blocks])


def _field(block: str, name: str) -> str:
    found = re.search(rf'^{name} = "(.*)"$', block, re.MULTILINE)
    return found[1] if found else ""


def _locked(text: str, python: str) -> Lock:
    lock = Lock(text, python)
    # The project itself and others on this computer: they are sent with its files.
    return replace(lock, text=lock._with([one for one in lock._blocks() if "\ndirectory = " not in one]))


@dataclass(frozen=True, slots=True)
class Question:
    """What uv is asked to resolve: its arguments, of which the names are of files below the project's folder or of
    `beside`, which are made for it (name -> text)."""

    argv: tuple[str, ...]
    asked: Asked
    beside: Mapping[str, str]


Ask = Callable[[Question], tuple[int, str, str]]
"""Has uv answer: its exit code, a pylock.toml, and its words."""


def ask_here(question: Question, *, builds: bool = False) -> tuple[int, str, str]:
    """The uv of this computer answers.

    Args:
        builds: packages that come as source alone, and projects on this computer, may run to tell what they need.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, text in question.beside.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        argv = [str(Path(folder, word)) if word in question.beside else word for word in question.argv]
        done = uv.run([*argv, *([] if builds else ["--no-build"])], folder=question.asked.folder)
    return done.returncode, done.stdout, done.stderr


def resolve(
    asked: Asked, python: str, platform: str, have: Mapping[str, str], ask: Ask = ask_here
) -> tuple[Lock, bool]:
    """The packages for a Python and a platform, and whether the machine's torch is among what they go with.

    Args:
        python: "3.12".
        platform: as uv calls it: "x86_64-manylinux_2_34".
        have: name -> version of those of `KEPT` that the machine has.
        ask: who resolves.

    Raises:
        UsageError: nothing fits, or it cannot be found out; the detail is uv's.
    """
    if asked.lock is not None:
        lock = _exported(asked, python, platform, ask)
        return lock, "torch" in have and lock.allows(have)
    if have:
        try:
            pins = [f"{name}=={version.partition('+')[0]}" for name, version in have.items()]
            return _compiled(asked, python, platform, pins, ask), "torch" in have
        except UsageError as error:
            if error.code != "requirements":
                raise
    return _compiled(asked, python, platform, [], ask), False


def _exported(asked: Asked, python: str, platform: str, ask: Ask) -> Lock:
    of = ["--script", str(asked.script)] if asked.script else ["--no-dev", "--no-emit-local"]
    done = uv.run(["export", "--frozen", *of, *_FORMAT], folder=asked.folder)
    if done.returncode:
        raise failures.unresolved(asked.source, done.stderr)
    lock = _locked(done.stdout, python)
    if not asked.packages:
        return lock
    pins = [f"{name}=={version}" for name, version in lock.versions.items() if version]
    more = replace(asked, lock=None, files=())
    return lock.and_more(_compiled(more, python, platform, pins, ask))


def _compiled(asked: Asked, python: str, platform: str, pins: list[str], ask: Ask) -> Lock:
    kept = _kept(asked, python, platform, pins)
    if (text := _still_good(kept)) is not None:
        return Lock(text, python)
    beside = {_PINS: "\n".join(pins), **({_WITH: "\n".join(asked.packages)} if asked.packages else {})}
    argv = ["pip", "compile", *asked.files, *([_WITH] if asked.packages else []), "--constraint", _PINS]
    argv += [*_FORMAT, "--python-version", python, "--python-platform", platform]
    code, told, words = ask(Question(tuple(argv), asked, beside))
    if code:
        raise failures.unresolved(asked.source, words)
    lock = _locked(told, python)
    kept.parent.mkdir(parents=True, exist_ok=True)
    disk.write_durably(kept, lock.text.encode())
    return lock


def _kept(asked: Asked, python: str, platform: str, pins: list[str]) -> Path:
    """Where the resolution of all this is kept."""
    index = {name: value for name, value in os.environ.items() if _SETS.match(name)}
    decides = [
        dict(asked.texts),
        asked.files,
        asked.packages,
        python,
        platform,
        sorted(pins),
        index,
        uv.VERSION,
        str(asked.folder),
    ]
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    return disk.cache_dir() / "locks" / f"{digest[:32]}.toml"


def _still_good(kept: Path) -> str | None:
    try:
        for path in kept.parent.glob("*.toml"):
            if time.time() - path.stat().st_mtime > _GOOD_S:
                path.unlink()
        return kept.read_text(encoding="utf-8")
    except OSError:
        return None

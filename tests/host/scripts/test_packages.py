"""What the scripts install is locked: each package by version and hash, and within the ranges of pyproject.toml."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[3]
FILES = {"dev": ["dev", "local", "rehearse", "tensorboard"], "quickstart": ["local", "rehearse"]}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """`scripts/packages.py`, importable for one test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    yield importlib.import_module("packages")
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(ROOT / "scripts")):
            del sys.modules[name]


def read(name: str) -> str:
    return (ROOT / "scripts" / "locked" / f"{name}.txt").read_text(encoding="utf-8")


def versions(name: str) -> dict[str, set[str]]:
    """Name of a package -> its versions; several, where Pythons differ."""
    found: dict[str, set[str]] = {}
    for line in re.findall(r"^\S.*(?= \\$)", read(name), re.MULTILINE):
        one = Requirement(line)
        (pin,) = one.specifier
        assert pin.operator == "=="
        found.setdefault(canonicalize_name(one.name), set()).add(pin.version)
    return found


@pytest.mark.parametrize("name", FILES)
def test_what_the_project_asks_for_is_locked_within_its_range(name: str) -> None:
    asked = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"]]
    asked += [one for extra in FILES[name] for one in PROJECT["project"]["optional-dependencies"][extra]]
    locked = versions(name)
    for one in map(Requirement, asked):
        if one.name in ("cloudtrain", "torch", "torchvision"):
            continue
        chosen = locked.get(canonicalize_name(one.name), set())
        assert chosen and all(one.specifier.contains(version) for version in chosen), f"{one}: {chosen}; lock anew"


@pytest.mark.parametrize("name", FILES)
def test_every_line_is_a_version_or_a_hash_and_names_no_place(name: str) -> None:
    line = r"(?:[a-z0-9.-]+==[^\s;]+(?: ; [^:]+)? \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)+"
    assert re.fullmatch(line, read(name)) and "://" not in read(name)


def test_both_files_agree() -> None:
    small, large = versions("quickstart"), versions("dev")
    assert {name: large[name] for name in small} == small


def test_torch_is_pinned_and_left_to_the_index_of_the_user() -> None:
    assert not [name for name in versions("dev") if name.startswith(("torch", "nvidia-", "triton", "cuda-"))]
    extras = PROJECT["project"]["optional-dependencies"]
    assert [one for one in [*extras["local"], *extras["dev"]] if re.match(r"torch(vision)?==[\d.]+$", one)] != []


def told(monkeypatch: pytest.MonkeyPatch, packages: ModuleType, stdout: str, stderr: str = "") -> list[str]:
    """Have the tools say this; gives what they were asked."""
    asked: list[str] = []

    def with_tool(name: str, arguments: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
        asked.extend([name, *arguments])
        return subprocess.CompletedProcess(arguments, 0, stdout, stderr)

    monkeypatch.setattr(packages, "with_tool", with_tool)
    return asked


CLEAN: dict[str, Any] = {"name": "idna", "version": "3.20", "vulns": []}
WEAK = {**CLEAN, "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.21"]}]}
SKIPPED = {"name": "rich", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("every", "code", "says"),
    [
        ([CLEAN], 0, "known weaknesses: 0 in 1 packages"),
        ([CLEAN, SKIPPED], 3, "not audited: 1 of 2 packages"),
        ([WEAK, SKIPPED], 1, "idna 3.20: PYSEC-1, mended in 3.21"),
        (None, 3, "not audited: the index cannot be reached"),
    ],
)
def test_an_audit_that_learned_nothing_does_not_say_that_all_is_well(
    every: Any,
    code: int,
    says: str,
    packages: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = json.dumps({"dependencies": every}) if every is not None else ""
    told(monkeypatch, packages, answer, "x\nthe index cannot be reached")
    assert packages.main(["audit"]) == code
    assert says in capsys.readouterr().err


def test_a_lock_leaves_torch_out(packages: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hashed = "{}==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n"
    asked = told(monkeypatch, packages, "".join(map(hashed.format, ("idna", "nvidia-nccl", "torch", "triton"))))
    monkeypatch.setattr(packages, "locked", lambda extras: tmp_path / f"{extras[0]}.txt")
    assert packages.main(["lock"]) == 0
    written = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert written == dict.fromkeys(("dev.txt", "local.txt"), hashed.format("idna"))
    assert str(tmp_path / "dev.txt") in asked, "the second lock is held against the first"

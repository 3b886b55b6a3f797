"""The scripts that check and test: all stages run, the first failure is the exit code, nobody is surprised."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = ROOT / "scripts"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Import a module of `scripts/` by name, for one test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr(sys, "argv", [str(SCRIPTS / "test.py")])

    def one(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"scripts_{name}", SCRIPTS / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield one
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(SCRIPTS)):
            del sys.modules[name]


def test_all_stages_run_and_the_first_failure_counts(load, tmp_path, capfd, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    check = load("check")
    for name, code in (("fine", 0), ("bad", 7), ("worse", 9)):
        (tmp_path / f"{name}.py").write_text(f"import sys; print('this is {name}', *sys.argv[1:]); sys.exit({code})")
    monkeypatch.setattr(sys.modules["_terminal"], "ROOT", tmp_path)
    stages = {"one": ("fine", "-x"), "two": ("bad",), "three": ("worse",), "four": ("fine",)}
    assert check.run_stages(Path(sys.executable), stages, 75.0) == 7
    out, err = capfd.readouterr()
    assert out.splitlines() == ["this is fine -x", "this is bad", "this is worse", "this is fine"]
    table = err.splitlines()[-6:]
    assert [line.split()[:2] for line in table] == [
        ["install", "ok"], ["one", "ok"], ["two", "FAILED"], ["three", "FAILED"], ["four", "ok"], ["all", "FAILED"]
    ]  # fmt: skip
    assert all(line.endswith((" s", " min")) for line in table) and table[0].endswith("  1:15 min")


def test_a_word_runs_one_folder_of_the_tests_after_the_checks(load, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    test = load("test")
    ran, got = [], []
    monkeypatch.setattr(test._bootstrap, "prepare", lambda extras: Path("python"))
    monkeypatch.setattr(test, "get", got.append)
    monkeypatch.setattr(test, "run_stages", lambda python, stages, install_s: ran.append(stages) or 0)
    for arguments in (["unit", "-k", "docs"], ["tests/host/test_lazy.py", "-x"], []):
        assert test.main(arguments) == 0
    assert all(list(stages) == ["lint", "format", "types", "tests"] for stages in ran)
    assert [stages["tests"][len(test.TESTS) :] for stages in ran] == [
        ("tests/unit", "-k", "docs"), ("tests/host/test_lazy.py", "-x"), ()
    ]  # fmt: skip
    assert got == [*test.PROGRAMS, *test.PROGRAMS]  # the tests of tests/unit need none of them
    assert {path.name for path in (ROOT / "tests").iterdir() if any(path.rglob("test_*.py"))} == set(test.FOLDERS)


def test_the_checks_are_the_tools_of_the_project(load) -> None:  # type: ignore[no-untyped-def]
    check, test = load("check"), load("test")
    assert [command[0] for command in check.CHECKS.values()] == ["ruff", "ruff", "mypy"]
    assert test.TESTS[0] == "pytest"


def test_continuous_integration_runs_what_a_contributor_runs() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["exec python3 scripts/test.py"]


@pytest.mark.parametrize(
    ("root", "ci", "sudo", "rights"),
    [
        (True, False, False, []),
        (False, True, True, ["sudo", "-n"]),
        (False, True, False, None),
        (False, False, True, None),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="there is no root")
def test_a_server_is_installed_only_where_nobody_is_surprised(  # type: ignore[no-untyped-def]
    load, monkeypatch, tmp_path, root: bool, ci: bool, sudo: bool, rights: list[str] | None
) -> None:
    test = load("test")
    if sudo:
        (tmp_path / "sudo").write_text("#!/bin/sh\nexit 0\n")
        (tmp_path / "sudo").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 0 if root else 1000)
    monkeypatch.delenv("CI", raising=False)
    if ci:
        monkeypatch.setenv("CI", "true")
    assert test._administrator() == rights


@pytest.mark.skipif(sys.platform == "win32", reason="the programs are scripts of a shell")
def test_a_program_that_is_missing_is_installed_once_or_named(  # type: ignore[no-untyped-def]
    load, monkeypatch, tmp_path, capfd
) -> None:
    test = load("test")
    program = test.Program(("nowhere-browser",), "nowhere", "the tests of nothing", (str(tmp_path / "places"),))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(test, "INSTALLERS", {"fake-get": (("update",), ("install", "-y"))})
    installer = tmp_path / "fake-get"
    installer.write_text(
        f"#!/bin/sh\necho $@ >> {tmp_path}/asked\n"
        f"[ $1 = update ] || {{ mkdir {tmp_path}/places; cp $0 {tmp_path}/places/nowhere-browser; }}\n"
    )
    installer.chmod(0o755)
    monkeypatch.setattr(test, "_administrator", lambda: None)
    test.get(program)
    assert "sudo fake-get install -y nowhere" in capfd.readouterr().err and not (tmp_path / "asked").exists()
    monkeypatch.setattr(test, "_administrator", list)
    test.get(program)
    test.get(program)
    assert (tmp_path / "asked").read_text().splitlines() == ["update", "install -y nowhere"]
    assert program.find() == str(tmp_path / "places" / "nowhere-browser")


def test_a_section_of_the_benchmarks_is_replaced_and_nothing_else(load, tmp_path) -> None:  # type: ignore[no-untyped-def]
    benchmarks = load("_benchmarks")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a: begin -->\nold\n<!-- a: end -->\nafter\n", encoding="utf-8")
    benchmarks.write_section("a", "new\n", page)
    assert page.read_text(encoding="utf-8") == "before\n<!-- a: begin -->\nnew\n<!-- a: end -->\nafter\n"
    with pytest.raises(ValueError, match="no section b"):
        benchmarks.write_section("b", "x", page)

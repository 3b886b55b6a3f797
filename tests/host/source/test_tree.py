"""What is sent of a folder of a repository: git's own verdict is the reference; and what git says of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtrain.core.errors import UsageError
from cloudtrain.source import repository, review
from cloudtrain.source.git import state
from cloudtrain.source.tree import scan
from tests.unit.source.test_tree import BACK, IGNORED, check_brought_back, fill, names, reason

GIT = shutil.which("git")
needs_git = pytest.mark.skipif(GIT is None, reason="git is not installed")


def git(folder: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    assert GIT is not None
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("GIT_")},
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.org",
    }
    done = subprocess.run([GIT, *arguments], cwd=folder, input=stdin, capture_output=True, env=environment, timeout=60)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


_NAMES = ["a", "b", "ab", "abc", "a b", "x.py", "x.pyz", "A", "a\nb", "#a", "!a", "a ", "[a]", "-"]
_PATHS = st.lists(st.sampled_from(_NAMES), min_size=1, max_size=4).map("/".join)
# Not among them: `a**/b`, where git goes against its own manual: it cuts the `a` off and takes the rest as `**/b`. The
# same holds for the `!` in `!!**/b`, a line that takes back what is called `!`.
_GLOBS = st.sampled_from(
    [
        *_NAMES,
        "*",
        "**",
        "***",
        "?",
        "*.py",
        "*.py[zo]",
        "[ab]",
        "[!a]",
        "[^a]",
        "[a-c]*",
        "a*",
        "*b",
        "a?",
        "a**b",
        "**b",
        "\\#a",
        "\\!a",
        "a\\ ",
        "a\\*",
        "[[:alpha:]]",
        "[[:digit:]]*",
        "\\[a\\]",
        "",
        "a  ",
        "??",
    ]
)
_LINES = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "", "", "!", "!!", "#"]),
    st.sampled_from(["", "", "/", "**/"]),
    st.lists(_GLOBS, min_size=1, max_size=3).map("/".join),
    st.sampled_from(["", "", "/", "/**", " ", "\r", "//", "/**/"]),
).filter(lambda line: "\n" not in line and not re.match(r"!!\*\*+/", line))
_IGNORE = st.lists(_LINES, min_size=1, max_size=5).map("\n".join)


def _plant(folder: Path, paths: set[str], ignores: dict[str, str]) -> None:
    for path in sorted(paths):
        target = folder / path
        if any(part.is_file() for part in target.parents) or target.exists():
            continue  # one path cannot be a file and a folder
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"")
    for where, text in ignores.items():
        if (folder / where).is_dir():
            (folder / where / ".gitignore").write_text(text, encoding="utf-8", newline="")


@needs_git
@pytest.mark.skipif(os.name == "nt", reason="names that Windows does not allow")
@settings(max_examples=60, deadline=None)
@given(
    paths=st.sets(_PATHS, min_size=3, max_size=14),
    top=_IGNORE,
    inner=st.dictionaries(st.sampled_from(["a", "b", "a/b", "ab"]), _IGNORE, max_size=2),
)
def test_gitignore_means_what_it_means_to_git(paths: set[str], top: str, inner: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "job"
        folder.mkdir()
        _plant(folder, paths, {"": top, **inner})
        git(folder, "init", "-q")
        every = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and ".git/" not in str(p)]
        asked = b"\0".join(p.encode() for p in every) + b"\0"
        ignored = git(folder, "check-ignore", "--stdin", "-z", "--no-index", stdin=asked).decode().split("\0")
        for path in (os.environ["PATH"], ""):
            with mock.patch.dict(os.environ, PATH=path):
                try:
                    sent = names(scan(folder, cache=None))
                except UsageError as error:
                    assert error.code == "empty_source" or (not path and "[[:" in top + "".join(inner.values()))
                    sent = set(every) - set(ignored) if error.code != "empty_source" else set()
                assert sent == set(every) - set(ignored)


@needs_git
def test_a_folder_inside_a_repository_obeys_the_rules_above_it(tmp_path: Path) -> None:
    repository = fill(
        tmp_path,
        {
            ".gitignore": "*.log\n/deep/job/data/\n!kept.log\ndeep/\n",
            "deep/.gitignore": "/job/big.bin\n",
            "deep/job/train.py": "1",
            "deep/job/a.log": "1",
            "deep/job/kept.log": "1",
            "deep/job/data/x": "1",
            "deep/job/big.bin": "1",
            "deep/job/private.txt": "1",
            "deep/job/sub/big.bin": "1",
        },
    )
    git(repository, "init", "-q")
    (repository / ".git" / "info").mkdir(exist_ok=True)
    (repository / ".git" / "info" / "exclude").write_text("private.txt\n")
    found = scan(repository / "deep" / "job", cache=None)
    # `deep/` is ignored as a whole, but the user named it: only what is below it is asked about.
    assert names(found) == {"train.py", "kept.log", "sub/big.bin"}
    assert {reason(found, f"job/{name}") for name in ("a.log", "big.bin", "private.txt", "data/")} == {"git-ignored"}


@needs_git
def test_git_state_names_commit_and_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(source: Path) -> str:
        return str(state(source, scan(source, cache=None).files))

    source = fill(tmp_path / "repository" / "job", {"a.py": "1"})
    assert state(source, {}) is None
    git(source.parent, "init", "-q")
    assert state(source, {}) is None
    git(source.parent, "add", ".")
    git(source.parent, "commit", "-q", "-m", "one")
    commit = git(source.parent, "rev-parse", "--short", "HEAD").decode().strip()
    assert said(source) == commit
    (source / "b\nc.py").write_text("2")
    assert said(source) == f"{commit} + 1 uncommitted file"
    (source / "a.py").write_text("3")
    fill(source.parent, {"elsewhere": "not below the folder", ".gitignore": "*.log", "job/a.log": "1"})
    assert said(source) == f"{commit} + 2 uncommitted files"
    monkeypatch.setenv("PATH", "")
    assert state(source, {}) is None
    assert state(tmp_path / "absent", {}) is None


@needs_git
def test_what_git_tracks_is_sent_though_a_rule_names_it(tmp_path: Path) -> None:
    committed = ["private/x", "labels.csv", "data/labels.csv", "runs/speedrun.sh", "venv/lib.py", ".env", "own.md"]
    source = fill(tmp_path / "job", dict.fromkeys(committed, "1"))
    fill(source, {".gitignore": "private/\n*.csv\n/data\n", ".cloudtrainignore": "*.md\n"})
    git(source, "init", "-q")
    git(source, "add", "-f", ".")
    more = ["private/y", "a.csv", "data/big.bin", "runs/brave-otter/run.json", "venv/more.py", "runs/y.sh", "a.py"]
    fill(source, dict.fromkeys(more, "1"))
    found = scan(source, cache=None)
    sent = {"private/x", "labels.csv", "data/labels.csv", "runs/speedrun.sh", "venv/lib.py", "a.py"}
    assert names(found) == sent | {".gitignore", ".cloudtrainignore"}
    assert reason(found, "job/.env").startswith("default: may hold secrets")
    assert reason(found, "job/runs/brave-otter/") == reason(found, "job/runs/y.sh") == "default: results of runs"
    assert reason(found, "job/data/big.bin") == reason(found, "job/private/y") == "git-ignored"


@needs_git
def test_excludes_of_a_worktree_and_of_the_user_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "home", {".config/git/ignore": "*.swp\n"})
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    main = fill(tmp_path / "main", {"a.py": "1", ".git/info/exclude": ""})
    git(main, "init", "-q")
    git(main, "add", ".")
    git(main, "commit", "-q", "-m", "one")
    git(main, "worktree", "add", "-q", str(tmp_path / "job"))
    (main / ".git" / "info" / "exclude").write_text("private.txt\n")
    source = fill(tmp_path / "job", {"private.txt": "1", "x.swp": "1", "new.py": "1"})
    found = scan(source, cache=None)
    assert names(found) == {"a.py", "new.py"} and not found.unasked
    git(source, "config", "core.excludesFile", str(fill(tmp_path, {"rules": "new.py\na.py\n"}) / "rules"))
    assert names(scan(source, cache=None)) == {"a.py", "x.swp"}


@needs_git
def test_files_of_repositories_within_are_sent_by_their_own_rules(tmp_path: Path) -> None:
    source = fill(tmp_path / "job", {"a.py": "1", ".gitignore": "ignored/\n"})
    git(source, "init", "-q")
    for name in ("library", "cloned", "cloned/deep", "new", "ignored"):
        fill(source / name, {"code.py": "1", "x.o": "1", "kept.o": "1", ".gitignore": "*.o\n"})
        git(source / name, "init", "-q")
        if name != "new":
            git(source / name, "add", "-f", "code.py", "kept.o")
            git(source / name, "commit", "-q", "-m", "one")
    git(source, "add", "library")  # as a submodule is
    sent = {f"{name}/{file}" for name in ("library", "cloned", "cloned/deep") for file in ("code.py", "kept.o")}
    sent |= {f"{name}/.gitignore" for name in ("library", "cloned", "cloned/deep", "new")} | {"new/code.py"}
    assert names(scan(source, cache=None)) == sent | {"a.py", ".gitignore"}
    # One that git cannot read: as the repository around it has it.
    (source / "cloned" / ".git" / "HEAD").unlink()
    assert sent - names(scan(source, cache=None)) == {"cloned/kept.o"}


@needs_git
@pytest.mark.parametrize("how", ["spoilt", "slow", "long", "absent"])
def test_without_an_answer_of_git_the_rules_hold_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    source = fill(tmp_path / "job", {"a.py": "1", "x.log": "1", ".gitignore": "*.log\n"})
    git(source, "init", "-q")
    if how == "spoilt":
        (source / ".git" / "HEAD").unlink()
    elif how == "long":
        monkeypatch.setattr(repository, "_MOST_BYTES", 10)
    else:
        monkeypatch.setenv("PATH", "")
    if how == "slow":
        if os.name == "nt":
            pytest.skip("a script of sh")
        program = fill(tmp_path / "bin", {"git": "#!/bin/sh\nexec /bin/sleep 30\n"}) / "git"
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent))
        monkeypatch.setattr(repository, "_LIMIT_S", 0.2)
    found = scan(source, cache=None)
    assert names(found) == {"a.py", ".gitignore"} and found.unasked
    assert any("git gave no answer" in said for said in review.warnings(found))


@needs_git
@pytest.mark.parametrize("place", ["job/.gitignore", "job/deep/.gitignore", ".gitignore", ".git/info/exclude"])
def test_git_passes_over_a_file_in_utf16_and_this_does_not(tmp_path: Path, place: str) -> None:
    fill(tmp_path, {"job/a.py": "1", "job/deep/private.txt": "1"})
    git(tmp_path, "init", "-q")
    (tmp_path / place).write_bytes("private.txt\r\n".encode("utf-16"))
    with pytest.raises(UsageError, match="UTF-16"):
        scan(tmp_path / "job", cache=None)


@needs_git
@pytest.mark.parametrize("line", BACK)
@pytest.mark.parametrize("rule", IGNORED)
def test_a_line_brings_back_what_git_ignores(tmp_path: Path, line: str, rule: str) -> None:
    git(tmp_path, "init", "-q")
    check_brought_back(tmp_path, line, rule)


@pytest.mark.parametrize("with_git", [pytest.param(True, marks=needs_git), False])
def test_rules_mean_the_same_with_git_and_without(
    tmp_path: Path, with_git: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among them a folder that comes back, with all that is in it."""
    rules = "all/*\n!all/*/\n!all/**/*.py\nin/**\n!in/kept\n[a-z]key\nback/\n*.log\n"
    files = [
        "all/x",
        "all/sub/x",
        "all/sub/x.py",
        "in/kept",
        "in/x",
        "akey",
        "1key",
        "back/x",
        "back/x.secret",
        "x.log",
    ]
    source = fill(tmp_path / "job", dict.fromkeys(files, "1"))
    fill(source, {".gitignore": rules, ".cloudtrainignore": "!back/\n", "back/.gitignore": "*.secret\n"})
    if with_git:
        git(source, "init", "-q")
    else:
        monkeypatch.setenv("PATH", "")
    sent = {"all/sub/x", "all/sub/x.py", "in/kept", "1key", "back/x", "back/x.secret", "back/.gitignore", ".gitignore"}
    assert names(scan(source, cache=None)) == sent | {".cloudtrainignore"}

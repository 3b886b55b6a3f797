"""What is sent of a folder of a repository: git's own verdict is the reference; and what git says of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudtrain.core.errors import UsageError
from cloudtrain.source import ignore
from cloudtrain.source.git import state
from cloudtrain.source.tree import scan
from tests.unit.source.test_tree import fill, names, reason

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


_NAMES = ["a", "b", "ab", "abc", "a b", "x.py", "x.pyz", "A", "é", "a\nb", "#a", "!a", "a ", "[a]", "-"]
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
        "a\\",
        "[a",
        "[z-a]",
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
@settings(max_examples=120, deadline=None)
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
        expected = set(every) - set(ignored)
        try:
            sent = names(scan(folder, cache=None))
        except UsageError as error:
            assert error.code == "empty_source"
            sent = set()
        assert sent == expected


@needs_git
@pytest.mark.parametrize(
    "line",
    [
        "[a/b]*",
        "[a/[a-c]*",
        "x/[a/[[:alpha:]]",
        "[+-/]",
        "[/-9]",
        "[!/]",
        "[]/a]",
        "[a/b",
        "*/[a/",
        "[a/[z-a]",
        "[1z-a]",
    ],
)
def test_a_set_ends_behind_a_slash_as_it_does_for_git(tmp_path: Path, line: str) -> None:
    files = dict.fromkeys(["a/b", "b", "ab", "c", "]", "]b", "1", "-", ".x", "+", "x/a", "x/b", "z/[a/c"], "")
    fill(tmp_path, {**files, ".gitignore": line})
    git(tmp_path, "init", "-q")
    every = [*files, ".gitignore"]
    asked = b"\0".join(path.encode() for path in every)
    ignored = git(tmp_path, "check-ignore", "--stdin", "-z", "--no-index", stdin=asked).decode().split("\0")
    assert names(scan(tmp_path, cache=None)) == set(every) - set(ignored)


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
    assert reason(found, "job/a.log") == "../../.gitignore:1: *.log"
    assert reason(found, "job/big.bin") == "../.gitignore:1: /job/big.bin"
    assert reason(found, "job/private.txt") == ".git/info/exclude:1: private.txt"


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
@pytest.mark.parametrize(
    "line",
    [
        "[a/b]*",
        "[a/[a-c]*",
        "x/[a/[[:alpha:]]",
        "[+-/]",
        "[/-9]",
        "[!/]",
        "[]/a]",
        "[a/b",
        "*/[a/",
        "[a/[z-a]",
        "[1z-a]",
        "[a\\-c]",
        "[b\\]]",
        "[]-a]",
        "[a-[:digit:]]",
        "[[:nothing:]]",
        "[[:alpha:]",
        *(f"[{negated}[:{name}:]]" for name in ignore._CLASSES for negated in ("", "!")),
    ],
)
def test_a_set_means_what_it_means_to_git(tmp_path: Path, line: str) -> None:
    files = dict.fromkeys(["a/b", "b", "ab", "c", "]", "]b", "1", "-", ".x", "+", "x/a", "x/b", "z/[a/c"], "")
    if os.name != "nt":
        files |= dict.fromkeys((f"all/{chr(code)}" for code in range(1, 128) if chr(code) not in "./"), "")
    fill(tmp_path, {**files, ".gitignore": line})
    git(tmp_path, "init", "-q")
    every = [*files, ".gitignore"]
    asked = b"\0".join(path.encode() for path in every)
    ignored = git(tmp_path, "check-ignore", "--stdin", "-z", "--no-index", stdin=asked).decode().split("\0")
    assert names(scan(tmp_path, cache=None)) == set(every) - set(ignored)


@needs_git
def test_what_git_tracks_stays_here_all_the_same_where_a_rule_says_so(tmp_path: Path) -> None:
    source = fill(tmp_path / "job", {"a.py": "1", "private/x": "1", "data/x": "1", ".gitignore": "private/\n"})
    git(source, "init", "-q")
    git(source, "add", "-f", ".")
    git(source, "config", "core.excludesFile", str(fill(tmp_path, {"rules": "a.py\n"}) / "rules"))
    assert names(scan(source, cache=None)) == {"a.py", "data/x", ".gitignore"}


@pytest.mark.parametrize("with_git", [pytest.param(True, marks=needs_git), False])
def test_rules_mean_the_same_with_git_and_without(
    tmp_path: Path, with_git: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among them what the library pathspec reads differently, and a folder that comes back with rules of its own."""
    rules = "all/*\n!all/*/\n!all/**/*.py\nin/**\n!in/kept\n[[:alpha:]]key\nback/\n*.log\n"
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
    sent = {"all/sub/x", "all/sub/x.py", "in/kept", "1key", "back/x", "back/.gitignore", ".gitignore"}
    assert names(scan(source, cache=None)) == sent | {".cloudtrainignore"}

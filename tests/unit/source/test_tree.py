"""What is sent of a folder: git's own verdict as the reference, secrets that stay, remembered hashes."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtrain.core.errors import ExitCode, UsageError
from cloudtrain.source import repository, review, tree
from cloudtrain.source.tree import FileEntry, Tree, digest_of, scan, tree_key


def fill(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    return folder


def names(found: Tree) -> set[str]:
    return {path.partition("/")[2] for path in found.files}


def reason(found: Tree, path: str) -> str:
    return next(skip.rule for skip in found.skipped if skip.path == path)


# --- cloudtrain's own file and the defaults -------------------------------------------------------


def test_own_ignore_file_brings_back_what_git_leaves_out(tmp_path: Path) -> None:
    source = fill(
        tmp_path / "job",
        {
            ".gitignore": "data/\n*.npz\n",
            ".cloudtrainignore": "!data/\n*.md\n!sub/x.npz\n",
            "train.py": "1",
            "data/train.bin": "1",
            "notes.md": "1",
            "y.npz": "1",
            "sub/x.npz": "1",
            "sub/.gitignore": "x.npz\n",
        },
    )
    found = scan(source, cache=None)
    assert names(found) == {
        ".gitignore",
        ".cloudtrainignore",
        "train.py",
        "data/train.bin",
        "sub/x.npz",
        "sub/.gitignore",
    }
    assert reason(found, "job/notes.md") == ".cloudtrainignore:2: *.md"


BACK = ["!data/x", "!data/x/", "!/data/x/train.bin", "!data/*/train.bin", "!data/**/train.bin", "!data/"]
IGNORED = ["data/", "*.bin", "/data/*", "data/x/train.bin"]


def check_brought_back(tmp_path: Path, line: str, rule: str) -> None:
    there = ["a.py", "data/x/train.bin", "data/x/.env", "data/y/big.bin", "other/train.bin"]
    source = fill(tmp_path / "job", {**dict.fromkeys(there, "1"), ".gitignore": rule, ".cloudtrainignore": line})
    sent = names(scan(source, cache=None))
    assert "data/x/train.bin" in sent and "data/x/.env" not in sent
    assert line == "!data/" or rule == "data/x/train.bin" or "data/y/big.bin" not in sent
    assert rule != "*.bin" or "other/train.bin" not in sent


@pytest.mark.parametrize("line", BACK)
@pytest.mark.parametrize("rule", IGNORED)
def test_a_line_brings_back_what_git_ignores_and_no_more(tmp_path: Path, line: str, rule: str) -> None:
    check_brought_back(tmp_path, line, rule)


def test_no_path_brings_back_what_lies_in_a_folder_that_cloudtrain_leaves_out(tmp_path: Path) -> None:
    files = {".cloudtrainignore": "!data/x\ndata/\n!.aws/config\n", "data/x": "1", ".aws/config": "1", "a.py": "1"}
    assert names(scan(fill(tmp_path / "job", files), cache=None)) == {".cloudtrainignore", "a.py"}


@pytest.mark.parametrize("name", ["a b.bin", "[a].bin", "#a", "!a", "a*?.bin", "a\\b", "[[:alpha:]]"])
@pytest.mark.skipif(os.name == "nt", reason="names that Windows does not allow")
def test_the_line_that_the_plan_names_does_it(tmp_path: Path, name: str) -> None:
    source = fill(tmp_path / "job", {"a.py": "1", f"data/{name}": "1", ".gitignore": "data/*\n"})
    (said,) = review.stays(scan(source, cache=None))
    (line,) = re.findall(r"\(a line (.*) in job/\.cloudtrainignore sends it\)", said)
    fill(source, {".cloudtrainignore": line})
    assert names(scan(source, cache=None)) == {"a.py", ".gitignore", ".cloudtrainignore", f"data/{name}"}


@pytest.mark.parametrize("line", ["[[:alpha:]]key", "[a\\-c]", "!x[a\\]]"])
def test_a_set_that_only_git_can_read_is_never_passed_over(tmp_path: Path, line: str) -> None:
    source = fill(tmp_path / "job", {"a.py": "1", ".gitignore": f"*.log\n{line}\n"})
    with pytest.raises(UsageError, match=r"\.gitignore:2 has a set that only git can read") as caught:
        scan(source, cache=None)
    assert caught.value.exit_code == ExitCode.USAGE and caught.value.hint


SECRETS = [
    ".env",
    ".env.local",
    ".ENV",
    "server.pem",
    "tls.key",
    "id_rsa",
    "id_ed25519.pub",
    ".aws/credentials",
    ".netrc",
]
SECRETS += [".ssh/config", "credentials.json", "My_accessKeys.csv", "kaggle.json", "_netrc", "sub/deep/.env.production"]


@pytest.mark.parametrize(
    "ignore_file", ["", "!*\n", "!*/\n!**\n!.*\n", "!*/config\n!.aws/*\n!*/*/x.js\n", "*\n!*.py\n!*/\n!*\n"]
)
@pytest.mark.parametrize("where", [".gitignore", ".cloudtrainignore"])
def test_no_wildcard_brings_a_secret_or_a_repository_back(tmp_path: Path, where: str, ignore_file: str) -> None:
    folders = [".git/config", ".venv/lib/x.py", "venv/x.py", "env/pyvenv.cfg", "env/lib.py", "__pycache__/x.pyc"]
    folders += [".ipynb_checkpoints/x", "node_modules/x/index.js", ".pytest_cache/x", ".mypy_cache/x", ".ruff_cache/x"]
    folders += ["runs/brave-otter/run.json"]
    source = fill(
        tmp_path / "job", {"train.py": "1", where: ignore_file, **dict.fromkeys([*SECRETS, *folders], "secret")}
    )
    found = scan(source, cache=None)
    assert names(found) <= {"train.py", where, "credentials.py"}
    assert "train.py" in names(found)
    assert all(skip.rule for skip in found.skipped)


def test_naming_a_default_lifts_it(tmp_path: Path) -> None:
    source = fill(
        tmp_path / "job",
        {".cloudtrainignore": "!.env.example\n!*.pem\n", "a.py": "1", ".env.example": "1", ".env": "1", "ca.pem": "1"},
    )
    found = scan(source, cache=None)
    assert names(found) == {".cloudtrainignore", "a.py", ".env.example", "ca.pem"}
    assert reason(found, "job/.env") == "default: may hold secrets (.env*)"


def test_code_with_telling_names_is_sent(tmp_path: Path) -> None:
    files = dict.fromkeys(
        ["credentials.py", "keys.py", "environment.py", "venv.py", "sub/runs/a.py", "env/a.py", "key"], "1"
    )
    assert names(scan(fill(tmp_path / "job", files), cache=None)) == set(files)


def test_the_runs_folder_stays_wherever_it_is(tmp_path: Path) -> None:
    source = fill(tmp_path / "job", {"a.py": "1", "results/x/out.bin": "1"})
    found = scan(source, cache=None, runs_dir=source / "results")
    assert names(found) == {"a.py"}
    assert reason(found, "job/results/") == "default: results of runs"


# --- links, odd names, bad folders ----------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_are_sent_as_content_only_within_what_is_sent(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("private")
    source = fill(tmp_path / "job", {"a.py": "1", ".env": "secret", "venv/lib/x.py": "1", "sub/b.py": "22"})
    (source / "same.py").symlink_to("sub/b.py")
    (source / "out.txt").symlink_to(outside)
    (source / "broken").symlink_to("nowhere")
    (source / "loop").symlink_to("loop")
    (source / "folder").symlink_to("sub")
    (source / "up").symlink_to("..")
    (source / "config.txt").symlink_to(".env")
    (source / "lib.txt").symlink_to("venv/lib/x.py")
    os.mkfifo(source / "pipe")
    found = scan(source, cache=None)
    assert names(found) == {"a.py", "sub/b.py", "same.py"}
    assert found.files["job/same.py"] == found.files["job/sub/b.py"]
    assert reason(found, "job/out.txt") == "a link out of the folder"
    assert reason(found, "job/up") == "a link out of the folder"
    assert reason(found, "job/broken") == reason(found, "job/loop") == "a link that leads nowhere"
    assert reason(found, "job/folder") == "a link to a folder"
    assert reason(found, "job/config.txt") == reason(found, "job/lib.txt") == "a link to what stays here"
    assert reason(found, "job/pipe") == "not a plain file"


@pytest.mark.skipif(os.name == "nt", reason="names that Windows does not allow")
@pytest.mark.parametrize(
    "folder", ["a b", "it's", 'q"q', "line\nbreak", "naïve 训练", "$HOME;`x`", "-rf", "not-an-identifier"]
)
def test_any_name_works(tmp_path: Path, folder: str) -> None:
    source = fill(tmp_path / folder, {"x y.py": "1", "a\nb/c'd\".py": "2", "é.txt": "3"})
    found = scan(source, cache=tmp_path / "cache")
    assert set(found.files) == {f"{folder}/x y.py", f"{folder}/a\nb/c'd\".py", f"{folder}/é.txt"}
    assert found.root / next(iter(found.files)) == source / "a\nb" / "c'd\".py"
    assert tree_key(source).isascii() and "/" not in tree_key(source)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such names")
def test_a_name_that_is_not_utf8_is_refused_unless_ignored(tmp_path: Path) -> None:
    source = fill(tmp_path / "job", {"a.py": "1"})
    Path(os.fsdecode(os.fsencode(source) + b"/caf\xe9.txt")).touch()
    with pytest.raises(UsageError, match="not valid UTF-8") as caught:
        scan(source, cache=None)
    assert caught.value.exit_code == ExitCode.USAGE
    caught.value.message.encode()  # can be printed
    (source / ".cloudtrainignore").write_text("*.txt\n")
    assert names(scan(source, cache=None)) == {"a.py", ".cloudtrainignore"}


@pytest.mark.parametrize("kind", ["absent", "file", "empty", "all ignored"])
def test_a_folder_with_nothing_to_send_is_a_clear_error(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "job"
    if kind == "file":
        source.write_text("x")
    elif kind != "absent":
        fill(source, {".gitignore": "*\n"} if kind == "all ignored" else {".env": "x"})
    with pytest.raises(UsageError) as caught:
        scan(source, cache=None)
    assert caught.value.consequence == "nothing was sent" and caught.value.hint


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fill(tmp_path / "job", {"a.py": "1", "b.py": "2"})
    if os.name != "nt" and os.geteuid() != 0:
        (source / "b.py").chmod(0)
    else:  # root reads everything
        real = Path.open

        def refuse(self: Path, *args: object, **kwargs: object) -> object:
            if self.name == "b.py":
                raise PermissionError(13, "Permission denied", str(self))
            return real(self, *args, **kwargs)  # type: ignore[call-overload]

        monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UsageError, match=r"cannot read .*b\.py: Permission denied"):
        scan(source, cache=None)


# --- digest, modes, memory ------------------------------------------------------------------------


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12),
        st.tuples(
            st.integers(0, 2**40), st.binary().map(lambda b: hashlib.sha256(b).hexdigest()), st.sampled_from([420, 493])
        ),
        max_size=8,
    ),
    st.randoms(),
)
def test_digest_is_the_contract_and_does_not_depend_on_order(
    files: dict[str, tuple[int, str, int]], random: object
) -> None:
    entries = {path: FileEntry(*entry) for path, entry in files.items()}
    lines = [f"{path}\0{size}\0{sha}\0{mode}\n".encode() for path, (size, sha, mode) in files.items()]
    lines.sort(key=lambda line: line.split(b"\0")[0])
    expected = hashlib.sha256(b"".join(lines)).hexdigest()
    shuffled = list(entries.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert digest_of(dict(shuffled)) == expected


@pytest.mark.skipif(os.name == "nt", reason="no such bit on Windows")
def test_only_the_right_to_run_counts(tmp_path: Path) -> None:
    source = fill(tmp_path / "job", {"a.py": "1", "run.sh": "2"})
    (source / "a.py").chmod(0o600)
    (source / "run.sh").chmod(0o700)
    found = scan(source, cache=None)
    assert (found.files["job/a.py"].mode, found.files["job/run.sh"].mode) == (0o644, 0o755)
    (source / "a.py").chmod(0o640)
    assert scan(source, cache=None).digest == found.digest


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read, and a clock at which no file is fresh."""
    read: list[str] = []
    real, clock = tree._hash, tree.time.time_ns

    def count(file: Path) -> tuple[str, int]:
        read.append(file.name)
        return real(file)

    monkeypatch.setattr(tree, "_hash", count)
    monkeypatch.setattr(tree.time, "time_ns", lambda: clock() + 2 * tree.RACY_NS)
    return read


def test_a_second_scan_of_2000_files_reads_none(tmp_path: Path, hashed: list[str]) -> None:
    source = fill(tmp_path / "job", {f"{i % 40}/{i}.py": str(i) for i in range(2000)})
    first = scan(source, cache=tmp_path / "cache")
    assert len(hashed) == 2000
    hashed.clear()
    second = scan(source, cache=tmp_path / "cache")
    assert hashed == [] and second.digest == first.digest and second.files == first.files
    (source / "3" / "3.py").write_text("x")
    (source / "4" / "4.py").unlink()
    third = scan(source, cache=tmp_path / "cache")
    assert hashed == ["3.py"] and len(third.files) == 1999 and third.digest != first.digest


def test_a_file_changed_without_a_trace_in_size_or_mtime_is_read(tmp_path: Path, hashed: list[str]) -> None:
    source = fill(tmp_path / "job", {"a.py": "1"})
    first = scan(source, cache=tmp_path / "cache")
    status = (source / "a.py").stat()
    (source / "a.py").write_text("2")
    os.utime(source / "a.py", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert scan(source, cache=tmp_path / "cache").digest != first.digest


def test_a_fresh_file_is_not_trusted_to_have_kept_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fill(tmp_path / "job", {"a.py": "1"})
    scan(source, cache=tmp_path / "cache")
    read: list[Path] = []
    real = tree._hash
    monkeypatch.setattr(tree, "_hash", lambda file: (read.append(file), real(file))[1])
    scan(source, cache=tmp_path / "cache")
    assert len(read) == 1


@pytest.mark.parametrize(
    "spoilt",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"v": 2}',
        b'{"v": 1, "files": []}',
        b'{"v":1,"files":{"job/a.py":[1]}}',
        b"[" * 99999,
    ],
)
def test_a_spoilt_cache_is_ignored(tmp_path: Path, spoilt: bytes, hashed: list[str]) -> None:
    source = fill(tmp_path / "job", {"a.py": "1"})
    cache = tmp_path / "cache"
    good = scan(source, cache=cache)
    (saved,) = (cache / "trees").iterdir()
    saved.write_bytes(spoilt)
    hashed.clear()
    assert scan(source, cache=cache).digest == good.digest and hashed == ["a.py"]
    assert scan(source, cache=cache).digest == good.digest and hashed == ["a.py"]


def test_a_cache_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    source = fill(tmp_path / "job", {"a.py": "1"})
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert names(scan(source, cache=tmp_path / "cache")) == {"a.py"}


def test_tree_key_names_the_folder_and_tells_places_apart(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "job", tmp_path / "b" / "job"
    assert tree_key(first) == tree_key(first) != tree_key(second)
    assert tree_key(first).startswith("job-") and len(tree_key(first)) == 16
    assert tree_key(tmp_path / "x" / ".." / "a" / "job") == tree_key(first)


def test_rules_of_a_linked_ignore_file_are_not_followed(tmp_path: Path) -> None:
    if os.name == "nt":
        pytest.skip("links need rights on Windows")
    (tmp_path / "rules").write_text("*\n")
    source = fill(tmp_path / "job", {"a.py": "1"})
    (source / ".gitignore").symlink_to(tmp_path / "rules")
    assert names(scan(source, cache=None)) == {"a.py"}


UTF8, UTF16, UTF16_BE = "\ufeffprivate.txt\r\n".encode(), "private.txt\r\n".encode("utf-16"), b"\xfe\xff\0a\0\n"


@pytest.mark.parametrize("name", [".gitignore", ".cloudtrainignore"])
def test_an_ignore_file_may_begin_with_a_byte_order_mark(tmp_path: Path, name: str) -> None:
    source = fill(tmp_path / "job", {"a.py": "1", "private.txt": "not for others"})
    (source / name).write_bytes(UTF8)
    assert names(scan(source, cache=None)) == {"a.py", name}


@pytest.mark.parametrize("place", ["job/.gitignore", "job/.cloudtrainignore", ".gitignore", ".git/info/exclude"])
@pytest.mark.parametrize("content", [UTF16, UTF16_BE, b"other.bin\n" + UTF16[2:]])
def test_an_ignore_file_in_utf16_is_refused(tmp_path: Path, place: str, content: bytes) -> None:
    fill(tmp_path, {".git/info/exclude": "", "job/a.py": "1", "job/private.txt": "not for others"})
    (tmp_path / place).write_bytes(content)
    with pytest.raises(UsageError, match="UTF-16") as caught:
        scan(tmp_path / "job", cache=None)
    assert Path(place).name in caught.value.message and caught.value.consequence == "nothing was sent"
    assert caught.value.exit_code == ExitCode.USAGE and "UTF-8" in (caught.value.hint or "")


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_two_spellings_of_a_name_are_one_file_where_they_are_to_the_disk(
    monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    told = "H Caf\u00e9/Train.py\0? new.py\0"
    found = repository.Members(Path("/absent"), lambda *_: told)
    assert found.tracked("Caf\u00e9/Train.py") and found.tracked("new.py") is False and found.tracked("x") is None
    assert found.tracked("Cafe\u0301/train.py") == (True if platform == "darwin" else None)

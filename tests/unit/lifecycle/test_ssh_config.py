"""Tier 1: the user's OpenSSH configuration gets one line, at its top, and keeps every byte that was in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cloudtrain.lifecycle import openssh


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    return folder


@pytest.mark.parametrize("before", [b"", b"Host a\n  User b\n", b"# mine\r\nHost a\r\n  User b\r\n"])
def test_the_line_comes_first_and_the_rest_stays(home: Path, before: bytes) -> None:
    path = home / ".ssh" / "config"
    if before:
        path.parent.mkdir()
        path.write_bytes(before)
    assert not openssh.included()
    openssh.include()
    after = path.read_bytes()
    assert openssh.included()
    assert after.splitlines()[0] == b"Include cloudtrain/config"
    assert after.endswith(before)
    assert (b"\r\n" in after) == (b"\r\n" in before)
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("Include cloudtrain/config\n", True),
        ("# mine\n\n  include ~/.ssh/cloudtrain/config\nHost a\n", True),
        ("Host a\nInclude cloudtrain/config\n", False),
        ("Include other/config\nInclude cloudtrain/config\n", False),
    ],
)
def test_only_a_line_at_the_top_counts(home: Path, text: str, counts: bool) -> None:
    (home / ".ssh").mkdir()
    (home / ".ssh" / "config").write_text(text)
    assert openssh.included() is counts


@pytest.mark.skipif(os.name == "nt", reason="links need a right on Windows")
def test_a_link_to_a_dotfiles_folder_stays_one(home: Path) -> None:
    (home / ".ssh").mkdir()
    (home / "dotfiles").write_text("Host a\n")
    (home / ".ssh" / "config").symlink_to(home / "dotfiles")
    openssh.include()
    assert (home / ".ssh" / "config").is_symlink()
    assert (home / "dotfiles").read_text().startswith("Include cloudtrain/config\n")

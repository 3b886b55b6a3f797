"""The shell of an emulated machine, also on a Windows that is only described here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cloudtrain.emulator import posix_shell
from cloudtrain.emulator.machine import shims

GIT = r"C:\Program Files\Git"


def on_windows(present: set[str], programs: dict[str, str], **environment: str) -> str | None:
    return posix_shell.find(
        "win32", which=programs.get, exists=present.__contains__, environment=environment or {"ProgramFiles": "C:\\x"}
    )


def test_windows_uses_the_shell_of_git() -> None:
    bash = rf"{GIT}\bin\bash.exe"
    assert on_windows({bash}, {"git": rf"{GIT}\cmd\git.exe"}) == bash
    assert on_windows({bash}, {}, ProgramFiles=r"C:\Program Files") == bash
    own = r"C:\Users\a\AppData\Local\Programs\Git\bin\bash.exe"
    assert on_windows({own}, {}, LocalAppData=r"C:\Users\a\AppData\Local") == own


def test_the_linux_subsystem_is_passed_over() -> None:
    assert on_windows({r"C:\Windows\System32\bash.exe"}, {"bash": r"C:\Windows\System32\bash.exe"}) is None


def test_elsewhere_it_is_this_computers() -> None:
    assert posix_shell.find("linux", which={"bash": "/usr/bin/bash"}.get) == "/usr/bin/bash"
    assert posix_shell.find("darwin", which={}.get) == "/bin/sh"


@pytest.mark.skipif(sys.platform == "win32", reason="the shell of this computer reads them")
def test_programs_for_windows_are_read_by_a_posix_shell(tmp_path: Path) -> None:
    shims.write(tmp_path, port=9, secret="none", windows=True)
    done = subprocess.run(
        ["sh", str(tmp_path / "sudo"), "-n", str(tmp_path / "systemctl"), "daemon-reload"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1 and "Failed to connect to bus" in done.stderr
    done = subprocess.run(
        ["sh", str(tmp_path / "python3"), "-c", "import sys; print(sys.argv[1])", "a b"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout == "a b\n"
    assert all(b"\r" not in path.read_bytes() for path in tmp_path.iterdir())

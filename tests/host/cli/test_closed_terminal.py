"""The terminal is closed under a command, or nobody reads its pipe: the run goes on, and no crash is noted."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudtrain.core import disk
from cloudtrain.core.states import RunState
from cloudtrain.store import Run, Store
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a terminal as Unix has them")


def closed(argv: tuple[str, ...], seen: bytes, folder: Path) -> int:
    """The exit code of `cloudtrain ARGV` in a window of its own that is closed once `seen` is in it."""
    ours, theirs = os.openpty()
    own = "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); sys.argv[0] = 'cloudtrain'; "
    process = subprocess.Popen(
        [sys.executable, "-c", own + "from cloudtrain.__main__ import main; main()", *argv],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    told, deadline = b"", time.monotonic() + 20
    try:
        while seen not in told:
            assert time.monotonic() < deadline, told.decode(errors="replace")
            if select.select([ours], [], [], 0.1)[0]:
                told += os.read(ours, 65536)
        os.close(ours)
        return process.wait(30)
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize(
    ("argv", "seen", "code"),
    [
        (("logs", "long-run"), b"100%", 8),
        (("run", "--local", "--name", "long-run"), b"Ctrl-C to detach", 8),
        (("run", "--local", "--name", "long-run", "--plain"), b"98.10", 8),
        (("stop", "long-run"), b"[Y/n]", 8),
        (("wait", "long-run", "--json"), b"98.1", 8),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_closed_window_leaves_the_run_as_it_is(
    trains: Callable[[str], Run], store: Store, tmp_path: Path, argv: tuple[str, ...], seen: bytes, code: int
) -> None:
    trains("long-run")
    assert closed(argv, seen, tmp_path) == code
    assert store.get("long-run").state is RunState.RUNNING and not store.read_journal("long-run").stop_wanted
    assert not list(disk.state_dir().glob("crashes/*"))

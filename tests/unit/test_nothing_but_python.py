"""The guard of all unit tests (conftest.py) itself."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

import pytest


@pytest.mark.parametrize(
    "act",
    [
        lambda: subprocess.run(["true"], check=True),
        lambda: os.system("true"),
        lambda: multiprocessing.get_context("spawn").Process(target=print).start(),
        lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
        lambda: socket.socket().bind(("127.0.0.1", 0)),
        lambda: time.sleep(0.001),
    ],
    ids=["process", "shell", "multiprocessing", "connect", "bind", "sleep"],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_is_no_unit_test_fails_even_if_it_is_caught(
    nothing_but_python: list[str], act: Callable[[], object]
) -> None:
    with suppress(Exception), pytest.raises(pytest.fail.Exception, match="belongs in tests/host or tests/region"):
        act()
    assert nothing_but_python
    nothing_but_python.clear()


def test_there_is_no_git_and_a_sleep_of_nothing_is_none() -> None:
    with pytest.raises(FileNotFoundError):
        subprocess.run(["git", "--version"], check=True)
    time.sleep(0)

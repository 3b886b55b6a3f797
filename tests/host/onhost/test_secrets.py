"""Values of secrets on a host: in the job's environment, and in no file, argument or other process there."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtrain.onhost import supervise

VALUE = "hunter2-Zq7é"
JOB = """\
import os, sys, time
token = os.environ["MY_TOKEN"]
assert os.environ["COLOUR"] == "blue" and os.environ["SHORT"] == "1234"
print("token", token, "and", end=" ", flush=True)
sys.stdout.write(token[:5]); sys.stdout.flush()
time.sleep(0.05)
print(token[5:], os.environ["SHORT"], flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.02)
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")


def holding(host: Any, what: str) -> set[int]:
    """The host's processes whose /proc file `what` holds the value."""
    found = set()
    for pid in host.processes():
        if VALUE.encode() in Path(f"/proc/{pid}/{what}").read_bytes():
            found.add(pid)
    return found


def files_with(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file() and VALUE.encode() in path.read_bytes()}


@linux
def test_a_value_is_in_the_jobs_environment_alone_and_its_log_says_where_it_told_it(host: Any, tmp_path: Path) -> None:
    go = tmp_path / "go"
    given = {"MY_TOKEN": VALUE, "SHORT": "1234", "UNTOLD": "never-printed"}
    answer = host.start(JOB, str(go), env={"COLOUR": "blue"}, secrets=given)
    host.wait_for_log(b"1234\n")
    job, supervisor = answer["pid"], host.supervisor()
    assert {job, supervisor} <= host.processes()
    assert holding(host, "cmdline") == set() and holding(host, "environ") == {job}
    # Once more, as after a link that broke: it runs, and the value is kept nowhere for that either.
    again = host.ask("start", stdin=host.spec(JOB, str(go), env={"COLOUR": "blue"}, secrets=given))
    assert (again["started"], again["pid"]) == (False, job)
    assert files_with(host.workdir) == {"console.log"}
    assert "secrets" not in json.loads((host.run_dir() / "spec.json").read_bytes())
    go.touch()
    record, log = host.finished(), host.log()
    size = len(VALUE.encode())
    first = log.index(VALUE.encode())
    assert record["code"] == 0 and log[record["secrets"][1]["at"] :].startswith(VALUE.encode())
    assert record["secrets"] == [
        {"name": "MY_TOKEN", "at": at, "bytes": size} for at in (first, log.rindex(VALUE.encode()))
    ]
    assert files_with(host.workdir) == {"console.log"}


def test_a_run_without_any_says_nothing_of_them(host: Any) -> None:
    host.start("print('hello')")
    assert "secrets" not in host.finished()
    host.start("print('hello')", run="calm-fox", secrets={"MY_TOKEN": VALUE})
    assert "secrets" not in host.finished("calm-fox")


@pytest.mark.parametrize("secrets", [["MY_TOKEN"], {"MY_TOKEN": 1}, {"MY_TOKEN": VALUE + "\0"}, VALUE])
def test_what_are_no_secrets_is_refused_and_not_repeated(host: Any, secrets: Any) -> None:
    done = host.call("start", stdin=host.spec("print(1)", secrets=secrets))
    assert json.loads(done.stdout)["code"] == "bad_spec" and VALUE not in done.stdout.decode()
    assert not host.run_dir().joinpath("spec.json").exists()


@given(
    parts=st.lists(st.sampled_from(["aXaXaY", "aXaX", "-----a", "b", "\n", "é"]), max_size=12),
    size=st.integers(1, 9),
)
def test_each_place_is_found_however_the_log_is_read(parts: list[str], size: int, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "places.log"
    log = "".join(parts).encode()
    path.write_bytes(log)
    before, supervise.CHUNK = supervise.CHUNK, size
    try:
        found = supervise.secrets_in(str(path), {"ONE": "aXaXaY", "LINES": "-----a\nb\n", "SHORT": "b"})
    finally:
        supervise.CHUNK = before
    expected = {
        (name, at)
        for name, value in (("ONE", b"aXaXaY"), ("LINES", b"-----a"))
        for at in range(len(log))
        if log.startswith(value, at)
    }
    told = found.get("secrets", [])
    assert {(place["name"], place["at"]) for place in told} == expected and len(told) == len(expected)
    assert all(place["bytes"] == 6 for place in told)


def test_a_log_full_of_it_is_told_of_up_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_bytes(b"aXaXaY\n" * 3000)
    found = supervise.secrets_in(str(path), {"ONE": "aXaXaY"})["secrets"]
    assert [place["at"] for place in found] == [7 * at for at in range(supervise.MOST_PLACES)]
    assert supervise.secrets_in(os.devnull, {"ONE": "aXaXaY"}) == {}
    assert supervise.secrets_in(str(tmp_path / "none"), {"ONE": "aXaXaY"}) == {}

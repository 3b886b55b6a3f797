"""`clean --host`: listed by what is known of each run; what is here and verified goes, the rest when it is named."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cloudtrain.cleanup import on_host
from cloudtrain.core.disk import state_dir
from cloudtrain.store import Run, Store
from cloudtrain.transfer.supervisor import Supervisor
from cloudtrain.transport.local import LocalTransport
from tests.typed import Typed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a job here is ended by a signal")
HOST = "ada@example.org"


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host is this computer's own folder of local runs: the program there is the real one."""

    @contextmanager
    def supervisor(*_: object) -> Iterator[Supervisor]:
        folder = state_dir() / "local"
        yield Supervisor(LocalTransport(folder), sys.executable, "", str(folder))

    monkeypatch.setattr(on_host, "supervisor", supervisor)


def listed(answer: Typed) -> dict[str, tuple[bool, str, bool]]:
    rows: list[dict[str, Any]] = json.loads(answer.out)["runs"]
    return {row["run"] or row["folder"].partition("-")[0]: (row["safe"], row["why"], row["removed"]) for row in rows}


@pytest.mark.usefixtures("there")
def test_what_is_verified_here_goes_and_nothing_else_unasked(
    cli: Callable[..., Typed], store: Store, trains: Callable[[str], Run]
) -> None:
    runs = {name: trains(name) for name in ("lives", "whole", "spoilt")}
    for name in ("whole", "spoilt"):
        cli("stop", name, "--yes")
    folders = {path.name.partition("-")[0]: path for path in (state_dir() / "local" / "runs").iterdir()}
    spoilt = next(path for path in runs["spoilt"].folder.rglob("*") if path.name in _results(store, "spoilt"))
    spoilt.write_bytes(b"changed")
    (state_dir() / "local" / "runs" / "other" / "out").mkdir(parents=True)
    (state_dir() / "local" / "runs" / "other" / "spec.json").write_text('{"id": "0123"}')
    before = {
        "lives": (False, "it trains", False),
        "whole": (True, "its results are here and verified", False),
        "spoilt": (False, "its results are not all here", False),
        "other": (False, "not known here: another computer's, or of an earlier release", False),
    }
    assert listed(cli("clean", "--host", HOST, "--json")) == before

    shown = cli("clean", "--host", HOST, "--yes")
    assert "removed whole-" in shown.out and f"from {HOST}; results are here and verified" in shown.out
    assert "kept    other: not known here" in shown.out
    del before["whole"], folders["whole"]
    assert listed(cli("clean", "--host", HOST, "--json")) == before

    assert listed(cli("clean", "--host", HOST, "other", "--yes", "--json"))["other"][2] is True
    living = folders["lives"].name
    assert "stays: it lives" in cli("clean", "--host", HOST, living, "--yes", code=6).err
    assert "not_removed" in cli("clean", "--host", HOST, living, "--yes", "--json", code=6).out
    assert "no run folder" in cli("clean", "--host", HOST, "other", code=2).err
    shown = cli("clean", "--host", HOST, "--all", "--yes")
    assert "removed spoilt-" in shown.out and "kept    lives-" in shown.out


@pytest.mark.usefixtures("there")
def test_what_the_job_left_elsewhere_stays_until_its_folder_is_named(
    cli: Callable[..., Typed], trains: Callable[[str], Run]
) -> None:
    trains("whole")
    cli("stop", "whole", "--yes")
    (folder,) = (state_dir() / "local" / "runs").iterdir()
    (folder / "code" / "model.pt").write_bytes(b"m")
    for everything in ([], ["--all"]):
        kept = cli("clean", "--host", HOST, *everything, "--yes", code=6)
        assert f"{folder.name} stays: it holds code/model.pt, which is not here" in kept.err
    cli("clean", "--host", HOST, folder.name, "--yes")
    assert not folder.exists()


def _results(store: Store, name: str) -> set[str]:
    return {entry.name.rpartition("/")[2] for entry in store.read_journal(name).pulled}


@pytest.mark.parametrize("flag", ["--dry-run", "--all-regions", "--region=x", "--profile=x", "--owner=any"])
def test_aws_has_no_part_in_it(cli: Callable[..., Typed], flag: str) -> None:
    assert "options for AWS and rehearsals do not apply" in cli("clean", "--host", HOST, flag, code=2).err

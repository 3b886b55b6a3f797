"""What a run leaves on a machine of the user's own. The host is this computer's own folder of local runs: the program
there is the real one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core.disk import state_dir
from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.lifecycle import host_folder
from cloudtrain.store import Run, Store
from cloudtrain.transfer.supervisor import Supervisor
from tests.typed import Typed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a job here is ended by a signal")


@pytest.fixture(autouse=True)
def theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_folder, "is_theirs", lambda *_: True)


def there() -> list[Path]:
    return list((state_dir() / "local" / "runs").iterdir())


def test_once_all_is_here_and_verified_its_folder_on_the_host_goes(
    cli: Callable[..., Typed], trains: Callable[[str], Run], store: Store
) -> None:
    run = trains("long-run")
    assert len(there()) == 1
    told = cli("stop", "long-run", "--yes").err
    assert "are removed: log and results are here, verified" in told and there() == []
    again = cli("pull", "long-run").err
    assert "its host no longer keeps it; all" in again and "checksums verified" in again
    (run.folder / "weights" / "last.bin").write_bytes(b"spoilt")
    for only in ([], ["--only", "weights"]):
        refused = cli("pull", "long-run", *only, code=6).err
        assert "weights/last.bin: missing or changed since the pull, and its host no longer keeps it" in refused
    assert "no machine" not in refused


def test_it_stays_where_that_is_wanted_and_where_it_cannot_be_removed(
    cli: Callable[..., Typed], trains: Callable[[str], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    trains("kept")
    with monkeypatch.context() as keeps:
        keeps.setenv("CLOUDTRAIN_KEEP_ON_HOST", "1")
        assert "removed" not in cli("stop", "kept", "--yes").err
    assert len(there()) == 1
    trains("other")
    [folder] = [path for path in there() if path.name.startswith("other")]
    (folder / "code" / "notes.txt").write_text("written by the job, and not a result")
    told = cli("stop", "other", "--yes").err
    assert (
        "keeps something of what other has left there: " in told
        and "cloudtrain clean --host" in told
        and folder.exists()
    )
    (folder / "out" / "weights" / "last.bin").stat()
    assert "checksums verified" in cli("pull", "other").err and "no more" not in told


def test_an_answer_that_is_lost_is_not_told_as_if_nothing_had_been_removed(
    cli: Callable[..., Typed], trains: Callable[[str], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trains("long-run")
    clean = Supervisor.clean

    def lost(self: Supervisor, *args: Any, **more: Any) -> Any:
        clean(self, *args, **more)
        raise ConnectionFailed("lost the connection", code="disk_full")  # a code that nobody tries again

    monkeypatch.setattr(Supervisor, "clean", lost)
    told = cli("stop", run.name, "--yes").err
    assert there() == []
    assert f"may keep something of what {run.name} has left there: lost the connection" in told

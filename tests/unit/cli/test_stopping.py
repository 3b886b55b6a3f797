"""The questions of stop, and what does not go together."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.cli import ending
from cloudtrain.console.pages import stopping as lines
from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.notes import FileEntry, RunNotes
from cloudtrain.core.spec import Ec2Spec, Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.core.told import Figures
from cloudtrain.lifecycle import pull, stop, story
from cloudtrain.provider.local import LocalMachine, LocalProvider
from cloudtrain.run_folder import outcome
from cloudtrain.store import Run, Store
from tests import plans
from tests.typed import Typed
from tests.unit.lifecycle.test_machine_end import kept

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a job here is ended by a signal")


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("stop", "--all", "some-run"), "takes no name"),
        (("stop", "--all", "--keep", "5m"), "for one run"),
        (("stop", "--keep", "5m", "--no-pull"), "exclude each other"),
        (("stop", "--keep", "soon"), "not a duration"),
        (("stop", "--keep", "5s"), "too short"),
        (("run", "--local", "--keep", "5m"), "this computer, which is never ended"),
        (("run", "--host", "ada@example.org", "--keep", "5m"), "a machine of yours"),
        (("run", "--instance-id", "i-1", "--keep", "5m"), "an instance of yours"),
        (("run", "--local", "--on-interrupt", "dance"), "dance"),
        (("pull", "--only", "dances"), "no group of results called 'dances'"),
    ],
)
def test_what_does_not_go_together_is_refused(
    cli: Callable[..., Typed], argv: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert told in cli(*argv, code=2).err


def test_a_kept_machine_is_among_what_lives(store: Store, tmp_path: Path) -> None:
    run = kept(store, tmp_path, 600.0)
    assert outcome.lives(run)
    [_, row] = lines.table([run])
    assert "$0.500 an hour, ends itself by" in row and "kept until" in row
    assert "lose what was changed on it since" in lines.question(run)
    assert not outcome.lives(store.note(run, life=InstanceLife.TERMINATED))


def test_the_questions_name_what_is_lost_and_what_is_billed(store: Store, tmp_path: Path) -> None:
    over = kept(store, tmp_path, 600.0)
    values = {name: getattr(over, name) for name in Run.__dataclass_fields__}
    run = Run(**{**values, "state": RunState.RUNNING, "progress": Figures(epoch=9, epochs=15)})
    assert lines.question(run) == "Stop brave-otter after epoch 9 of 15, pull its results and terminate i-0a1b?"
    assert "keep i-0a1b up 10m 00s longer at $0.500 an hour?" in lines.question(run, keep_s=600)
    assert "without pulling and delete i-0a1b" in lines.question(run, pull=False)
    parked = Run(**{**values, "state": RunState.RUNNING, "life": InstanceLife.PARKED})
    assert lines.question(parked) == "brave-otter is parked. Start i-0a1b to pull its results, then terminate it?"
    many = [FileEntry(f"weights/{n}.pt", 1000, "0" * 64) for n in range(10)]
    first, second, third = lines.losses(run, many, "", RunNotes(trickled=(many[0],)))
    assert "deleted with the machine, for good: weights/0.pt (1 kB)" in first and "and 2 more (2 kB)" in first
    assert "not asked to save" in second and "1 file in" in third
    assert "(no answer)" in lines.losses(run, None, "no answer", RunNotes())[0]
    assert "so far is here" in lines.losses(run, [], "", RunNotes())[0]


def test_a_look_that_hangs_keeps_nobody_from_ending_a_machine(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    hangs = threading.Event()
    monkeypatch.setattr(ending, "LOOK_S", 0.1)
    monkeypatch.setattr(pull, "missing", lambda run, context: hangs.wait(60))
    context = story.Context(store=store, provider=lambda spec: LocalProvider())
    assert ending._look(kept(store, tmp_path, 60.0), context) == (None, "no answer within 0 s")
    hangs.set()


def test_an_ec2_run_that_cannot_be_given_back_is_no_success(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop before training began, and the machine does not end."""
    run = store.add(plans.plan(tmp_path / "runs", target=Target.EC2, ec2=Ec2Spec()))
    run = store.move(run, RunState.PROVISIONING)
    owned = LocalProvider()
    instance = plans_instance()

    def fails(*_: Any) -> Any:
        raise ConnectionFailed("it could not be ended", code="release_pending")

    monkeypatch.setattr(owned, "find", lambda *_: instance)
    monkeypatch.setattr(LocalMachine, "release", fails)
    context = story.Context(store=store, provider=lambda spec: owned)
    with pytest.raises(ConnectionFailed, match="could not be ended"):
        stop.stop(run, context)
    assert store.read_journal(run.name).owed


def plans_instance() -> Any:
    from cloudtrain.core.instance import Instance

    return Instance(id="i-1", provider=Target.EC2, owned=True, workdir="x", life=InstanceLife.RUNNING)

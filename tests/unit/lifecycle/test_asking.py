"""What machines say when all are asked: it is stored with its moment, and nobody waits for one that hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from cloudtrain.billing import expiry
from cloudtrain.console.pages.listing import FRESH_S
from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.figures import LINES, Figure
from cloudtrain.core.instance import Ended, Instance
from cloudtrain.core.notes import Journal
from cloudtrain.core.spec import Ec2Spec, JobSpec, Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.lifecycle import asking as asking_module
from cloudtrain.lifecycle import machine_end, planning, story
from cloudtrain.lifecycle.asking import Asking
from cloudtrain.lifecycle.progress import BEAT_S, Progress
from cloudtrain.lifecycle.session import Context
from cloudtrain.store import Run, Store
from cloudtrain.transfer.supervisor import BEAT_S as BEAT_BY_HOST_S
from cloudtrain.transport.base import Transport
from tests import plans
from tests.fake_provider import FakeMachine, FakeProvider
from tests.fakes import FakeRun

EPOCH_S, LATER_S = 60.0, 1000.0


def job(run: FakeRun) -> Iterator[float]:
    """Fifteen epochs, the best one the second."""
    run.tell("start", epochs=15)
    for epoch in range(1, 16):
        yield EPOCH_S
        run.tell("epoch", epoch=epoch, epochs=15, test_acc=98.0 if epoch == 2 else 90.0, best=epoch == 2)


class Asked(FakeProvider):
    """Machines that say what a test wants of them.

    Attributes:
        says: what EC2 says; None: nothing, for as long as the test lasts.
        hang: instances that never answer; woken: they do, at the test's end.
    """

    def __init__(self) -> None:
        super().__init__(job, owned=True)
        self.kind = AskedMachine
        self.says: dict[str, InstanceLife] | None = {}
        self.hang: set[str] = set()
        self.woken = threading.Event()
        self.questions = 0
        self.ended = 0

    def lives(self, known: Iterable[tuple[Instance, Journal]]) -> Mapping[str, Ended]:
        self.questions += 1
        if self.says is None:
            self.woken.wait()
        says = self.says or {}
        return {instance.id: Ended(says.get(instance.id, InstanceLife.RUNNING)) for instance, _ in known}


class AskedMachine(FakeMachine):
    def open(self) -> Transport:
        if self.instance.id in self.there.hang:
            self.there.woken.wait()
        return super().open()

    def end(self, *, parks: bool) -> Ended:
        self.there.ended += 1
        return super().end(parks=parks)


@pytest.fixture
def there() -> Iterator[Asked]:
    provider = Asked()
    yield provider
    provider.woken.set()


@pytest.fixture
def store(tmp_path: Path, there: Asked) -> Store:
    return Store(tmp_path / "registry.sqlite", clock=there.clock)


def begun(name: str, store: Store, there: Asked, tmp_path: Path, module: str = "job.train") -> Run:
    """A run that trains on a machine of its own, and was left."""
    source = tmp_path / "job"
    source.mkdir(exist_ok=True)
    (source / "train.py").write_text("the host has a job of its own")
    context = Context(store=store, provider=lambda spec: there, clock=there.clock, sleep=there.sleep)
    spec = {"target": Target.EC2, "ec2": Ec2Spec(types=("g4dn.xlarge",), region="us-east-1")}
    made = plans.plan(tmp_path / "runs", name, job=JobSpec(source=str(source), module=module), **spec)
    run = planning.begin(made, context)
    story.resume(run, context, detach=True)
    return store.get(run.name)


def asked(store: Store, there: Asked, within_s: float = 5.0) -> Asking:
    asking = Asking(store, provider=lambda spec: there, within_s=within_s)
    asking.begin(store.runs())
    while asking.collect(0.1):
        pass
    return asking


def test_figures_of_a_program_of_ones_own_are_heard_from_the_end_of_its_log(
    there: Asked, store: Store, tmp_path: Path
) -> None:
    def prints(run: FakeRun) -> Iterator[float]:
        run.print("x" * asking_module._TAIL)
        for epoch in range(1, 4):
            run.print(f"{{'loss': {1 / epoch}, 'epoch': {epoch}}}")
            yield EPOCH_S

    there.job = prints
    run = begun("brave-otter", store, there, tmp_path, module="job.mine")
    there.sleep(EPOCH_S + 1)
    asked(store, there)
    assert store.get(run.name).progress.figure == Figure(name="loss", value=0.5, epoch=2, origin=LINES)


def test_how_far_it_is_is_stored_with_its_moment(there: Asked, store: Store, tmp_path: Path) -> None:
    before = begun("brave-otter", store, there, tmp_path)
    there.sleep(3 * EPOCH_S + 1)
    verbs = len(there.host.asked)
    asking = asked(store, there)
    now = store.get(before.name)
    assert asking.silent == {} and now.state is RunState.RUNNING and now.updated_at == there.clock() > before.updated_at
    assert (now.progress.epoch, now.progress.best_test_acc, now.progress.best_epoch) == (3, 98.0, 2)
    assert not (now.folder / "events.jsonl").exists(), "nothing is pulled"
    assert set(there.host.asked[verbs:]) == {"poll"} and there.released == 0


def test_one_that_has_ended_is_said_to_have_ended_and_is_left_as_it_is(
    there: Asked, store: Store, tmp_path: Path
) -> None:
    begun("brave-otter", store, there, tmp_path)
    there.sleep(20 * EPOCH_S)
    asked(store, there)
    now = store.get("brave-otter")
    assert now.state is RunState.RUNNING and now.ending is not None and now.life is InstanceLife.RUNNING


@pytest.mark.parametrize("life", [InstanceLife.PARKED, InstanceLife.TERMINATED])
def test_what_ec2_says_of_the_machine_is_enough(there: Asked, store: Store, tmp_path: Path, life: InstanceLife) -> None:
    before = begun("brave-otter", store, there, tmp_path)
    assert before.instance is not None and there.says is not None
    there.says[before.instance.id] = life
    verbs = len(there.host.asked)
    there.sleep(1.0)
    asking = asked(store, there)
    [run] = asking.as_heard(store.runs())
    assert asking.silent == {} and run.life is life and run.state is RunState.RUNNING
    assert len(there.host.asked) == verbs, "its address may be another's"
    if life is InstanceLife.TERMINATED:
        assert store.get(run.name) == before, "whoever acts on it learns that with its reason"
    else:
        there.sleep(60.0)
        asked(store, there)
        assert store.get(run.name).updated_at == there.clock(), "it is parked as of now"


def test_one_that_hangs_holds_no_other_and_is_told(there: Asked, store: Store, tmp_path: Path) -> None:
    for name in ("first-run", "stuck-run", "last-run"):
        run = begun(name, store, there, tmp_path)
        assert run.instance is not None
        there.hang |= {run.instance.id} if name == "stuck-run" else set()
    before = store.get("stuck-run")
    there.sleep(EPOCH_S + 1)
    began = time.monotonic()
    asking = asked(store, there, within_s=0.5)
    assert time.monotonic() - began < 2, "the others were heard at once, and it had its time"
    assert list(asking.silent) == ["stuck-run"] and "within" in asking.silent["stuck-run"]
    assert store.get("stuck-run") == before, "as of when it was heard last"
    assert store.get("first-run").progress.epoch == store.get("last-run").progress.epoch == 1
    assert there.questions == 1, "EC2 is asked once for all"
    asking.begin(store.runs())
    asking.collect(0.2)
    there.woken.set()
    for _ in range(20):
        asking.begin(store.runs())
        asking.collect(0.1)
        if not asking.silent:
            break
    assert asking.silent == {}, "it answers, and is no longer silent"


def test_where_aws_says_nothing_the_machine_itself_does(
    there: Asked, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudtrain.lifecycle.asking._EC2_S", 0.1)
    begun("brave-otter", store, there, tmp_path)
    there.sleep(EPOCH_S + 1)
    there.says = None
    assert asked(store, there).silent == {} and store.get("brave-otter").progress.epoch == 1


def test_one_that_cannot_be_reached_is_told_with_why(there: Asked, store: Store, tmp_path: Path) -> None:
    before = begun("brave-otter", store, there, tmp_path)
    there.refuses = ConnectionFailed("no way to it")
    assert asked(store, there).silent == {"brave-otter": "no way to it"}
    assert store.get("brave-otter") == before


def test_a_look_ends_nothing_that_is_over_its_end(there: Asked, store: Store, tmp_path: Path) -> None:
    run = begun("brave-otter", store, there, tmp_path)
    there.sleep((run.plan.limit_s or 0.0) + 86400)
    asked(store, there)
    assert there.ended == there.released == 0 and store.get(run.name).state is RunState.RUNNING


def test_one_whose_emulated_region_has_ended_has_ended_with_it(there: Asked, store: Store, tmp_path: Path) -> None:
    run = begun("brave-otter", store, there, tmp_path)
    asking = Asking(store, provider=lambda spec: None)
    asking.begin(store.runs())
    assert not asking.collect(0.1) and asking.ended == {run.name}


def test_a_run_whose_job_is_quiet_is_as_of_its_hosts_last_sign_of_life(
    there: Asked, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, now = begun("brave-otter", store, there, tmp_path), [0.0]
    monkeypatch.setattr("cloudtrain.lifecycle.progress.time.monotonic", lambda: now[0] + 1000.0)
    progress, heard = Progress(run, store), []
    for now[0] in (0.0, 4.0, 8.0, 12.0):
        there.sleep(4.0)
        progress.beat()
        heard.append(store.get(run.name).updated_at == there.clock())
    assert heard == [True, False, True, False] and FRESH_S > BEAT_S + BEAT_BY_HOST_S, "no row of it looks old"


def test_the_moved_end_of_a_job_on_a_machine_that_stays_is_known_to_its_row(tmp_path: Path) -> None:
    there = FakeProvider(job)
    store = Store(tmp_path / "registry.sqlite", clock=there.clock)
    context = Context(store=store, provider=lambda spec: there, clock=there.clock, sleep=there.sleep)
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "train.py").write_text("the host has a job of its own")
    made = JobSpec(source=str(tmp_path / "job"), module="job.train")
    run = planning.begin(plans.plan(tmp_path / "runs", job=made, limits=plans.FULL_LIMITS), context)
    story.resume(run, context, detach=True)
    run = store.get(run.name)
    late = run.created_at + 60.0 + expiry.STOP_GRACE_S
    assert expiry.late_s(run, late - 1) is None and expiry.late_s(run, late) == expiry.STOP_GRACE_S
    moved = machine_end.extend(run, context, 600.0)
    now = store.get(run.name)
    assert expiry.ends_at(now) == moved.after == run.created_at + 660.0 and expiry.late_s(now, late) is None
    assert machine_end.extension(now, context, 60.0).before == moved.after

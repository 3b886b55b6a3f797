"""What the probe has found, before anything is sent: an unusable GPU, no torch, programs that end at logout."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core import questions
from cloudtrain.core.environment import EnvironmentPlan
from cloudtrain.core.errors import CloudtrainError, ConnectionFailed, RunError, UsageError
from cloudtrain.core.events import Event, StepDone, Warned
from cloudtrain.core.spec import Ec2Spec, JobSpec, Target, TrainSpec
from cloudtrain.core.states import RunState
from cloudtrain.lifecycle import planning, story
from cloudtrain.lifecycle.session import Context
from cloudtrain.provider.ec2.instances import to_instance
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.run_folder import outcome
from cloudtrain.store import Run, Store
from tests import plans
from tests.fake_provider import FakeProvider
from tests.fakes import FakeRun

MISMATCH = "Failed to initialize NVML: Driver/library version mismatch"
BROKEN = {"nvidia_smi": MISMATCH, "gpus": [], "driver": None, "serves": None, "cuda_fault": "no device"}
# What the probe finds, and a part of what is said of it.
UNUSABLE = [
    (BROKEN, f'nvidia-smi says "{MISMATCH}" and CUDA says "no device"'),
    ({**BROKEN, "nvidia_smi": "x\x1b[2J\n" + "y" * 999}, 'nvidia-smi says "x yyy'),
    ({"cuda": None, "without_cuda": True, "torch": "2.13.0+cpu"}, "its torch 2.13.0+cpu is built without CUDA"),
    ({"serves": "12.4"}, "torch 2.13.0 is built for CUDA 13.0, its driver 580.105 has 12.4 at most"),
    ({"nvidia_smi": None, "serves": None, "gpus": []}, "there is no nvidia-smi"),
]


def trains(run: FakeRun) -> Iterator[float]:
    run.print("trained")
    yield 1.0


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def resumed(tmp_path: Path, told: list[Event]) -> Callable[..., tuple[Run, FakeProvider, CloudtrainError | None]]:
    """A run on a machine whose probe `has` found this, to its end or its failure."""

    def resume(
        has: dict[str, Any],
        *,
        gpu: str = "",
        owned: bool = False,
        detach: bool = False,
        environment: EnvironmentPlan | None = None,
        **changes: Any,
    ) -> tuple[Run, FakeProvider, CloudtrainError | None]:
        machines = FakeProvider(trains, owned=owned)
        machines.has, machines.gpu = has, gpu
        store = Store(tmp_path / "registry.sqlite", clock=machines.clock)
        parts: dict[str, Any] = {"clock": machines.clock, "sleep": machines.sleep}
        context = Context(store=store, provider=lambda spec: machines, emit=told.append, **parts)
        source = tmp_path / "job"
        source.mkdir(exist_ok=True)
        (source / "train.py").write_text("the host has a job of its own")
        place = {"target": Target.EC2, "ec2": Ec2Spec()} if owned else {"target": Target.HOST, "host": plans.FULL_HOST}
        values = {"job": JobSpec(source=str(source), module="mine.train"), **place, **changes}
        planned = replace(plans.plan(tmp_path / "runs", **values), environment=environment)
        run = planning.begin(planned, context)
        failed = None
        try:
            story.resume(run, context, detach=detach)
        except CloudtrainError as error:
            failed = error
        return store.get(run.name), machines, failed

    return resume


def warnings(told: list[Event]) -> str:
    return "\n".join(event.message for event in told if isinstance(event, Warned))


@pytest.mark.parametrize(("has", "says"), UNUSABLE)
def test_a_gpu_that_is_billed_and_cannot_be_used_ends_the_machine_where_nobody_is_asked(
    resumed: Callable[..., Any], has: dict[str, Any], says: str
) -> None:
    run, machines, failed = resumed(has, gpu="1x T4 16 GB", owned=True)
    assert isinstance(failed, UsageError) and failed.code == "gpu_unusable"
    assert says in failed.message and "\x1b" not in failed.message and len(failed.message) < 900
    assert "--allow-cpu" in (failed.hint or "") and failed.consequence == "nothing has trained"
    assert (run.state, (run.error or RunError()).code, machines.released) == (RunState.FAILED, "gpu_unusable", 1)
    assert "receive" not in machines.host.asked and "start" not in machines.host.asked


@pytest.mark.parametrize(("answer", "goes_on"), [("y\n", True), ("\n", False), ("n\n", False)])
def test_it_is_a_question_with_the_price(
    resumed: Callable[..., Any],
    told: list[Event],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    goes_on: bool,
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(questions, "ask", lambda question: asked.append(question) or answer)
    run, machines, failed = resumed(BROKEN, gpu="1x T4 16 GB", owned=True)
    assert len(asked) == 1 and MISMATCH in asked[0] and "$0.360 an hour" in asked[0] and "[y/N]" in asked[0]
    assert (failed is None) is goes_on and (run.state is RunState.SUCCEEDED) is goes_on and machines.released == 1
    assert not goes_on or MISMATCH in warnings(told)


def test_with_allow_cpu_it_is_said_and_goes_on(resumed: Callable[..., Any], told: list[Event]) -> None:
    run, _, _ = resumed(BROKEN, gpu="1x T4 16 GB", owned=True, ec2=Ec2Spec(allow_cpu=True))
    assert run.state is RunState.SUCCEEDED and MISMATCH in warnings(told)


@pytest.mark.parametrize(
    ("has", "gpu", "train"),
    [
        (BROKEN, "1x T4 16 GB", TrainSpec(device="cpu")),
        # A machine that promises no GPU, as a rehearsed one, and has none.
        ({"nvidia_smi": None, "serves": None, "gpus": []}, "", TrainSpec()),
        # nvidia-smi may be ill where CUDA is well.
        ({"nvidia_smi": "Insufficient Permissions", "gpus": []}, "1x T4 16 GB", TrainSpec()),
        # CUDA of the same major version: a newer one's programs run on the older driver.
        ({"serves": "13.0", "cuda": "13.2"}, "1x T4 16 GB", TrainSpec()),
    ],
)
def test_nothing_is_said_where_there_is_nothing_to_say(
    resumed: Callable[..., Any], told: list[Event], has: dict[str, Any], gpu: str, train: TrainSpec
) -> None:
    run, _, _ = resumed(has, gpu=gpu, owned=True, train=train)
    assert run.state is RunState.SUCCEEDED and warnings(told) == ""


@pytest.mark.parametrize(("has", "says"), UNUSABLE[:4])
def test_on_a_host_it_is_a_warning(
    resumed: Callable[..., Any], told: list[Event], has: dict[str, Any], says: str
) -> None:
    run, _, _ = resumed(has)
    assert run.state is RunState.SUCCEEDED and says in warnings(told)


@pytest.mark.parametrize(
    "environment",
    [
        EnvironmentPlan(source="uv.lock", torch="2.9.1"),
        EnvironmentPlan(source="Dockerfile", why="built on the machine"),
    ],
)
def test_of_a_machine_whose_program_brings_its_own_torch_only_the_driver_counts(
    resumed: Callable[..., Any], told: list[Event], environment: EnvironmentPlan
) -> None:
    broken = resumed(BROKEN, gpu="1x T4 16 GB", owned=True, environment=environment, name="broken")[2]
    assert broken is not None and broken.code == "gpu_unusable"
    told.clear()
    for number, has in enumerate(({"cuda": None, "without_cuda": True, "torch": "2.13.0+cpu"}, {"serves": "12.4"})):
        run, _, _ = resumed(has, gpu="1x T4 16 GB", owned=True, environment=environment, name=f"run{number}")
        assert run.state is RunState.SUCCEEDED and warnings(told) == ""


def test_a_rehearsed_machine_promises_no_gpu() -> None:
    class Emulated:
        loopback, region = True, "us-east-1"

    found = {"InstanceId": "i-1", "State": {"Name": "running"}}
    port = {"Tags": [{"Key": "emulator:ssh-port", "Value": "2222"}]}
    promised = [
        to_instance(one, Emulated(), Ec2Notes(), run="a", price=None, gpu="1x T4").details.gpu  # type: ignore[arg-type]
        for one in (found, {**found, **port})
    ]
    assert promised == ["1x T4", ""]


NO_TORCH = {"torch": None, "cuda": None, "looked": ["python3", "~/venv"]}


@pytest.mark.parametrize(
    ("has", "says"),
    [
        (NO_TORCH, "no Python there has torch; looked at: python3, ~/venv"),
        ({**NO_TORCH, "why": "given"}, "/opt/pytorch/bin/python there has no torch"),
    ],
)
def test_without_torch_nothing_is_sent(
    resumed: Callable[..., Any], tmp_path: Path, told: list[Event], has: dict[str, Any], says: str
) -> None:
    run, machines, failed = resumed(has, job=JobSpec(source=str(tmp_path / "job")))
    assert isinstance(failed, UsageError) and (failed.code, failed.message) == ("no_torch", says)
    assert "--python" in (failed.hint or "") and "venv" in (failed.hint or "")
    assert machines.host.asked == ["probe"] and run.state is RunState.FAILED


@pytest.mark.parametrize(
    ("why", "says"), [(None, "none of these has it: python3, ~/venv"), ("given", "/opt/pytorch/bin/python has none")]
)
def test_an_instance_without_torch_is_said_and_nothing_is_sent(
    resumed: Callable[..., Any], why: str | None, says: str
) -> None:
    run, machines, failed = resumed({**NO_TORCH, "why": why}, owned=True)
    assert isinstance(failed, ConnectionFailed) and failed.message == "could not find torch on the instance"
    assert (failed.code, failed.detail, failed.consequence) == ("environment", says, "nothing has trained")
    assert "--ami" in (failed.hint or "") and "--python" in (failed.hint or "")
    assert machines.host.asked == ["probe"] and run.state is RunState.FAILED and machines.released == 1


def test_a_rehearsal_without_torch_says_what_to_install(resumed: Callable[..., Any]) -> None:
    _, machines, failed = resumed(NO_TORCH, owned=True, ec2=Ec2Spec(rehearsal=True))
    assert isinstance(failed, UsageError) and failed.code == "no_torch" and machines.host.asked == ["probe"]
    assert failed.hint == 'pip install "cloudtrain[local,rehearse]"'


def test_a_job_of_ones_own_may_do_without_torch(resumed: Callable[..., Any], told: list[Event]) -> None:
    run, _, _ = resumed(NO_TORCH)
    assert run.state is RunState.SUCCEEDED and "no Python there has torch" in warnings(told)


def test_the_environments_line_says_which_interpreter_and_why(resumed: Callable[..., Any], told: list[Event]) -> None:
    resumed({"why": "cuda"})
    line = next(event.detail for event in told if isinstance(event, StepDone) and event.title == "environment")
    assert line.endswith("of /opt/pytorch/bin/python (the first whose torch can use the driver's CUDA)")


def test_a_host_that_ends_all_at_logout_is_not_detached_from(resumed: Callable[..., Any], told: list[Event]) -> None:
    run, machines, failed = resumed({"logout": "ends"}, detach=True)
    assert isinstance(failed, UsageError) and failed.code == "ends_at_logout"
    assert "KillUserProcesses" in failed.message and "loginctl enable-linger" in (failed.hint or "")
    assert machines.host.asked == ["probe"] and run.state is RunState.FAILED


@pytest.mark.parametrize(
    ("logout", "scope", "says"), [("ends", False, "ends with its login"), ("scope", True, "survives disconnects")]
)
def test_what_survives_is_said_as_it_is(
    resumed: Callable[..., Any], told: list[Event], logout: str, scope: bool, says: str
) -> None:
    run, machines, _ = resumed({"logout": logout})
    spec = machines.host.run_of(run.name).spec or {}
    line = next(event.detail for event in told if isinstance(event, StepDone) and event.title == "start")
    assert spec["scope"] is scope and line.startswith(says)
    assert ("KillUserProcesses" in warnings(told)) is (logout == "ends")


@pytest.mark.parametrize("state", [RunState.LOST, RunState.STOPPED])
@pytest.mark.parametrize("logout", ["ends", None])
def test_a_run_that_was_ended_that_way_says_so(
    resumed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, state: RunState, logout: str | None
) -> None:
    """Its supervisor is killed, or told to end as at a shutdown: that is what systemd's logind does first."""

    def dies(run: FakeRun) -> Generator[float, None, int]:
        run.lost, run.stop = state is RunState.LOST, "shutdown"
        yield 1.0
        return 143

    monkeypatch.setitem(globals(), "trains", dies)
    run, _, _ = resumed({"logout": logout})
    told = str(run.error)
    assert run.state is state and outcome.ending(run)[0] is state
    assert ("KillUserProcesses" in told, "enable-linger" in told) == (logout is not None, logout is not None)
    assert "shut down" not in told or logout is None

"""How an exit record reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core.spec import Ec2Spec, Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.core.told import ExitRecord
from cloudtrain.run_folder import outcome
from cloudtrain.store import Store
from tests import plans

KILLED = {"code": -9, "signal": 9, "signal_name": "SIGKILL"}


@pytest.mark.parametrize(
    ("record", "said", "helps"),
    [
        ({"code": 1, "signal": None}, "with exit code 1", ""),
        ({"code": 1, "signal": None, "oom_kills": 0}, "with exit code 1", ""),
        ({"code": 1, "signal": None, "oom_kills": 2}, "ended a process for lack of memory", "more memory"),
        ({"code": -9, "signal": 9}, "with signal 9", ""),
        (KILLED, "when memory runs out", "more memory"),
        ({**KILLED, "oom_kills": 1}, "the memory there ran out", "more memory"),
        ({**KILLED, "oom_kills": 0}, "the kernel reports no lack of memory", ""),
        (
            {"code": -7, "signal": 7, "signal_name": "SIGBUS"},
            "with signal 7 (SIGBUS): usually because /dev/shm",
            "workers",
        ),
        ({"code": -10, "signal": 10, "signal_name": "SIGBUS"}, "with signal 10 (SIGBUS)", "workers"),
        ({"code": -11, "signal": 11, "signal_name": "SIGSEGV"}, "with signal 11 (SIGSEGV): a fault", ""),
        ({"code": -12, "signal": 12, "signal_name": "SIGUSR2"}, "with signal 12 (SIGUSR2)", ""),
    ],
)
def test_a_job_that_was_killed_says_by_what_and_why(
    record: dict[str, Any], said: str, helps: str, tmp_path: Path
) -> None:
    run = replace(
        Store(tmp_path / "registry.sqlite").add(plans.plan(tmp_path)), ending=ExitRecord(state="exited", **record)
    )
    state, error = outcome.ending(run)
    assert state is RunState.FAILED and error is not None and said in error.message
    assert helps in str(error.hint) and str(error.hint).endswith(f"the whole log: cloudtrain logs {run.name}")


def test_what_was_not_pulled_is_called_deleted_once_its_machine_has_ended(tmp_path: Path) -> None:
    store = Store(tmp_path / "registry.sqlite")
    run = store.add(plans.plan(tmp_path / "runs", target=Target.EC2, ec2=Ec2Spec()))
    for life, told in ((InstanceLife.RUNNING, "not confirmed"), (InstanceLife.TERMINATED, "was deleted")):
        run = store.note(run, life=life, instance=plans.machine())
        error = outcome.not_pulled(run, {})
        assert told in str(error.consequence)
        assert ("cloudtrain stop" in str(error.hint)) is (life is InstanceLife.RUNNING)

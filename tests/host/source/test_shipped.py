"""The training program that comes along says itself what it would do, before anything is planned for it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from cloudtrain.core.errors import UsageError
from cloudtrain.core.plan import Training
from cloudtrain.core.spec import JobSpec, TrainSpec
from cloudtrain.source import shipped

JOB = JobSpec(source=str(shipped.job_folder()))


def test_it_tells_the_recipe_and_what_is_asked_for_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a laptop without torch, too.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).with_name("no_torch")))
    told = shipped.training(JOB, TrainSpec(args=("--subset", "6000")).argv())
    assert told == Training(recipe="best", epochs=15, batch_size=64, lr=0.01, subset=6000)
    assert shipped.training(JOB, TrainSpec(recipe="fast", epochs=3, lr=0.5).argv()) == Training(
        recipe="fast", epochs=3, batch_size=64, lr=0.5
    )


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (TrainSpec(args=("--bogus", "3")), "unrecognized arguments: --bogus 3"),
        (TrainSpec(recipe="nope"), "invalid choice: 'nope'"),
        (TrainSpec(args=("--subset", "0")), "must be from 6"),
        (TrainSpec(args=("--nesterov", "--momentum", "0", "--optimiser", "sgd")), "--nesterov needs a --momentum"),
        (TrainSpec(args=("--help",)), "trains nothing"),
    ],
)
def test_what_it_refuses_is_found_here(asked: TrainSpec, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        shipped.training(JOB, asked.argv())
    assert says in caught.value.message and caught.value.consequence == "nothing was started"


def test_another_program_is_not_asked(tmp_path: Path) -> None:
    for job in (replace(JOB, module="mine.train"), replace(JOB, command=("a",)), replace(JOB, source=str(tmp_path))):
        assert shipped.training(job, ("--bogus",)) is None


def test_one_that_does_not_answer_is_no_reason_to_start_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", os.devnull)
    assert shipped.training(JOB, ()) is None

"""What the job on a machine tells of its run."""

from __future__ import annotations

from typing import Any

import pytest

from cloudtrain.provider.ec2.reach import adopt


@pytest.fixture(autouse=True)
def home(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CLOUDTRAIN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_what_the_job_tells_is_taken_over() -> None:
    told = adopt.learnt({"kind": "start", "model": 2, "epochs": 15, "batch_size": 64, "seed": 7, "device": "cuda"})
    assert (told.model, told.epochs, told.batch_size, told.seed, told.device) == (2, 15, 64, 7, "auto")
    assert adopt.learnt({"model": "toy"}).model == 3

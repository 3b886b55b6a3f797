"""Which provider serves a run, and how long it waits."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from cloudtrain.config.settings import load
from cloudtrain.core import decode
from cloudtrain.core.errors import UsageError
from cloudtrain.core.spec import Ec2Spec, JobSpec, RunSpec, Target, TrainSpec
from cloudtrain.provider.choose import provider_of
from cloudtrain.provider.ec2.pace import Pace
from cloudtrain.provider.ec2.provider import Ec2Provider


def pace_of(tmp_path: Path, boot_limit_s: float | None, pace: Pace | None = None) -> Pace:
    spec = RunSpec(
        name="brave-otter",
        target=Target.EC2,
        train=TrainSpec(),
        job=JobSpec(source=str(tmp_path)),
        runs_dir=str(tmp_path),
        ec2=Ec2Spec(region="us-east-1", boot_limit_s=boot_limit_s),
    )
    assert decode.made(RunSpec, asdict(spec)) == spec
    provider = provider_of(spec, lambda question: False, pace)
    assert isinstance(provider, Ec2Provider)
    return provider._pace


def test_a_boot_is_waited_for_as_long_as_was_asked(tmp_path: Path) -> None:
    asked = load({}, folder=tmp_path, environment={"CLOUDTRAIN_BOOT_LIMIT": "45s"}).get("boot_limit")
    pace = pace_of(tmp_path, asked)
    assert (pace.boot, pace.pending, pace.auth) == (45.0, 45.0, 45.0) and pace.end == Pace().end
    longer = pace_of(tmp_path, 3600.0, Pace(pending=7.0))
    assert (longer.boot, longer.pending, longer.auth) == (3600.0, 7.0, Pace().auth)
    assert pace_of(tmp_path, None).boot == 600.0


def test_a_boot_without_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="CLOUDTRAIN_BOOT_LIMIT"):
        load({}, folder=tmp_path, environment={"CLOUDTRAIN_BOOT_LIMIT": "0"})

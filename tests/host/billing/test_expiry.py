"""A run on this computer is extended by its supervisor."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError
from cloudtrain.core.spec import JobSpec, Limits
from cloudtrain.lifecycle import machine_end, planning, stop, story
from cloudtrain.lifecycle.session import Context
from cloudtrain.onhost.base import uptime
from cloudtrain.provider.local import LocalProvider
from cloudtrain.store import Run, Store
from tests import plans


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(store=Store(tmp_path / "registry.sqlite"), provider=lambda spec: LocalProvider())


def trains(tmp_path: Path, context: Context, limits: Limits) -> Run:
    job = tmp_path / "job"
    job.mkdir()
    (job / "train.py").write_text("import time\ntime.sleep(120)\n")
    plan = plans.plan(tmp_path / "runs", job=JobSpec(source=str(job), module="job.train"), limits=limits)
    run = planning.begin(plan, context)
    story.resume(run, context, detach=True)
    return context.store.get(run.name)


@pytest.fixture
def ended(context: Context) -> Iterator[None]:
    yield
    for run in context.store.runs():
        if not run.state.final:
            stop.stop(run, context)


@pytest.mark.usefixtures("ended")
@pytest.mark.skipif(sys.platform == "win32", reason="the job is ended by a signal")
def test_a_run_here_is_extended_by_its_supervisor_alone(tmp_path: Path, context: Context) -> None:
    run = trains(tmp_path, context, Limits(max_time_s=3600.0))
    told = machine_end.extend(run, context, 600.0)
    assert told == machine_end.Extension(before=run.created_at + 3600, after=run.created_at + 4200, at_most_usd=None)
    [lease] = (disk.state_dir() / "local" / "runs").glob(f"{run.name}-*/lease.json")
    kept = json.loads(lease.read_text())
    assert kept["ends"] == pytest.approx(uptime() + told.after - time.time(), abs=5.0)
    assert machine_end.extension(run, context, 60.0).before == told.after
    stop.stop(run, context)
    with pytest.raises(UsageError, match="has ended"):
        machine_end.extend(run, context, 60.0)


@pytest.mark.usefixtures("ended")
@pytest.mark.skipif(sys.platform == "win32", reason="the job is ended by a signal")
def test_a_run_without_a_limit_has_nothing_to_extend(tmp_path: Path, context: Context) -> None:
    run = trains(tmp_path, context, Limits())
    with pytest.raises(UsageError, match="no limit"):
        machine_end.extend(run, context, 60.0)

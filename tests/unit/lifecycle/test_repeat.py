"""rerun: the same settings and the very code, or a clear no."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cloudtrain.core import disk
from cloudtrain.core.errors import UsageError
from cloudtrain.core.notes import GitRecord, RunNotes
from cloudtrain.core.plan import CodeSummary, OfferDetails, make_plan
from cloudtrain.core.spec import Ec2Spec, JobSpec, Target, TrainSpec
from cloudtrain.lifecycle import checkpoints
from cloudtrain.lifecycle.repeat import repetition
from cloudtrain.run_folder import code_copy
from cloudtrain.source import tree
from cloudtrain.store import Run, Store
from cloudtrain.transfer.answers import manifest
from tests import plans


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "registry.sqlite")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "train.py").write_text("print()\n")
    return folder


@pytest.fixture
def run(store: Store, package: Path, tmp_path: Path) -> Run:
    """A run that has sent its code."""
    train = TrainSpec(model=2, seed=9, epochs=3, args=("--subset", "600"))
    row = store.add(plans.plan(tmp_path / "runs", train=train, job=JobSpec(source=str(package), module="net.train")))
    row.folder.mkdir(parents=True)
    files = tree.scan(package, cache=None)
    store.write_journal(row.name, RunNotes(id="1d"))
    code_copy.keep(row.folder, files, files.digest, "local", store.journal(row.name), lambda _: None)
    return row


def test_unchanged_code_is_taken_where_it_is(run: Run, store: Store) -> None:
    again = repetition(run, store, "calm-raven")
    assert again.spec == replace(run.plan.spec, name="calm-raven")
    assert again.origin == {"name": "brave-otter", "id": "1d"}
    assert "is what brave-otter ran" in again.code_from and not (disk.state_dir() / "code").exists()


@pytest.mark.parametrize("harm", ["changed", "more", "gone"])
def test_changed_code_comes_from_the_copy(run: Run, store: Store, package: Path, harm: str) -> None:
    digest = tree.scan(package, cache=None).digest
    if harm == "changed":
        (package / "train.py").write_text("print('other')\n")
    elif harm == "more":
        (package / "new.py").write_text("x = 1\n")
    else:
        package.rename(package.with_name("elsewhere"))
    again = repetition(run, store, "calm-raven")
    source = Path(again.spec.job.source)
    assert source.is_relative_to(disk.state_dir()) and source.name == "net"
    assert tree.scan(source, cache=None).digest == digest
    assert replace(again.spec, name=run.name, job=run.plan.spec.job) == run.plan.spec
    assert again.spec.job.module == "net.train" and str(source) in again.code_from
    assert ("no longer exists" if harm == "gone" else "has changed since") in again.code_from


@pytest.mark.parametrize("harm", ["gone", "changed", "not kept"])
def test_without_the_code_it_is_refused(run: Run, store: Store, package: Path, harm: str) -> None:
    (package / "train.py").write_text("print('other')\n")
    archive = run.folder / "code.tar.gz"
    if harm == "gone":
        archive.unlink()
    elif harm == "changed":
        archive.write_bytes(archive.read_bytes() + b"\0")
    else:
        code = store.read_journal(run.name).code
        git = GitRecord(commit="ab" * 20)
        store.write_journal(run.name, RunNotes(code=replace(code, archive=None, git=git)))
    with pytest.raises(UsageError) as caught:
        repetition(run, store, "calm-raven")
    assert caught.value.code == "no_code" and "nothing was started" in str(caught.value.consequence)
    assert ("git checkout abababababab" in str(caught.value.hint)) == (harm == "not kept")


def test_a_run_that_sent_nothing_takes_the_folder_as_it_is(store: Store, package: Path, tmp_path: Path) -> None:
    row = store.add(plans.plan(tmp_path / "runs", job=JobSpec(source=str(package))))
    again = repetition(row, store, "calm-raven")
    assert again.spec.job.source == str(package) and "never sent its code" in again.code_from


def test_it_stays_in_its_region(store: Store, package: Path, tmp_path: Path) -> None:
    spec = plans.spec(tmp_path / "runs", target=Target.EC2, ec2=Ec2Spec(), job=JobSpec(source=str(package)))
    offer = replace(plans.offer(0.5), details=OfferDetails(region="eu-north-1"))
    row = store.add(make_plan(spec, offer, CodeSummary(files=1, bytes=1)))
    again = repetition(row, store, "calm-raven")
    assert again.spec.ec2 == Ec2Spec(region="eu-north-1") and again.spec.target is Target.EC2


def test_a_checkpoint_whose_size_a_host_does_not_tell_is_none() -> None:
    """Noted, it would damage the run's row here."""
    event = {"kind": "checkpoint", "name": "last.pt", "epoch": 1}
    told = {"files": [{"name": "last.pt", "size": "big", "sha256": "a" * 64}]}
    (odd,) = manifest(told).files
    assert odd.size < 0 and checkpoints.in_manifest(event, [odd]) is None
    known = checkpoints.in_manifest(event, [replace(odd, size=3)])
    assert known is not None and RunNotes.of(RunNotes(checkpoint=known).entries()).checkpoint == known

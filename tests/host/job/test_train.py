"""Whole runs: what they write, that they repeat to the bit, that they go on to the bit, how they end."""

from __future__ import annotations

import csv
import itertools
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from job import checkpoint, models
from job.errors import JobError
from tests import commands
from tests.host.job.conftest import SMALL, Job

KEYS = {
    "start": "model parameters epochs batch_size seed lr recipe device device_name torch steps goals goal_test_acc",
    "step": "epoch step steps loss train_acc rate",
    "epoch": "epoch epochs train_loss train_acc test_loss test_acc lr seconds best",
    "checkpoint": "epoch name",
    "result": "parameters best_epoch best_test_acc best_train_acc final_test_acc goals",
    "data": "source",
    "warning": "message",
    "error": "code message hint",
}
RESULTS = {
    "metrics.jsonl",
    "metrics.csv",
    "metrics.json",
    "predictions.csv",
    "env/requirements.txt",
    "model_summary.txt",
    "model_summary.json",
    "weights/best.safetensors",
    "weights/best.pt",
    "weights/last.safetensors",
    "weights/last.pt",
    "checkpoints/last.pt",
}


def weights(job: Job, name: str = "last") -> dict[str, torch.Tensor]:
    return load_file(job.out / "weights" / f"{name}.safetensors")


def assert_same_results(one: Job, other: Job) -> None:
    assert one.rows() == other.rows()
    for name in ("last", "best"):
        first, second = weights(one, name), weights(other, name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), name
    assert (one.out / "predictions.csv").read_bytes() == (other.out / "predictions.csv").read_bytes()
    assert one.json("metrics.json")["goals"] == other.json("metrics.json")["goals"]
    assert one.json("metrics.json")["status"] == other.json("metrics.json")["status"] == "done"


# what a run writes


def test_events_keep_the_contract(finished: Job) -> None:
    events = finished.events()
    assert finished.events_path.read_bytes().endswith(b"\n")
    for event in events:
        assert event["v"] == 1 and isinstance(event["t"], float)
        assert set(KEYS[event["kind"]].split()) <= event.keys(), event
    kinds = [event["kind"] for event in events if event["kind"] not in ("step", "warning")]
    assert kinds == ["data", "start", *["epoch", "checkpoint"] * 3, "result"]
    assert [event["epoch"] for event in events if event["kind"] == "epoch"] == [1, 2, 3]
    start = finished.events("start")[0]
    assert (start["model"], start["parameters"], start["epochs"], start["steps"]) == (3, 7_902, 3, 14)
    assert (start["batch_size"], start["lr"], start["recipe"], start["device"]) == (64, 0.01, "best", "cpu")
    assert len(finished.events("data")[-1]["sha256"]) == 4
    steps = finished.events("step")
    assert all(1 <= event["step"] <= event["steps"] == 14 for event in steps)
    gaps = [after["t"] - before["t"] for before, after in itertools.pairwise(steps)]
    assert all(gap > 0.2 for gap in gaps)


def test_results_are_complete_and_agree(finished: Job) -> None:
    found = {path.relative_to(finished.out).as_posix() for path in finished.out.rglob("*") if path.is_file()}
    assert found == RESULTS
    document, rows = finished.json("metrics.json"), finished.rows()
    best = max(rows, key=lambda row: row["test_acc"])
    assert document["best"]["epoch"] == best["epoch"] and document["best"]["test_acc"] == best["test_acc"]
    assert document["final"]["epoch"] == 3 and document["headline"] == "final"
    assert document["best_picked_on"] == "test set" and document["scored_weights"] == "average"
    for which in ("best", "final"):
        matrix = document[which]["confusion"]
        assert len(matrix) == 10 and sum(map(sum, matrix)) == 150
        right = sum(matrix[digit][digit] for digit in range(10))
        assert 100 * right / 150 == document[which]["test_acc"]
        assert document[which]["per_class_acc"][3] == 100 * matrix[3][3] / sum(matrix[3])
    assert document["data"] == {"train_images": 900, "test_images": 150, "subset": 900}
    assert document["goals"] == [
        {"goal": "test accuracy >= 99.4 %", "value": None, "met": False},
        {"goal": "parameters < 8000", "value": 7902, "met": True},
        {"goal": "epochs <= 15", "value": 3, "met": True},
    ]
    with (finished.out / "metrics.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    wanted = "step,timestamp,epoch,train_loss,train_acc,test_loss,test_acc,lr,seconds"
    assert ",".join(table[0]) == wanted
    assert [row["step"] for row in table] == ["14", "28", "42"]
    assert [float(row["test_acc"]) for row in table] == [row["test_acc"] for row in rows]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", table[0]["timestamp"])


def test_predictions_are_those_of_the_best_epoch(finished: Job) -> None:
    with (finished.out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["index", "label", "predicted", "confidence"]
    assert [int(row["index"]) for row in rows] == list(range(150))
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert 100 * right / 150 == finished.json("metrics.json")["best"]["test_acc"]
    assert all(0.1 <= float(row["confidence"]) <= 1 for row in rows)


@pytest.mark.parametrize("name", ["best", "last"])
def test_weights_score_what_the_metrics_say(finished: Job, name: str, mnist: Path) -> None:
    """The saved weights, loaded into a fresh network, give the accuracy that the metrics report for them."""
    from job.data import load
    from job.evaluate import evaluate

    plain = torch.load(finished.out / "weights" / f"{name}.pt", weights_only=True)
    safe = weights(finished, name)
    assert list(plain) == list(models.build(3).state_dict())
    assert all(torch.equal(plain[key], safe[key]) for key in plain)
    net = models.build(3)
    net.load_state_dict(plain, strict=True)
    score = evaluate(net, load(mnist)[1].first(150))
    assert score.accuracy == finished.json("metrics.json")["final" if name == "last" else "best"]["test_acc"]


# the same again


def test_a_seed_repeats_to_the_bit_and_another_does_not(finished: Job, job) -> None:  # type: ignore[no-untyped-def]
    again, other = job("--epochs", "3", *SMALL, name="again"), job("--epochs", "1", "--seed", "2", *SMALL, name="other")
    assert again.run() == 0, again.log
    assert_same_results(finished, again)
    assert other.run() == 0, other.log
    assert other.rows()[0]["train_loss"] != finished.rows()[0]["train_loss"]


def test_resume_between_epochs_is_exact(finished: Job, job, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    first = job("--epochs", "3", *SMALL, name="first")
    process, kept = first.start(), tmp_path / "kept.pt"
    try:
        first.wait_for(process, lambda event: event["kind"] == "checkpoint")
        shutil.copy(first.out / "checkpoints" / "last.pt", kept)
    finally:
        process.kill()
        process.wait()
    second = job("--epochs", "3", *SMALL, name="second", env={"CLOUDTRAIN_RESUME": str(kept)})
    assert second.run() == 0, second.log
    assert second.events("start")[0]["resumed"]["step"] == 0
    assert_same_results(finished, second)


@pytest.mark.skipif(os.name == "nt", reason="Windows ends processes without asking them")
def test_sigterm_saves_and_resume_is_exact(finished: Job, job) -> None:  # type: ignore[no-untyped-def]
    first = job("--epochs", "3", *SMALL, name="first")
    process = first.start()
    try:
        first.wait_for(process, lambda event: event["kind"] == "step" and event["epoch"] == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143, first.log
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert first.json("metrics.json")["status"] == "stopped"
    assert first.json("metrics.json")["epochs_done"] == 1 and len(first.rows()) == 1
    stopped = first.events("checkpoint")[-1]
    assert stopped["epoch"] == 1 and 0 < stopped["step"] < 14
    assert "Stopped: epoch 2 of 3, step" in first.log and "Traceback" not in first.log
    resume = str(first.out / "checkpoints" / "last.pt")
    second = job("--epochs", "3", *SMALL, name="second", env={"CLOUDTRAIN_RESUME": resume})
    assert second.run() == 0, second.log
    assert second.events("start")[0]["resumed"] == {"epoch": 1, "step": stopped["step"]}
    assert f"Resumed: 1 of 3 epochs and {stopped['step']} steps are done\nEPOCH: 1\n" in second.log
    assert_same_results(finished, second)


def test_resume_of_a_finished_run_writes_its_results_again(finished: Job, job) -> None:  # type: ignore[no-untyped-def]
    resume = str(finished.out / "checkpoints" / "last.pt")
    again = job("--epochs", "3", *SMALL, env={"CLOUDTRAIN_RESUME": resume})
    assert again.run() == 0, again.log
    found = {path.relative_to(again.out).as_posix() for path in again.out.rglob("*") if path.is_file()}
    assert found == RESULTS - {"checkpoints/last.pt"}
    assert "EPOCH" not in again.log and "Results:" in again.log
    assert_same_results(finished, again)


# how it fails


def failed(job: Job, code: str) -> str:
    """The run's one error event has this code and its message and hint are the last lines of the log."""
    (event,) = job.events("error")
    assert event["code"] == code
    assert job.log.endswith(f"error: {event['message']}\nhint: {event['hint']}\n")
    assert "Traceback" not in job.log
    return event["message"]


def test_bad_arguments_end_with_2(job) -> None:  # type: ignore[no-untyped-def]
    made = job("--model", "4")
    assert made.run() == 2
    assert failed(made, "bad_arguments").startswith("argument --model: invalid choice: 4")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_asked_for_where_there_is_none(job) -> None:  # type: ignore[no-untyped-def]
    made = job("--device", "cuda")
    assert made.run() == 1
    assert failed(made, "no_cuda") == "cuda was asked for, but torch sees no CUDA device"


def test_non_finite_loss_is_named(job) -> None:  # type: ignore[no-untyped-def]
    made = job("--epochs", "1", "--lr", "1e30", *SMALL)
    assert made.run() == 1
    message = failed(made, "non_finite_loss")
    assert re.fullmatch(
        r"the loss (is no number any more \(nan\)|grew beyond all numbers \(inf\)) in epoch 1, step \d+ "
        r"\(recipe best, adamw, peak learning rate 1e\+30\)",
        message,
    )
    assert not (made.out / "weights").exists()
    assert made.json("metrics.json")["status"] == "failed"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk_is_named(job) -> None:  # type: ignore[no-untyped-def]
    made = job("--epochs", "1", *SMALL, env={"CLOUDTRAIN_EVENTS": "/dev/full"})
    assert made.run() == 1
    assert "error: No space left on device\nhint: free some disk space\n" in made.log
    assert "Traceback" not in made.log


@pytest.mark.skipif(os.name == "nt", reason="Windows ends processes without asking them")
def test_sigterm_while_data_is_fetched(tmp_path: Path) -> None:
    """A source that never answers in full: the wish to stop is obeyed at once, without a traceback."""
    (tmp_path / "slow.py").write_text(
        "import signal, sys; from job import data, train\n"
        "def slow(folder, *, progress, note):\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    progress('a mirror', 1, 2)\n"
        "data.prepare = slow; sys.exit(train.main(sys.argv[1:]))\n"
    )
    argv = ["--data", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    env = {**os.environ, **commands.EXPECTED}
    done = commands.run(*argv, module="slow", cwd=tmp_path, env=env, timeout=60)
    assert (done.returncode, done.stderr) == (143, b"")


def test_results_folder_that_cannot_be_written(job, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    made = job("--epochs", "1", *SMALL)
    made.out.write_text("a file where the folder should be")
    assert made.run() == 1
    assert str(made.out) in failed(made, "cannot_write")


@pytest.mark.parametrize("damage", ["cut", "text", "absent", "another format"])
def test_checkpoint_that_cannot_be_read(finished: Job, tmp_path: Path, damage: str) -> None:
    kept = tmp_path / "kept.pt"
    if damage == "cut":
        kept.write_bytes((finished.out / "checkpoints" / "last.pt").read_bytes()[:5000])
    elif damage == "text":
        kept.write_text("not a checkpoint")
    elif damage == "another format":
        kept.write_bytes((finished.out / "weights" / "last.pt").read_bytes())
    with pytest.raises(JobError) as caught:
        checkpoint.load(kept, {})
    assert caught.value.code == "checkpoint_unreadable"
    assert caught.value.message.startswith(f"cannot resume from {kept}: ")


def test_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"v": 1, "trap": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(JobError):
        checkpoint.load(tmp_path / "trap.pt", {})
    assert not (tmp_path / "sprung").exists()


def test_checkpoint_of_another_run(finished: Job, job) -> None:  # type: ignore[no-untyped-def]
    resume = str(finished.out / "checkpoints" / "last.pt")
    made = job("--epochs", "4", "--seed", "9", *SMALL, env={"CLOUDTRAIN_RESUME": resume})
    assert made.run() == 1
    assert failed(made, "checkpoint_mismatch").endswith("(seed 1 then, 9 now; epochs 3 then, 4 now)")


# real accuracy


@pytest.mark.slow
@pytest.mark.mnist
@pytest.mark.skipif("CLOUDTRAIN_TEST_LONG" not in os.environ, reason="takes minutes: CLOUDTRAIN_TEST_LONG=1 runs it")
@pytest.mark.timeout(1200)  # about a minute on two quiet cores
@pytest.mark.parametrize("model", [1])  # Model 3 trains on all of it in the README's tour
def test_one_epoch_on_all_of_mnist(model: int, job) -> None:  # type: ignore[no-untyped-def]
    made = job("--model", str(model), "--epochs", "1", "--device", "cpu")
    assert made.run(timeout_s=1100) == 0, made.log
    document = made.json("metrics.json")
    assert document["data"] == {"train_images": 60_000, "test_images": 10_000, "subset": None}
    assert document["final"]["test_acc"] >= (98.5 if model == 1 else 98.0)
    assert document["goals"][0]["value"] == document["final"]["test_acc"]

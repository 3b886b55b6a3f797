"""Failures have names: what happened, what to try, and what is kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from job import devices, failures
from job.errors import JobError
from job.recipes import RECIPES
from job.step import NonFiniteLoss
from tests import commands
from tests.host.job.conftest import ROOT, SMALL, Job


def test_a_loss_that_breaks_late_keeps_the_checkpoint_before(job, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The learning rate goes wild in the second epoch: what the first one left is whole, and going on from it works."""
    made: Job = job("--epochs", "2", *SMALL)
    (tmp_path / "wild.py").write_text(
        "import sys; from job import step, train; usual = step.rate\n"
        "step.rate = lambda number, steps, recipe: 1e38 if number >= 20 else usual(number, steps, recipe)\n"
        "sys.exit(train.main(sys.argv[1:]))\n"
    )
    done = commands.run(*made.argv, module="wild", cwd=tmp_path, env=made.environment, timeout=200)
    assert done.returncode == 1, done.stderr
    (error,) = made.events("error")
    assert error["code"] == "non_finite_loss" and error["hint"].endswith("the last good checkpoint is kept")
    assert "in epoch 2, step" in error["message"] and b"Traceback" not in done.stderr
    assert made.json("metrics.json")["status"] == "failed" and len(made.rows()) == 1
    kept = torch.load(made.out / "checkpoints" / "last.pt", weights_only=True)
    assert (kept["epoch"], kept["step"]) == (1, 0)
    assert all(value.isfinite().all() for value in kept["model"].values())
    resume = str(made.out / "checkpoints" / "last.pt")
    again: Job = job("--epochs", "2", *SMALL, name="again", env={"CLOUDTRAIN_RESUME": resume})
    assert again.run() == 0, again.log


def test_non_finite_names_epoch_step_and_recipe() -> None:
    error = failures.non_finite(NonFiniteLoss(17, float("inf")), 4, RECIPES["best"][1])
    assert error.message == (
        "the loss grew beyond all numbers (inf) in epoch 4, step 17 (recipe best, adamw, peak learning rate 0.02)"
    )
    assert error.hint == "try a lower rate: --lr 0.005; the last good checkpoint is kept"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory", "the GPU"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), "out_of_memory", "the GPU"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out_of_memory", "this computer"),
        (MemoryError(), "out_of_memory", "this computer"),
        (
            RuntimeError("CUDA error: no kernel image is available for execution on the device\nx"),
            "gpu_unsupported",
            "this torch cannot run on this GPU",
        ),
        (
            RuntimeError("CUDA driver version is insufficient for CUDA runtime version"),
            "driver_too_old",
            "the NVIDIA driver",
        ),
        (RuntimeError("CUDA error: unspecified launch failure\nmore"), "cuda_failed", "the GPU failed: CUDA error: un"),
        (OSError(28, "No space left on device"), "disk_full", "No space left on device"),
        (PermissionError(13, "Permission denied", "out/x"), "cannot_write", "Permission denied (out/x)"),
    ],
)
def test_known_failures(error: BaseException, code: str, said: str) -> None:
    found = failures.named(error)
    assert found is not None and found.code == code
    assert found.message.startswith(said) and "\n" not in found.message + found.hint


def test_others_stay_unknown() -> None:
    assert failures.named(RuntimeError("shape mismatch")) is None
    assert failures.named(KeyError("x")) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit on a process's memory")
def test_out_of_memory_on_a_cpu_is_named(job) -> None:  # type: ignore[no-untyped-def]
    """A real allocation that fails: a batch of all images, in a process that may not have so much memory."""
    made: Job = job("--model", "1", "--batch-size", "30000", "--epochs", "1", "--device", "cpu")
    code = (
        "import resource, sys, job.train as t; used = int(open('/proc/self/statm').read().split()[0]) * 4096; "
        "resource.setrlimit(resource.RLIMIT_AS, (used + (900 << 20),) * 2); sys.exit(t.main(sys.argv[1:]))"
    )
    argv = [sys.executable, "-c", code, *made.argv]
    done = subprocess.run(argv, cwd=ROOT, env=made.environment, capture_output=True, timeout=200)
    assert done.returncode == 1, done.stderr
    (error,) = made.events("error")
    assert error["code"] == "out_of_memory" and "--batch-size" in error["hint"]
    assert b"Traceback" not in done.stderr
    assert made.json("metrics.json")["status"] == "failed"


def test_a_driver_that_is_too_old_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch does on such a machine: a CUDA build that warns, and says that there is no CUDA."""
    import warnings

    def unavailable() -> bool:
        warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old", stacklevel=1)
        return False

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", unavailable)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    with pytest.raises(JobError) as caught:
        devices.choose("cuda")
    assert caught.value.code == "driver_too_old"
    told: list[str] = []
    assert devices.choose("auto", told.append).type in ("cpu", "mps")
    assert told == ["the NVIDIA driver does not suit CUDA 13.0: training on the CPU, the GPU stays idle"]
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(JobError) as caught:
        devices.choose("cuda")
    assert caught.value.code == "no_cuda" and "built without CUDA" in caught.value.hint

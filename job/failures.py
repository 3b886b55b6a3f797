"""What ends a run against its will, as named failures: what happened, and what to try."""

from __future__ import annotations

import errno
import math

import torch

from job.errors import JobError
from job.recipes import Recipe
from job.step import NonFiniteLoss

KEPT = "the last good checkpoint is kept"


def non_finite(broken: NonFiniteLoss, epoch: int, recipe: Recipe) -> JobError:
    """The loss of a step of `epoch` (from 1) is nan or infinite."""
    what = "is no number any more" if math.isnan(broken.loss) else "grew beyond all numbers"
    return JobError(
        "non_finite_loss",
        f"the loss {what} ({broken.loss}) in epoch {epoch}, step {broken.step} "
        f"(recipe {recipe.name}, {recipe.optimiser}, peak learning rate {recipe.lr:g})",
        _lower(epoch, recipe),
    )


def non_finite_score(loss: float, epoch: int, recipe: Recipe) -> JobError:
    """Every loss of `epoch` (from 1) was a number, but the weights that it ended with give none."""
    return JobError(
        "non_finite_loss",
        f"after epoch {epoch} the network scores no number any more ({loss}) "
        f"(recipe {recipe.name}, {recipe.optimiser}, peak learning rate {recipe.lr:g})",
        _lower(epoch, recipe),
    )


def _lower(epoch: int, recipe: Recipe) -> str:
    """What to try; in the first epoch there is no checkpoint yet."""
    return f"try a lower rate: --lr {recipe.lr / 4:g}" + (f"; {KEPT}" if epoch > 1 else "")


def named(error: BaseException) -> JobError | None:
    """The failure that `error` is, None if it is not one that is known."""
    if isinstance(error, JobError):
        return error
    if isinstance(error, OSError):
        return _system(error)
    text = str(error)
    first = text.splitlines()[0] if text else type(error).__name__
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    ):
        where = "the GPU" if "CUDA" in text or "MPS" in text else "this computer"
        hint = f"use a smaller --batch-size, or a machine with more memory; {KEPT}"
        return JobError("out_of_memory", f"{where} has no memory left for this batch size", hint)
    if isinstance(error, RuntimeError) and "no kernel image is available" in text:
        hint = f"torch {torch.__version__} has no code for it: install another build of torch, or use --device cpu"
        return JobError("gpu_unsupported", "this torch cannot run on this GPU", hint)
    if isinstance(error, RuntimeError) and "driver" in text and ("insufficient" in text or "too old" in text):
        hint = f"update the NVIDIA driver to one for CUDA {torch.version.cuda}, or use --device cpu"
        return JobError("driver_too_old", f"the NVIDIA driver does not suit CUDA {torch.version.cuda}", hint)
    if isinstance(error, RuntimeError) and "CUDA error" in text:
        hint = f"see what nvidia-smi says of the GPU, then go on with --resume; {KEPT}"
        return JobError("cuda_failed", f"the GPU failed: {first}", hint)
    return None


def _system(error: OSError) -> JobError:
    full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    where = f" ({error.filename})" if error.filename else ""
    hint = "free some disk space" if full else "name a folder you may write with --out"
    return JobError("disk_full" if full else "cannot_write", f"{error.strerror or error}{where}", hint)

"""Which device trains, what it is called, and how many threads feed it."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from job import cores
from job.errors import JobError


def choose(asked: str, note: Callable[[str], None] = lambda line: None) -> torch.device:
    """`asked`, or for "auto" the best there is: cuda, mps, cpu. Also sets torch's thread count for this process.

    `note` is told, one line, when "auto" leaves a GPU unused because of its driver: that machine costs as much.

    Raises:
        JobError: the device asked for is not here (`no_cuda`, `driver_too_old`, `no_mps`).
    """
    torch.set_num_threads(cores.usable())
    with warnings.catch_warnings(record=True) as said:  # torch tells of an old driver by a warning
        warnings.simplefilter("always")
        cuda = torch.cuda.is_available()
    mps = torch.backends.mps.is_available()
    driver = torch.version.cuda is not None and any("driver" in str(warning.message) for warning in said)
    if asked == "auto":
        if driver and not cuda:
            note(f"the NVIDIA driver does not suit CUDA {torch.version.cuda}: training on the CPU, the GPU stays idle")
        return repeatable(torch.device("cuda" if cuda else "mps" if mps else "cpu"))
    if asked == "cuda" and not cuda and driver:
        message = f"cuda was asked for, but the NVIDIA driver does not suit CUDA {torch.version.cuda}"
        raise JobError("driver_too_old", message, "update the driver, or use --device cpu")
    if asked == "cuda" and not cuda:
        if torch.version.cuda is None:
            hint = f"torch {torch.__version__} is built without CUDA: install a CUDA build, or use --device cpu"
        else:
            hint = "see whether nvidia-smi lists a GPU, or use --device cpu"
        raise JobError("no_cuda", "cuda was asked for, but torch sees no CUDA device", hint)
    if asked == "mps" and not mps:
        raise JobError("no_mps", "mps was asked for, but torch sees no Apple GPU", "use --device cpu")
    return repeatable(torch.device(asked))


def repeatable(device: torch.device) -> torch.device:
    """`device`, on which the same seed gives the same bits from now on: no algorithm is chosen by a stopwatch."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    return device


def name(device: torch.device) -> str:
    """What a person calls the device: "Tesla T4", "Intel(R) Xeon(R) ...", "Apple GPU"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU"
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine() or "CPU"

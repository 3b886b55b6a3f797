"""Which device trains, what it is called, and how many threads feed it."""

from __future__ import annotations

import platform
import warnings
from pathlib import Path

import torch

from job import cores
from job.errors import JobError


def choose(asked: str) -> torch.device:
    """`asked`, or for "auto" the best there is: cuda, mps, cpu. Also sets torch's thread count for this process.

    Raises:
        JobError: the device asked for is not here (`no_cuda`, `no_mps`).
    """
    torch.set_num_threads(cores.usable())
    with warnings.catch_warnings(record=True) as said:  # torch tells of an old driver by a warning
        warnings.simplefilter("always")
        cuda = torch.cuda.is_available()
    mps = torch.backends.mps.is_available()
    if asked == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    if asked == "cuda" and not cuda:
        if torch.version.cuda is None:
            hint = f"torch {torch.__version__} is built without CUDA: install a CUDA build, or use --device cpu"
        elif any("driver" in str(warning.message) for warning in said):
            hint = f"the NVIDIA driver does not suit CUDA {torch.version.cuda}: update it, or use --device cpu"
        else:
            hint = "see whether nvidia-smi lists a GPU, or use --device cpu"
        raise JobError("no_cuda", "cuda was asked for, but torch sees no CUDA device", hint)
    if asked == "mps" and not mps:
        raise JobError("no_mps", "mps was asked for, but torch sees no Apple GPU", "use --device cpu")
    return torch.device(asked)


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

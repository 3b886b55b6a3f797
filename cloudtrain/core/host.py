"""What a host has, as its probe reports it: for the screen, for the plan of what is done there, and for the receipt."""

from __future__ import annotations

from dataclasses import dataclass

from cloudtrain.core.decode import Count, Moment
from cloudtrain.core.text import counted, shortened

# Why an interpreter was chosen that is not the first that was looked at.
_WHY = {
    "given": "by --python",
    "torch": "the first that has torch",
    "cuda": "the first whose torch can use the driver's CUDA",
}


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as nvidia-smi names it; memory in MiB, None where it does not say."""

    name: str
    memory_mib: Count | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What a host has.

    Attributes:
        python: path of the interpreter chosen for the job.
        torch, cuda: versions of torch and of the CUDA that it was built for; None: has none.
        without_cuda: torch says itself that it was built without.
        why: why this interpreter, a key of `_WHY`; `looked`: where others were looked for.
        nvidia_smi: its words where it lists no GPU; empty where it does; None: it is not there.
        cuda_fault: why CUDA finds no GPU, as it says; None: it does, or was not asked.
        serves: the newest CUDA that the driver has.
        logout: what becomes of programs when their login ends: "ends", "scope" (those in a scope of the user's own go
            on), or None: all go on.
        disk_free: bytes, where runs are kept.
        boot_id: changes when the machine starts anew; None where the system has no such name.
        at: unix seconds by its clock, as it answered.
    """

    python: str = ""
    python_version: str = ""
    torch: str | None = None
    cuda: str | None = None
    driver: str | None = None
    gpus: tuple[Gpu, ...] = ()
    cpus: Count = 0
    disk_free: Count = 0
    os: str = ""
    home: str = ""
    boot_id: str | None = None
    at: Moment | None = None
    without_cuda: bool = False
    why: str | None = None
    looked: tuple[str, ...] = ()
    nvidia_smi: str | None = None
    cuda_fault: str | None = None
    serves: str | None = None
    logout: str | None = None

    def idle_gpu(self, promised: str = "") -> str | None:
        """Why no GPU can be used, in words; None: one can, there is none, or that is not known.

        Args:
            promised: the GPU that the machine has by its type; empty: nobody says so.
        """
        told = []
        if self.serves is None or self.cuda_fault is not None:
            told += [f'nvidia-smi says "{shortened(self.nvidia_smi)}"'] if self.nvidia_smi else []
            told += [f'CUDA says "{shortened(self.cuda_fault)}"'] if self.cuda_fault else []
        if self.nvidia_smi is None and self.serves is None and not told:
            return "there is no nvidia-smi, so it seems to have no driver by NVIDIA" if promised else None
        if self.without_cuda:
            told.append(f"its torch {self.torch} is built without CUDA")
        elif not told and self.cuda and self.serves and _major(self.cuda) > _major(self.serves):
            driver = f"driver {self.driver}" if self.driver else "driver"
            told.append(f"torch {self.torch} is built for CUDA {self.cuda}, its {driver} has {self.serves} at most")
        return shortened(" and ".join(told), 700) or None

    def summary(self) -> str:
        """One human-readable line: "torch 2.13.0 (CUDA 12.6), Tesla T4 15 GiB, Python 3.12.3"."""
        torch = f"torch {self.torch}" + (f" (CUDA {self.cuda})" if self.cuda else "") if self.torch else "no torch"
        if self.gpus:
            memory = self.gpus[0].memory_mib
            device = (f"{len(self.gpus)} x " if len(self.gpus) > 1 else "") + self.gpus[0].name
            device += f" {memory / 1024:.0f} GiB" if memory else ""
        else:
            device = counted(self.cpus, "CPU")
        chosen = f" of {self.python} ({_WHY[self.why]})" if self.why in _WHY else ""
        return shortened(f"{torch}, {device}, Python {self.python_version}{chosen}", 300)


def _major(version: str) -> int:
    digits = version.partition(".")[0]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 6 else 0

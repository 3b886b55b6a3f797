"""What a program's packages come from, as values: as it was found before the launch, and as it was made on the host."""

from __future__ import annotations

from dataclasses import dataclass

from cloudtrain.core.decode import Count
from cloudtrain.core.text import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentPlan:
    """What a run's packages come from, found by looking before anything is launched.

    Attributes:
        source: "uv.lock", "requirements.txt", ..., in words.
        python: version that it was resolved for, "3.12"; "": it was not, or nothing has to be.
        packages: how many there are then.
        torch: version of torch among them; None: there is none.
        base: of a run on this computer, the interpreter that is taken as it is or built upon.
        why: what is not resolved, and why, in words; "": all is.
    """

    source: str
    python: str = ""
    packages: Count = 0
    torch: str | None = None
    base: str | None = None
    why: str = ""

    def __str__(self) -> str:
        if self.why:
            return f"{self.source}: {self.why}"
        if not self.python:
            return self.source
        torch = f", torch {self.torch} unless the machine's own suits" if self.torch else ""
        return f"{self.source}: {counted(self.packages, 'package')} for Python {self.python}{torch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """An environment on a host that a run's program is started in.

    Attributes:
        python: absolute path of its interpreter.
        bin: folder of its programs; None: the interpreter is in no environment of its own.
        source: what it was made of, in words; None: it is taken as it was there.
        key: name of its folder below `envs/` of the work folder, or what its image is known by; None: it was there.
        version: of its Python, "3.12"; system: "x86_64-manylinux".
        torch: version of its torch, and `torch_of` "machine" or "lock": whose; None: it has none.
        packages: how many were installed for it.
        lock_sha256: of `env/lock.txt` in the run's folder.
        imports: folder of the project, below its top, that its own packages are imported from; None: its top.
        conda: it is one of conda's, whose programs look for that.
        image: what docker runs it in; "": that is still to be built; None: in no container.
    """

    python: str
    bin: str | None = None
    source: str | None = None
    key: str | None = None
    version: str = ""
    system: str = ""
    torch: str | None = None
    torch_of: str | None = None
    packages: Count = 0
    lock_sha256: str | None = None
    imports: str | None = None
    conda: bool = False
    image: str | None = None

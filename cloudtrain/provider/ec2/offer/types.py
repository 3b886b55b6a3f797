"""Instance types: what EC2 says of them, and whether PyTorch can train on their GPU."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from cloudtrain.core.errors import CloudtrainError, Refused, UsageError
from cloudtrain.core.text import meant
from cloudtrain.provider.ec2.translate import NOTHING, translated

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client
    from types_boto3_ec2.type_defs import InstanceTypeInfoTypeDef

TRY_INSTEAD = "--instance g4dn.xlarge has a GPU that CUDA can use (1x T4 16 GB); all that do: cloudtrain instances"
TYPE_NAME = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+")

# Some of these are still offered, some have left the API; either way the answer is known without asking it.
NO_CUDA = {
    "g4ad": "its GPU is made by AMD, and CUDA needs one by NVIDIA",
    "dl1": "its accelerators are Habana Gaudi, which CUDA cannot use",
    "dl2q": "its accelerators are Qualcomm AI 100, which CUDA cannot use",
    "inf1": "its accelerators are AWS Inferentia, which CUDA cannot use",
    "inf2": "its accelerators are AWS Inferentia, which CUDA cannot use",
    "trn1": "its accelerators are AWS Trainium, which CUDA cannot use",
    "trn1n": "its accelerators are AWS Trainium, which CUDA cannot use",
    "trn2": "its accelerators are AWS Trainium, which CUDA cannot use",
    "vt1": "its accelerators encode video, and CUDA cannot use them",
    "g6f": "it has a fraction of a GPU, which the driver of AWS's deep learning images does not serve",
    "gr6f": "it has a fraction of a GPU, which the driver of AWS's deep learning images does not serve",
}
# NVIDIA, but older than Turing: the open kernel module and CUDA 13 of today's images need Turing or newer.
TOO_OLD = {"p3": "V100", "p3dn": "V100", "p2": "K80", "g3": "M60", "g3s": "M60", "g2": "K520"}


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceType:
    """One type as EC2 describes it.

    Attributes:
        memory_gib: main memory.
        gpu_name: "T4"; empty: no GPU.
        gpu_count: whole GPUs; 0 for none and for fractions of one.
        gpu_mib: nominal memory of each GPU in MiB (the driver shows a little less).
        arch: "x86_64" or "arm64".
        usage_classes: of "on-demand", "spot", "capacity-block".
        nvidia: its GPUs are by NVIDIA.
        usable_reason: why it cannot be trained on with AWS's images; None: it can.
    """

    name: str
    vcpus: int
    memory_gib: float
    gpu_name: str = ""
    gpu_count: int = 0
    gpu_mib: int = 0
    arch: str = "x86_64"
    usage_classes: tuple[str, ...] = ()
    nvidia: bool = False
    usable_reason: str | None = None

    @property
    def gpu(self) -> str:
        """Human-readable: "1x T4 16 GB"; empty: no GPU."""
        return f"{self.gpu_count}x {self.gpu_name} {gpu_gb(self.gpu_mib)} GB" if self.gpu_name else ""


def gpu_gb(mib: int) -> int:
    """The size a GPU is sold by. EC2 gives whole GiB for some (16384: T4 16 GB) and decimal GB for others (22888: L4
    24 GB)."""
    return mib // 1024 if mib % 1024 == 0 else round(mib * 1024 * 1024 / 1e9)


def family(name: str) -> str:
    """The part before the dot: "g4dn" of "g4dn.xlarge"."""
    return name.split(".", 1)[0]


@cache
def shipped() -> Mapping[str, Any]:
    """The price table that comes along, as it is in its file (`prices.json`)."""
    table: Mapping[str, Any] = json.loads(resources.files(__package__).joinpath("prices.json").read_text("utf-8"))
    return table


def refuse_known(name: str, *, own_image: bool = False) -> None:
    """Refuse what needs no look-up: not the name of a type, or a family whose accelerators CUDA cannot use.

    Args:
        own_image: the user names the image (`--ami`), which may carry an older driver.

    Raises:
        UsageError, Refused: naming what to use instead.
    """
    if not TYPE_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be an instance type",
            hint=meant(name, shipped()["types"], "a type has a family and a size, such as g4dn.xlarge"),
            consequence=NOTHING,
            code="unknown_type",
        )
    reason = NO_CUDA.get(family(name)) or (None if own_image else _too_old(family(name)))
    if reason:
        raise _unusable(name, reason)


def describe(names: Iterable[str], ec2: EC2Client) -> dict[str, InstanceType]:
    """Facts of `names` ("*" allowed), as far as the Region has them, by one DescribeInstanceTypes.

    The filter is used, not `InstanceTypes`: with that, one unknown name fails the call for all.

    Raises:
        SignInError, ConnectionFailed: EC2 did not answer.
    """
    wanted = sorted(set(names))
    with translated("look up instance types"):
        pages = ec2.get_paginator("describe_instance_types").paginate(
            Filters=[{"Name": "instance-type", "Values": wanted}]
        )
        found = [read(info) for page in pages for info in page["InstanceTypes"]]
    return {one.name: one for one in found}


def read(info: InstanceTypeInfoTypeDef) -> InstanceType:
    """One entry of DescribeInstanceTypes as our own value."""
    name = str(info["InstanceType"])
    gpu = next(iter(info.get("GpuInfo", {}).get("Gpus", [])), None)
    nvidia = gpu is not None and gpu.get("Manufacturer") == "NVIDIA"
    count = gpu.get("Count", 0) if gpu else 0
    arches = info.get("ProcessorInfo", {}).get("SupportedArchitectures", [])
    reason = NO_CUDA.get(family(name)) or _too_old(family(name))
    if reason is None and gpu is None:
        reason = "it has no GPU"
    elif reason is None and gpu is not None and not nvidia:
        reason = f"its GPU is made by {gpu.get('Manufacturer', 'another maker')}, and CUDA needs one by NVIDIA"
    elif reason is None and count < 1:
        reason = NO_CUDA["g6f"]
    return InstanceType(
        name=name,
        vcpus=info["VCpuInfo"]["DefaultVCpus"],
        memory_gib=info["MemoryInfo"]["SizeInMiB"] / 1024,
        gpu_name=gpu.get("Name", "") if gpu else "",
        gpu_count=count,
        gpu_mib=gpu.get("MemoryInfo", {}).get("SizeInMiB", 0) if gpu else 0,
        arch="arm64" if "arm64" in arches else "x86_64",
        usage_classes=tuple(str(one) for one in info.get("SupportedUsageClasses", [])),
        nvidia=nvidia,
        usable_reason=reason,
    )


def check_usable(
    name: str,
    found: Mapping[str, InstanceType],
    *,
    known: Collection[str],
    region: str,
    market: str = "on-demand",
    own_image: bool = False,
) -> InstanceType:
    """The type called `name`, if this run can use it.

    Args:
        found: what `describe` gave.
        known: names that exist somewhere, to tell a typing mistake from a type that this Region lacks.
        market: "on-demand" or "spot".
        own_image: the user names the image, which may serve older GPUs.

    Raises:
        UsageError: there is no such type; near matches are named.
        Refused: the Region lacks it, CUDA cannot use it, or it is not sold this way.
    """
    refuse_known(name, own_image=own_image)
    one = found.get(name)
    if one is None:
        raise _absent(name, [*found, *known], region)
    reason = one.usable_reason
    if reason and not (own_image and family(name) in TOO_OLD):
        raise _unusable(name, reason)
    if one.usage_classes and market not in one.usage_classes:
        sold = " and ".join(one.usage_classes)
        raise Refused(
            f"{name} is not sold as {market}, only as {sold}",
            hint="run without --spot" if market == "spot" else TRY_INSTEAD,
            consequence=NOTHING,
            code="not_offered",
        )
    return one


def not_offered(name: str, region: str) -> Refused:
    """The error for a type that `region` lacks."""
    return Refused(
        f"{name} is not offered in {region}",
        hint=f"cloudtrain instances --region {region} lists what is; or another --region",
        consequence=NOTHING,
        code="not_offered",
    )


def _absent(name: str, known: Sequence[str], region: str) -> CloudtrainError:
    if name in known:
        return not_offered(name, region)
    return UsageError(
        f"there is no instance type {name} in {region}",
        hint=meant(name, sorted(set(known)), "cloudtrain instances lists those with a GPU"),
        consequence=NOTHING,
        code="unknown_type",
    )


def _too_old(of_family: str) -> str | None:
    if (gpu := TOO_OLD.get(of_family)) is None:
        return None
    return f"the drivers of AWS's current deep learning images no longer serve its {gpu} (--ami names another)"


def _unusable(name: str, reason: str) -> Refused:
    return Refused(f"{name} cannot be used: {reason}", hint=TRY_INSTEAD, consequence=NOTHING, code="no_cuda")

"""What the emulated region sells: images, parameters, prices and quotas. Plain data, no moto.

Sources of the figures: names and layout of the images and parameters from the Deep Learning AMI release pages of 2026;
prices in USD an hour for Linux on demand in us-east-1, as public pricing stood on 2026-07-20; quota codes from the EC2
user guide. Amounts of quota are the emulator's own: a new account really has 0 for every GPU family.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

AMAZON = "898082745236"

_SIZES = ("xlarge", "2xlarge", "4xlarge", "8xlarge", "16xlarge", "12xlarge", "24xlarge", "48xlarge")
_BY_SIZE = {
    "g4dn": (0.526, 0.752, 1.204, 2.176, 4.352, 3.912),
    "g5": (1.006, 1.212, 1.624, 2.448, 4.096, 5.672, 8.144, 16.288),
    "g5g": (0.420, 0.556, 0.828, 1.372),
    "g6": (0.8048, 0.9776, 1.3232, 2.0144, 3.3968, 4.6016, 6.6752, 13.3504),
    "g6e": (1.861, 2.2421, 3.0042, 4.5286, 7.5772),
}
PRICES: Mapping[str, float] = {
    **{f"{family}.{size}": usd for family, row in _BY_SIZE.items() for size, usd in zip(_SIZES, row, strict=False)},
    "g4dn.metal": 7.824, "gr6.4xlarge": 1.5392, "gr6.8xlarge": 2.4464,
    "g6f.large": 0.202, "g6f.xlarge": 0.2375, "g6f.2xlarge": 0.475, "g6f.4xlarge": 0.95,
    "g7e.2xlarge": 3.3631, "g7e.4xlarge": 3.9982, "g7e.8xlarge": 5.2682,
    "p3.2xlarge": 3.06, "p3.8xlarge": 12.24, "p3.16xlarge": 24.48, "p3dn.24xlarge": 31.212,
    "p4d.24xlarge": 21.9576, "p4de.24xlarge": 27.4471, "p5.4xlarge": 6.88, "p5.48xlarge": 55.04,
    "p5en.48xlarge": 63.296,
}  # fmt: skip

SPOT_SHARE = 0.38
"""Spot price of the first zone as a share of the on-demand price; each further zone costs 3 % of it more."""


@dataclass(frozen=True, slots=True)
class Quota:
    """One vCPU quota: its code, name, whether it is for spot, and the instance families that count against it."""

    code: str
    name: str
    spot: bool
    families: tuple[str, ...]
    vcpus: float


QUOTAS = (
    Quota("L-DB2E81BA", "Running On-Demand G and VT instances", False, ("g", "gr", "vt"), 192.0),
    Quota("L-417A185B", "Running On-Demand P instances", False, ("p",), 192.0),
    Quota("L-3819A6DF", "All G and VT Spot Instance Requests", True, ("g", "gr", "vt"), 192.0),
    Quota("L-C4BD4855", "All P5 Spot Instance Requests", True, ("p5",), 192.0),
    Quota("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests", True, ("p",), 192.0),
    Quota("L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", False, (), 256.0),
    Quota("L-34B43A08", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests", True, (), 256.0),
)


def quota_of(instance_type: str, *, spot: bool) -> Quota:
    """The quota that a launch of `instance_type` counts against."""
    family = instance_type.split(".")[0]
    letters = family.rstrip("abcdefghijklmnopqrstuvwxyz").rstrip("0123456789") or family
    rows = [q for q in QUOTAS if q.spot == spot]
    for row in rows:
        if any(family.startswith(f) if f[-1].isdigit() else letters == f for f in row.families):
            return row
    return rows[-1]


@dataclass(frozen=True, slots=True)
class Image:
    """One machine image: size of its root snapshot in GiB, login user, and the parameters that name it."""

    id: str
    name: str
    description: str
    architecture: str
    size_gib: int
    user: str
    created: datetime
    parameters: tuple[str, ...]


def images(region: str) -> list[Image]:
    """Every image of `region`, oldest build first. Live lines were built in the last weeks, the frozen one long ago."""
    return sorted(_images(region, datetime.now(UTC)), key=lambda image: image.created)


def _images(region: str, now: datetime) -> Iterator[Image]:
    frozen = now - timedelta(days=205)
    # (PyTorch, Ubuntu, architectures, built)
    torch_lines = (
        ("2.7", "22.04", ("x86_64", "arm64"), frozen),
        ("2.11", "24.04", ("x86_64", "arm64"), now - timedelta(days=45)),
        ("2.12", "24.04", ("x86_64", "arm64"), now - timedelta(days=10)),
        ("2.13", "26.04", ("x86_64",), now - timedelta(days=5)),
    )
    for torch, ubuntu, architectures, built in torch_lines:
        for arch in architectures:
            words = "ARM64 AMI OSS Nvidia Driver GPU" if arch == "arm64" else "OSS Nvidia Driver AMI GPU"
            yield _deep_learning(
                region,
                arch,
                f"{words} PyTorch {torch} (Ubuntu {ubuntu})",
                f"oss-nvidia-driver-gpu-pytorch-{torch}-ubuntu-{ubuntu}",
                45,
                built,
            )
    for ubuntu, built in (("22.04", now - timedelta(days=12)), ("24.04", now - timedelta(days=8))):
        for arch in ("x86_64", "arm64"):
            words = "ARM64 Base OSS Nvidia Driver GPU AMI" if arch == "arm64" else "Base OSS Nvidia Driver GPU AMI"
            yield _deep_learning(
                region, arch, f"{words} (Ubuntu {ubuntu})", f"base-oss-nvidia-driver-gpu-ubuntu-{ubuntu}", 35, built
            )
    words, line = "Base OSS Nvidia Driver GPU AMI (Amazon Linux 2023)", "base-oss-nvidia-driver-gpu-amazon-linux-2023"
    yield _deep_learning(region, "x86_64", words, line, 35, now - timedelta(days=9), user="ec2-user")


def _deep_learning(
    region: str, arch: str, words: str, line: str, size: int, built: datetime, *, user: str = "ubuntu"
) -> Image:
    name = f"Deep Learning {words} {built:%Y%m%d}"
    return Image(
        id=_id(region, f"{arch} {name}"),
        name=name,
        description=f"Supported EC2 instances and release notes of {line}",
        architecture=arch,
        size_gib=size,
        user=user,
        created=built,
        parameters=(f"/aws/service/deeplearning/ami/{arch}/{line}/latest/ami-id",),
    )


def _id(region: str, name: str) -> str:
    return "ami-0" + hashlib.sha256(f"{region} {name}".encode()).hexdigest()[:16]


def spot_price(instance_type: str, zone: str) -> float | None:
    """Spot price in USD an hour of `instance_type` in `zone`; None where no price is known."""
    price = PRICES.get(instance_type)
    if price is None:
        return None
    return round(price * SPOT_SHARE * (1 + 0.03 * (ord(zone[-1]) - ord("a"))), 4)

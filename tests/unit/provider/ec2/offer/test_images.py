"""Which line of images is taken, whose login it has, and which cannot be booted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cloudtrain.provider.ec2.offer import images
from cloudtrain.provider.ec2.offer.images import Line

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def line(name: str, days: int = 10) -> Line:
    return Line(name, "ami-0123456789abcdef0", NOW - timedelta(days=days))


def torch(version: str, ubuntu: str = "24.04", days: int = 10) -> Line:
    return line(f"oss-nvidia-driver-gpu-pytorch-{version}-ubuntu-{ubuntu}", days)


@pytest.mark.parametrize(
    ("lines", "taken", "live"),
    [
        pytest.param([torch("2.12"), torch("2.13"), torch("2.9")], "2.13", True, id="newest version, not newest text"),
        pytest.param([torch("2.12", days=1), torch("2.13", days=20)], "2.13", True, id="version before build date"),
        pytest.param([torch("3.0", days=200), torch("2.13")], "2.13", True, id="frozen line skipped"),
        pytest.param([torch("2.13", "26.04"), torch("2.12")], "2.12", True, id="other Ubuntu skipped"),
        pytest.param([torch("2.13", "26.04"), torch("2.12", days=300)], "2.12", False, id="all of ours frozen"),
    ],
)
def test_the_newest_live_line_is_picked(lines: list[Line], taken: str, live: bool) -> None:
    found = images.pick(lines)
    assert found is not None
    assert (found[0].name, found[1]) == (f"oss-nvidia-driver-gpu-pytorch-{taken}-ubuntu-24.04", live)


@pytest.mark.parametrize("lines", [[], [torch("2.7", "22.04"), line("base-oss-nvidia-driver-gpu-ubuntu-24.04")]])
def test_without_a_line_of_ours_nothing_is_picked(lines: list[Line]) -> None:
    assert images.pick(lines) is None


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"State": "failed"}, "failed"),
        ({"Platform": "windows"}, "Windows"),
        ({"RootDeviceType": "instance-store"}, "EBS"),
        ({"Architecture": "i386"}, "i386"),
    ],
)
def test_images_that_cannot_be_booted_by_us(more: dict[str, str], why: str) -> None:
    image: Any = {"State": "available", "Architecture": "x86_64", "RootDeviceType": "ebs", **more}
    assert why in (images._misfit(image, "x86_64") or "")


@pytest.mark.parametrize(
    ("name", "user"),
    [
        ("Deep Learning OSS Nvidia Driver AMI GPU PyTorch 2.12 (Ubuntu 24.04) 20261110", "ubuntu"),
        ("Deep Learning Base OSS Nvidia Driver GPU AMI (Amazon Linux 2023) 20261110", "ec2-user"),
        ("al2023-ami-2023.9-x86_64", "ec2-user"),
        ("debian-13-amd64-20261001", "admin"),
        ("my-own-image", "ubuntu"),
    ],
)
def test_the_login_name_follows_the_system(name: str, user: str) -> None:
    assert images.login_user({"Name": name}) == user

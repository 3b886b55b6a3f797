"""Which image (AMI) a run boots: AWS's newest deep learning image with PyTorch, found by its parameter or its name.

AWS publishes each image line as a public parameter of Systems Manager,
`/aws/service/deeplearning/ami/ARCH/LINE/latest/ami-id`. "latest" is the newest build within one line (one PyTorch on
one Ubuntu), and lines are frozen after some months: so all lines are listed and the newest live one is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from cloudtrain.core.errors import CloudtrainError, Refused, SignInError, UsageError
from cloudtrain.provider.ec2.translate import NOTHING, code_of, translated

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client
    from types_boto3_ec2.type_defs import FilterTypeDef, ImageTypeDef
    from types_boto3_ssm import SSMClient
    from types_boto3_ssm.type_defs import ParameterTypeDef

ROOT = "/aws/service/deeplearning/ami/{arch}"
UBUNTU = "24.04"
PINNED = f"oss-nvidia-driver-gpu-pytorch-2.12-ubuntu-{UBUNTU}"
PYTORCH_LINE = re.compile(r"oss-nvidia-driver-gpu-pytorch-(\d+)\.(\d+)-ubuntu-(\d\d\.\d\d)")
# Live lines are rebuilt about monthly. Compared with the newest build seen, not with this computer's clock.
FROZEN_AFTER = timedelta(days=90)
# AWS's accounts for deep learning images.
DEEP_LEARNING_OWNERS = ["amazon", "898082745236"]
NAME_PATTERNS = {
    "x86_64": f"Deep Learning OSS Nvidia Driver AMI GPU PyTorch 2.* (Ubuntu {UBUNTU}) *",
    "arm64": f"Deep Learning ARM64 AMI OSS Nvidia Driver GPU PyTorch 2.* (Ubuntu {UBUNTU}) *",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The image of a run.

    Attributes:
        arch: "x86_64" or "arm64".
        root_device: device name that the launch must give the root volume.
        root_gb: GiB that the root volume needs at least.
        user: login name.
        owner: account that published it, "amazon" for AWS itself.
        source: how it was found, in words.
        notes: why not by a better way, in words; empty: it was the first choice.
    """

    id: str
    name: str
    arch: str
    root_device: str
    root_gb: int
    user: str
    owner: str
    source: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """One parameter: an image line, its newest build and when that was published."""

    name: str
    image_id: str
    built: datetime


def resolve(arch: str, ec2: EC2Client, ssm: SSMClient, *, ami: str | None = None) -> Image:
    """The image for `arch`: the one configured, else the first of the order in this module's text that exists.

    Order: newest live PyTorch line for Ubuntu 24.04, the pinned line, a search by name. Two calls when the first
    choice holds (and one for each further page of the listing).

    Args:
        ami: configured image; it is used or refused, never replaced.

    Raises:
        UsageError, Refused: the configured image does not exist or does not fit; no image was found.
        SignInError, ConnectionFailed: EC2 did not answer.
    """
    if ami is not None:
        return _configured(ami, arch, ec2)
    notes: list[str] = []
    for line, why in _lines(arch, ssm, notes):
        found = _by_id(line.image_id, ec2)
        if found is not None and _misfit(found, arch) is None:
            return _image(found, source=why, notes=notes)
        notes.append(f"{line.name} names {line.image_id}, which cannot be used")
    found = _newest_named(arch, ec2)
    if found is not None:
        return _image(found, source="newest PyTorch image by name", notes=notes)
    notes.append("no deep learning image was found by name")
    raise Refused(
        f"no Deep Learning image with PyTorch was found for {arch}",
        hint="--ami ami-... names an image that has PyTorch; use --region for another Region",
        consequence=NOTHING,
        code="no_image",
        detail="\n".join(notes) or None,
    )


def _lines(arch: str, ssm: SSMClient, notes: list[str]) -> Iterator[tuple[Line, str]]:
    """Image lines in the order to try them, each with how it was found."""
    try:
        lines = list_lines(arch, ssm)
    except CloudtrainError as error:
        if isinstance(error, SignInError) and error.code != "denied":
            raise
        notes.append(f"image lines could not be listed: {error.message}")
        try:
            lines = _pinned_line(arch, ssm)
        except CloudtrainError as again:
            notes.append(f"nor be asked for by name: {again.message}")
            return
    if not lines:
        notes.append("this Region publishes no deep learning images as parameters")
    best = pick(lines)
    if best is not None:
        line, live = best
        if not live:
            notes.append(f"{line.name} has not been rebuilt since {line.built.date().isoformat()}")
        yield line, f"{'newest live' if live else 'newest'} PyTorch line for Ubuntu {UBUNTU}"
    pinned = next((line for line in lines if line.name == PINNED), None)
    if pinned is not None and (best is None or best[0].name != PINNED):
        yield pinned, "pinned PyTorch line"


def list_lines(arch: str, ssm: SSMClient) -> list[Line]:
    """All image lines of `arch` in the Region, by GetParametersByPath (10 a page, about 60 in all).

    Raises:
        SignInError: the right is missing (code "denied"), or no valid credentials.
        ConnectionFailed: no answer.
    """
    with translated("list the image lines"):
        pages = ssm.get_paginator("get_parameters_by_path").paginate(
            Path=ROOT.format(arch=arch), Recursive=True, PaginationConfig={"PageSize": 10}
        )
        return _read([row for page in pages for row in page["Parameters"]])


def _pinned_line(arch: str, ssm: SSMClient) -> list[Line]:
    with translated("ask for image lines by name"):
        return _read(ssm.get_parameters(Names=[f"{ROOT.format(arch=arch)}/{PINNED}/latest/ami-id"])["Parameters"])


def _read(rows: Sequence[ParameterTypeDef]) -> list[Line]:
    return [
        Line(row["Name"].split("/")[-3], row["Value"], row["LastModifiedDate"])
        for row in rows
        if row["Name"].endswith("/latest/ami-id")
    ]


def pick(lines: Sequence[Line]) -> tuple[Line, bool] | None:
    """The PyTorch line for our Ubuntu to take, and whether it is live: live before frozen, then by version.

    None: there is none.
    """
    if not lines:
        return None
    newest = max(line.built for line in lines)

    def rank(line: Line) -> tuple[bool, tuple[int, ...]]:
        found = PYTORCH_LINE.fullmatch(line.name)
        version = (int(found.group(1)), int(found.group(2))) if found else ()
        return newest - line.built <= FROZEN_AFTER, version

    ours = [line for line in lines if (m := PYTORCH_LINE.fullmatch(line.name)) and m.group(3) == UBUNTU]
    if not ours:
        return None
    best = max(ours, key=rank)
    return best, rank(best)[0]


def _by_id(image_id: str, ec2: EC2Client) -> ImageTypeDef | None:
    with translated("look up the image"):
        try:
            images = ec2.describe_images(ImageIds=[image_id])["Images"]
        except ClientError as error:
            if not code_of(error).startswith(("InvalidAMIID", "InvalidAMIId")):
                raise
            return None
    return images[0] if images else None


def _newest_named(arch: str, ec2: EC2Client) -> ImageTypeDef | None:
    filters: list[FilterTypeDef] = [
        {"Name": "name", "Values": [NAME_PATTERNS[arch]]},
        {"Name": "architecture", "Values": [arch]},
        {"Name": "state", "Values": ["available"]},
    ]
    with translated("search for an image by name"):
        images = ec2.describe_images(Owners=DEEP_LEARNING_OWNERS, Filters=filters)["Images"]
    fitting = [one for one in images if _misfit(one, arch) is None]
    return max(fitting, key=lambda one: one.get("CreationDate", ""), default=None)


def _misfit(image: ImageTypeDef, arch: str) -> str | None:
    """Why an image cannot be booted by us on `arch`; None: it can."""
    if image.get("State", "available") != "available":
        return f"it is {image.get('State')}"
    if image.get("Architecture") != arch:
        return f"it is made for {image.get('Architecture', 'another architecture')}, the instance type is {arch}"
    if str(image.get("Platform", "")).lower() == "windows":
        return "it runs Windows"
    if image.get("RootDeviceType", "ebs") != "ebs":
        return "its root is not an EBS volume"
    return None


def _configured(ami: str, arch: str, ec2: EC2Client) -> Image:
    if not re.fullmatch(r"ami-[0-9a-f]{8,17}", ami):
        raise UsageError(
            f"{ami!r} cannot be the id of an image",
            hint="--ami ami-0123456789abcdef0, or leave it out for AWS's newest PyTorch image",
            consequence=NOTHING,
            code="bad_image",
        )
    found = _by_id(ami, ec2)
    if found is None:
        raise UsageError(
            f"there is no image {ami} in this Region that this account may use",
            hint="image ids differ from Region to Region; leave --ami out for AWS's newest PyTorch image",
            consequence=NOTHING,
            code="no_image",
        )
    misfit = _misfit(found, arch)
    if misfit is not None:
        raise Refused(
            f"{ami} cannot be used: {misfit}",
            hint="leave --ami out for an image that fits",
            consequence=NOTHING,
            code="bad_image",
        )
    return _image(found, source="--ami", notes=())


def login_user(image: ImageTypeDef) -> str:
    """Login name by what the image calls itself; Ubuntu's where it says nothing."""
    text = f"{image.get('Name', '')} {image.get('Description', '')}".lower()
    users = {
        "ubuntu": "ubuntu",
        **dict.fromkeys(("amazon linux", "al2023", "amzn", "red hat", "rhel", "suse"), "ec2-user"),
        "debian": "admin",
        "rocky": "rocky",
        "fedora": "fedora",
    }
    return next((user for word, user in users.items() if word in text), "ubuntu")


def _image(found: ImageTypeDef, *, source: str, notes: Sequence[str]) -> Image:
    root = found.get("RootDeviceName", "/dev/sda1")
    mappings = {one.get("DeviceName"): one.get("Ebs", {}) for one in found.get("BlockDeviceMappings", [])}
    return Image(
        id=found["ImageId"],
        name=found.get("Name", found["ImageId"]),
        arch=str(found.get("Architecture", "")),
        root_device=root,
        root_gb=mappings.get(root, {}).get("VolumeSize", 0),
        user=login_user(found),
        owner=found.get("ImageOwnerAlias") or found.get("OwnerId", ""),
        source=source,
        notes=tuple(notes),
    )


def root_size(image: Image, wanted: int | None) -> tuple[int, str | None]:
    """GiB of the root volume, never below the image's own (EC2 refuses that), and a note if more than `wanted`."""
    size = max(image.root_gb, wanted or 0)
    if wanted is not None and wanted < size:
        return size, f"the image needs {size} GB, so the disk is not made {wanted} GB"
    return size, None

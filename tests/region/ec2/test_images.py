"""The image of a run: the newest live line, and each other way to it in its order with its reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cloudtrain.core.errors import ExitCode, Refused, SignInError, UsageError
from cloudtrain.emulator.region import Region
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.offer import images
from cloudtrain.provider.ec2.offer.images import Image

Opens = Callable[..., Region]
Connects = Callable[..., Clients]


def resolve(clients: Clients, arch: str = "x86_64", **more: Any) -> Image:
    return images.resolve(arch, clients.ec2, clients.ssm, **more)


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
def test_the_first_choice_says_nothing_else(region_of: Opens, clients_of: Connects, arch: str) -> None:
    region = region_of()
    found = resolve(clients_of(region), arch)
    assert "PyTorch 2.12 (Ubuntu 24.04)" in found.name
    assert (found.arch, found.user, found.root_gb, found.notes) == (arch, "ubuntu", 45, ())
    assert "newest live" in found.source
    assert [call["action"] for call in region.calls()] == ["GetParametersByPath", "DescribeImages"]


@pytest.mark.parametrize(("fault", "says"), [("ssm-missing", "publishes no"), ("ssm-denied", "could not be listed")])
def test_without_parameters_the_search_by_name_finds_it(
    region_of: Opens, clients_of: Connects, fault: str, says: str
) -> None:
    clients = clients_of(region_of(fault))
    for arch in ("x86_64", "arm64"):
        found = resolve(clients, arch)
        assert "PyTorch 2.12 (Ubuntu 24.04)" in found.name
        assert (found.arch, found.source) == (arch, "newest PyTorch image by name")
        assert any(says in note for note in found.notes)


def test_if_only_the_listing_is_denied_the_pinned_line_is_asked_for(region_of: Opens, rejecting: Any) -> None:
    found = resolve(rejecting(region_of(), GetParametersByPath="AccessDeniedException"))
    assert any("GetParametersByPath" in note for note in found.notes)
    assert "PyTorch" in found.source


def test_credentials_that_ended_are_no_reason_to_fall_back(region_of: Opens, rejecting: Any) -> None:
    with pytest.raises(SignInError) as caught:
        resolve(rejecting(region_of(), GetParametersByPath="ExpiredTokenException"))
    assert caught.value.code == "expired"


def test_an_image_that_is_gone_gives_way_to_the_next(region_of: Opens, clients_of: Connects) -> None:
    clients = clients_of(region_of())
    first = resolve(clients)
    clients.ec2.deregister_image(ImageId=first.id)
    second = resolve(clients)
    assert second.id != first.id
    assert any(first.id in note for note in second.notes)


@pytest.mark.parametrize("fault", [None, "ssm-missing"])
def test_without_a_pytorch_image_nothing_is_launched(region_of: Opens, clients_of: Connects, fault: str | None) -> None:
    region = region_of(*([fault] if fault else []))
    clients = clients_of(region)
    for one in clients.ec2.describe_images(Filters=[{"Name": "name", "Values": ["Deep Learning*PyTorch*"]}])["Images"]:
        clients.ec2.deregister_image(ImageId=one["ImageId"])
    assert clients.ec2.describe_images(Filters=[{"Name": "name", "Values": ["Deep Learning*Base*"]}])["Images"]
    with pytest.raises(Refused, match="no Deep Learning image with PyTorch was found for x86_64") as caught:
        resolve(clients)
    assert (caught.value.code, caught.value.exit_code) == ("no_image", ExitCode.REFUSED)
    assert caught.value.consequence == "nothing was created"
    assert "--ami" in (caught.value.hint or "") and "no deep learning image was found by name" in str(
        caught.value.detail
    )


def test_the_configured_image_is_used_and_no_parameter_is_read(region_of: Opens, clients_of: Connects) -> None:
    region = region_of()
    clients = clients_of(region)
    [base] = clients.ec2.describe_images(
        Filters=[{"Name": "name", "Values": ["Deep Learning Base*(Amazon Linux 2023)*"]}]
    )["Images"]
    found = resolve(clients, ami=base["ImageId"])
    assert (found.id, found.user, found.source) == (base["ImageId"], "ec2-user", "--ami")
    assert not region.calls("GetParametersByPath")


def test_a_configured_image_is_refused_never_replaced(region_of: Opens, clients_of: Connects) -> None:
    clients = clients_of(region_of())
    arm = resolve(clients, "arm64").id
    with pytest.raises(Refused, match="arm64") as wrong:
        resolve(clients, ami=arm)
    assert wrong.value.code == "bad_image"
    with pytest.raises(UsageError) as absent:
        resolve(clients, ami="ami-0123456789abcdef0")
    assert absent.value.code == "no_image"
    with pytest.raises(UsageError) as malformed:
        resolve(clients, ami="ubuntu")
    assert malformed.value.code == "bad_image"


def test_the_disk_is_never_smaller_than_the_image(region_of: Opens, clients_of: Connects) -> None:
    image = resolve(clients_of(region_of()))
    assert images.root_size(image, None) == (45, None)
    assert images.root_size(image, 100) == (100, None)
    size, said = images.root_size(image, 20)
    assert size == 45
    assert said is not None

"""Who logs in to an image that is not Amazon's: its own user if its name tells it, else one that the start-up data
makes."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from moto.ec2.models import ec2_backends

from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.emulator.aws import account
from cloudtrain.emulator.aws.state import REGIONS
from cloudtrain.emulator.region import Region
from cloudtrain.provider.ec2.user_data import LOGIN
from tests.region.ec2.conftest import QUICK


@pytest.fixture
def own_image(region_of: Callable[..., Region]) -> Callable[[str, str], tuple[Region, str]]:
    """A region in which one image is the account's own, with this name and this user."""

    def make(name: str, user: str) -> tuple[Region, str]:
        region = region_of()
        backend = ec2_backends[region.account][region.name]
        account.stock(backend, REGIONS[region.account])
        image = next(one for one in backend.amis.values() if "PyTorch 2.12 (Ubuntu 24.04)" in one.name)
        image.name, image.description, image.login_user = name, "", user
        image.owner_id, image.owner_alias = region.account, None
        return region, image.id

    return make


def logged_in(trip: Any) -> str:
    """Who the machine says that we are."""
    instance = trip.acquire()
    with trip.open(instance) as transport:
        said: bytes = transport.run(["sh", "-c", "echo $USER; sudo -n true"]).stdout
    login = trip.machine(instance).login()
    assert login is not None and login.user == said.decode().strip()
    return said.decode().strip()


@pytest.mark.parametrize(
    ("name", "user", "expected"),
    [
        ("vision-2026-11", "admin", LOGIN),
        ("vision-2026-11", "ubuntu", "ubuntu"),
        ("our Ubuntu, hardened", "ops", LOGIN),
    ],
)
def test_the_machine_tells_whom_it_lets_in(trip_of: Any, own_image: Any, name: str, user: str, expected: str) -> None:
    region, ami = own_image(name, user)
    trip = trip_of(region=region, ami=ami)
    assert logged_in(trip) == expected
    assert ("has let in no" in trip.said()) is (expected == LOGIN)
    found = trip.find()
    assert found is not None and found.user == expected


def test_a_login_that_is_named_is_made_and_no_other_is_tried(trip_of: Any, own_image: Any) -> None:
    region, ami = own_image("vision-2026-11", "admin")
    trip = trip_of(region=region, ami=ami, user="trainer")
    assert trip.plan.offer.details.user == "trainer"
    assert logged_in(trip) == "trainer" and "has let in no" not in trip.said()


def test_images_of_amazon_get_no_further_user(trip_of: Any) -> None:
    trip = trip_of()
    assert logged_in(trip) == "ubuntu"
    told = base64.b64decode(trip.launches()[0]["parameters"]["UserData"])
    assert b"ssh_authorized_keys" in told and b'"users"' not in told


def test_where_neither_is_let_in_the_flag_is_named(trip_of: Any, own_image: Any) -> None:
    region, ami = own_image("vision-2026-11", "admin")
    trip = trip_of(region=region, ami=ami, pace=replace(QUICK, auth=0.5))
    instance = trip.acquire()
    region.inject("auth-refused:60")
    with pytest.raises(ConnectionFailed) as caught:
        trip.open(instance)
    assert caught.value.code == "auth_refused" and "--login USER" in str(caught.value.hint)

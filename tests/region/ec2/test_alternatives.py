"""What a plan is compared with, from the shipped table alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cloudtrain.core.spec import RunSpec
from cloudtrain.emulator.region import Region
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.offer import alternatives, offers, prices

TABLE = prices.load()


@pytest.mark.parametrize(
    ("asked", "beside"),
    [
        (["g4dn.xlarge"], ("g6.xlarge", "g5.xlarge")),
        (["g6.xlarge"], ("g4dn.xlarge", "g5.xlarge")),
        (["g5.xlarge"], ("g4dn.xlarge", "g6.xlarge", "g6e.xlarge")),
        (["g4dn.4xlarge"], ("g4dn.xlarge", "g6.xlarge", "g5.xlarge")),
        (["g4dn.xlarge", "g6.xlarge"], ("g5.xlarge", "g6e.xlarge")),
        (["g4dn.xlarge", "g6.xlarge", "g5.xlarge", "g6e.xlarge"], ()),
        (["no.such"], ()),
        ([], ()),
    ],
)
def test_the_same_gpu_for_less_and_the_next_ones(asked: list[str], beside: tuple[str, ...]) -> None:
    assert alternatives.near(asked, TABLE, "us-east-1") == beside


@pytest.mark.parametrize("name", [name for name in TABLE.names if name in TABLE.shipped])
def test_only_what_could_take_its_place(name: str) -> None:
    chosen = TABLE.specs[name]
    found = alternatives.near([name], TABLE, "us-east-1")
    assert len(found) <= alternatives.MOST and name not in found
    for other in (TABLE.specs[one] for one in found):
        assert (other.arch, other.gpu_count) == (chosen.arch, chosen.gpu_count)
        assert not other.name.startswith(("p2.", "p3.", "p3dn.", "g3"))


def test_an_offer_shows_what_the_region_sells(
    region_of: Callable[..., Region], clients_of: Callable[..., Clients], spec_of: Callable[..., RunSpec]
) -> None:
    clients = clients_of(region_of())
    offer = offers.survey(spec_of(), clients)
    assert [one.type for one in offer.alternatives] == ["g6.xlarge", "g5.xlarge"]
    [chosen] = offer.candidates
    for one in offer.alternatives:
        assert one.zones and one.gpu and one.vcpus == 4 and one.most_per_hour is None
        assert one.price_per_hour is not None and chosen.price_per_hour is not None
        assert one.price_per_hour > chosen.price_per_hour
    assert [one["type"] for one in offer.details["candidates"]] == ["g4dn.xlarge"], "none of them is launched"
    spot = offers.survey(spec_of(spot=True), clients)
    assert spot.alternatives, "spot is compared with spot"
    for one in spot.alternatives:
        assert one.price_per_hour is not None and one.most_per_hour is not None
        assert one.price_per_hour < one.most_per_hour

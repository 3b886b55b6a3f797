"""What a plan is compared with, from the shipped table alone."""

from __future__ import annotations

from collections.abc import Callable

from cloudtrain.core.spec import RunSpec
from cloudtrain.emulator.region import Region
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.offer import offers


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
    assert [one.type for one in offer.details.candidates] == ["g4dn.xlarge"], "none of them is launched"
    spot = offers.survey(spec_of(spot=True), clients)
    assert spot.alternatives, "spot is compared with spot"
    for one in spot.alternatives:
        assert one.price_per_hour is not None and one.most_per_hour is not None
        assert one.price_per_hour < one.most_per_hour

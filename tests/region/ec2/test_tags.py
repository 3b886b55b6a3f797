"""Tags of the user's own: in the launch call, on all that it makes; and the organization that demands them."""

from __future__ import annotations

from typing import Any

import pytest

from cloudtrain.core.errors import ExitCode, SignInError
from cloudtrain.provider.ec2 import tags

THEIRS = {"team": "vision", "cost center": "42/b", "Name": "mine"}


def test_all_that_a_launch_makes_carries_them_from_the_call_on(trip_of: Any) -> None:
    trip = trip_of("tags-demanded:team:cost center", tags=THEIRS, spot=True)
    instance = trip.acquire()
    ec2 = trip.clients.ec2
    made = {
        "instance": ec2.describe_instances(InstanceIds=[instance.id])["Reservations"][0]["Instances"][0]["Tags"],
        "volume": ec2.describe_volumes()["Volumes"][0]["Tags"],
        "interface": ec2.describe_network_interfaces()["NetworkInterfaces"][0]["TagSet"],
        "spot request": ec2.describe_spot_instance_requests()["SpotInstanceRequests"][0]["Tags"],
        "group": ec2.describe_security_groups(Filters=tags.where())["SecurityGroups"][0]["Tags"],
    }
    for kind, found in made.items():
        assert THEIRS.items() <= tags.as_map(found).items(), kind
        assert tags.as_map(found)[tags.RUN] == "brave-otter", kind
    assert not trip.region.calls("CreateTags")
    trip.release(instance)
    assert trip.left() == {}


def test_an_organization_that_demands_others_is_quoted_and_nothing_stays(trip_of: Any) -> None:
    trip = trip_of("tags-demanded:team", tags={"Team": "vision"})
    with pytest.raises(SignInError) as caught:
        trip.acquire()
    error = caught.value
    assert (error.code, error.exit_code) == ("denied", ExitCode.SIGN_IN)
    assert "explicit deny in a service control policy" in str(error.detail) and "instance/*" in str(error.detail)
    assert trip.region.account not in str(error.detail) and "EMULATED" not in str(error.detail)
    assert "--tag KEY=VALUE" in str(error.hint) and error.consequence == "no instance is running"
    assert trip.effects() == 0 and trip.left() == {}

"""Two people in one account: what the other has launched is shown with its owner, and left to them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from cloudtrain.cleanup import leftovers
from cloudtrain.console.pages import leftovers as shown
from cloudtrain.core.errors import UsageError
from cloudtrain.core.events import discard
from cloudtrain.core.spec import Ec2Spec
from cloudtrain.provider.ec2 import doctor, tags
from cloudtrain.provider.ec2.end.cleaning import Known
from cloudtrain.provider.ec2.offer import account
from cloudtrain.provider.ec2.reach import adopt
from tests.region.whole_path.place import Place, left

OTHER = "AROAOTHERXXXXXXXXXXXX:anna@example.org"


@pytest.fixture
def theirs(trip_of: Callable[..., Any]) -> Any:
    """A machine whose lease is over, launched by somebody else."""
    trip = trip_of()
    trip.instance = trip.acquire()
    (group,) = trip.clients.ec2.describe_security_groups(Filters=tags.where())["SecurityGroups"]
    ids = [trip.instance.id, group["GroupId"]]
    marks = [{"Key": tags.OWNER, "Value": OTHER}, {"Key": tags.EXPIRES_AT, "Value": tags.utc_text(time.time() - 7200)}]
    trip.clients.ec2.create_tags(Resources=ids, Tags=marks)
    yield trip
    trip.clients.ec2.terminate_instances(InstanceIds=[trip.instance.id])


def look(trip: Any, *known: Known, anyone: bool = False) -> leftovers.View:
    return leftovers.look([trip.clients], known, time.time(), discard, anyone=anyone)


def test_it_is_shown_with_its_owner_and_never_safe(theirs: Any) -> None:
    view = look(theirs)
    assert len(view.leftovers) == 2
    for one in view.leftovers:
        assert one.others and not one.safe and OTHER in one.why
        assert shown.record(one)["owner"] == OTHER and shown.record(one)["mine"] is False
    told = "\n".join(shown.listing(view, time.time(), command="cloudtrain clean"))
    assert "2 of these are another's and stay;" in told
    assert told.count(OTHER) == 2 and "cloudtrain clean --owner any" in told
    assert "--yes" not in told
    remote = "\n".join(shown.remote(view, time.time()))
    assert OTHER in remote and "orphan" not in remote and "takes it back" not in remote
    assert all(one.safe and one.others for one in look(theirs, anyone=True).leftovers)


def test_what_the_registry_here_has_launched_is_ours_whatever_its_tag(theirs: Any) -> None:
    known = Known(run="brave-otter", tokens=frozenset({theirs.instance.details.token}))
    assert not any(one.others for one in look(theirs, known).leftovers)


def test_of_an_earlier_release_and_of_an_unnamed_session(theirs: Any) -> None:
    arn = theirs.clients.sts.get_caller_identity()["Arn"]
    assert hashlib.sha256(arn.encode()).hexdigest()[:16] in account.identify(theirs.clients).owners
    assert tags.owner_of("AROA:botocore-session-1") == tags.owner_of("AROA:botocore-session-2")
    assert tags.is_others(OTHER, frozenset({"me"})) and not tags.is_others("", frozenset({"me"}))


def test_adopt_leaves_it_to_them(theirs: Any) -> None:
    with pytest.raises(UsageError) as caught:
        adopt.find(theirs.clients, theirs.instance.id, "ubuntu")
    assert OTHER in caught.value.message and "--owner any" in str(caught.value.hint)
    assert adopt.find(theirs.clients, theirs.instance.id, "ubuntu", anyone=True).run == "brave-otter"


def test_the_doctor_asks_nobody_to_end_it(theirs: Any) -> None:
    lines = [check for check in doctor.checks(Ec2Spec(), lambda: theirs.clients) if check.name == "leftovers"]
    assert lines and all(OTHER in line.message and line.fix is None and line.status == "ok" for line in lines)


def test_clean_ends_it_with_owner_any_alone(theirs: Any, tmp_path: Any) -> None:
    place = Place.in_account(theirs.region, tmp_path)
    for argv in (("--yes",), ("--all", "--yes"), ("--all", "--yes", theirs.instance.id)):
        told = place.cli("clean", *argv).stdout.decode()
        assert OTHER in told and len(left(theirs.region)["instances"]) == 1
        assert not theirs.region.calls("TerminateInstances")
    rows = json.loads(place.cli("clean", "--json").stdout)["leftovers"]
    assert [row["owner"] for row in rows] == [OTHER, OTHER] and not any(row["mine"] or row["safe"] for row in rows)
    place.cli("clean", "--owner", "any", "--yes")
    assert left(theirs.region) == {}

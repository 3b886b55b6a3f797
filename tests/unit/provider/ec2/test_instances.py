"""Tags, owners and EC2's words, without EC2."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError

from cloudtrain.provider.ec2 import tags
from cloudtrain.provider.ec2.instances import Item, down_since, reason_of
from cloudtrain.provider.ec2.offer.prices import load


def test_tags_go_there_and_back() -> None:
    marks = tags.tags_of_run("brave-otter", "feed", "me", 1795437296.9)
    assert marks["cloudtrain:expires-at"] == "2026-11-23T12:34:56Z"
    assert tags.utc_seconds(marks["cloudtrain:expires-at"]) == 1795437296
    assert tags.utc_seconds("soon") is None and tags.utc_seconds(None) is None
    assert tags.as_map(tags.as_list(marks)) == marks
    assert tags.where(run="a", owner=None)[1:] == [{"Name": "tag:cloudtrain:run", "Values": ["a"]}]


def test_an_owner_is_the_same_in_each_session() -> None:
    role, arn = "AROA1:botocore-session-", "arn:aws:sts::123456789012:assumed-role/Student/botocore-session-"
    assert tags.owner_of(role + "1700000000") == tags.owner_of(role + "1800000000")
    assert tags.owners_of(role + "17", arn + "17") == tags.owners_of(role + "18", arn + "18")
    assert len({tags.owner_of(one) for one in ("AIDA1", "AIDA2", "AROA1:anna", "AROA1:ben")}) == 4


def test_what_is_left_is_described_with_its_price() -> None:
    volume = Item(kind="volume", id="vol-1", state="available", size_gb=45)
    assert volume.describe() == "volume vol-1 (45 GB, available), about $3.60 a month"
    instance = Item(kind="instance", id="i-1", state="running", type="g4dn.xlarge")
    assert instance.describe(0.526) == "instance i-1 (g4dn.xlarge, running), $0.526 an hour"
    stopped = Item(kind="instance", id="i-1", state="stopped", type="g4dn.xlarge", size_gb=45)
    assert stopped.hourly(load(), "us-east-1") is None
    assert stopped.describe(None) == "instance i-1 (g4dn.xlarge, stopped), its disk about $3.60 a month"
    assert Item(kind="security group", id="sg-1").describe() == "security group sg-1, costs nothing"


def test_reasons_are_ec2s_words() -> None:
    reason = {"StateReason": {"Code": "Server.SpotInstanceTermination", "Message": "price"}}
    assert reason_of(reason) == "Server.SpotInstanceTermination: price"
    assert reason_of({"StateTransitionReason": "User initiated"}) == "User initiated"
    assert reason_of(None) == "EC2 no longer knows it"


@pytest.mark.parametrize(
    ("reason", "console", "at"),
    [
        ("User initiated (2026-11-30 08:00:00 GMT)", None, 1796025600.0),
        ("User initiated (2026-11-30 08:00:00 UTC)", 5.0, 1796025600.0),
        ("User initiated", 1796025600.0, 1796025600.0),  # it has shut itself down
        ("User initiated (2026-13-99 08:00:00 GMT)", 1796025600.0, None),
        ("", 5.0, None),  # before it began
        ("", None, None),
        ("(" * 5000, None, None),
    ],
)
def test_since_when_it_is_down_is_what_ec2_says(reason: str, console: float | None, at: float | None) -> None:
    class Ec2:
        def get_console_output(self, InstanceId: str) -> dict[str, object]:
            if console is None:
                raise ClientError({"Error": {"Code": "UnauthorizedOperation"}}, "GetConsoleOutput")
            return {"Timestamp": datetime.fromtimestamp(console, UTC)}

    found = {"InstanceId": "i-1", "LaunchTime": datetime.fromtimestamp(1e9, UTC), "StateTransitionReason": reason}
    assert down_since(found, SimpleNamespace(ec2=Ec2())) == at  # type: ignore[arg-type]

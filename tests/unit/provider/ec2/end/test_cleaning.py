"""What is safe to end, and what is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloudtrain.provider.ec2.end import cleaning
from cloudtrain.provider.ec2.end.cleaning import Known, judge
from cloudtrain.provider.ec2.instances import Item

NOW = 1_800_000_000.0
LIVE = Item(kind="instance", id="i-1", state="running", run="brave-otter", token="feed", expires_at=NOW + 600)
OVER = replace(LIVE, expires_at=NOW - cleaning.OVERDUE_S)
PARKED = replace(OVER, state="stopped")
DISK = Item(kind="volume", id="vol-1", state="available", run="brave-otter", token="feed", expires_at=NOW + 600)
GROUP = Item(kind="security group", id="sg-1", run="brave-otter", token="feed")
RUN = Known(run="brave-otter", tokens=frozenset({"feed"}))


@pytest.mark.parametrize(
    ("item", "run", "why"),
    [
        (OVER, None, "its lease is over"),
        (LIVE, RUN, "its run never began to train"),
        (OVER, RUN, "its run never began to train"),
        (LIVE, replace(RUN, ended=True), "its run ended before training began"),
        (LIVE, replace(RUN, trained=True, pulled=True, ended=True), "its run is over and pulled"),
        (PARKED, replace(RUN, trained=True, pulled=True), "its results are pulled"),
        (DISK, replace(RUN, trained=True, pulled=True, ended=True), "its run is over and pulled"),
        (replace(DISK, expires_at=NOW - 3600), None, "its run is over, no instance holds it"),
        (GROUP, None, "no instance uses it"),
    ],
)
def test_what_is_safe_to_end(item: Item, run: Known | None, why: str) -> None:
    assert judge(item, run, {}, NOW) == (True, why, None)


@pytest.mark.parametrize(
    ("item", "run", "why", "loss"),
    [
        # Nobody here knows it: it may be training for another computer, or hold a result on its disk.
        (LIVE, None, "may be training", "what brave-otter has trained"),
        (PARKED, None, "parked", "the results of brave-otter"),
        # Its lease has just ended: it may be about to park what it has.
        (replace(LIVE, expires_at=NOW - 60), None, "may be training", "what brave-otter has trained"),
        (replace(LIVE, expires_at=None), None, "may be training", "what brave-otter has trained"),
        # A result that exists there alone is kept even when the lease is over.
        (LIVE, replace(RUN, trained=True), "trains and is not pulled", "the results of brave-otter"),
        (OVER, replace(RUN, trained=True), "has trained and is not pulled", "the results of brave-otter"),
        (PARKED, replace(RUN, trained=True), "is parked and is not pulled", "the results of brave-otter"),
        (replace(DISK, expires_at=NOW - 1), replace(RUN, trained=True), "not pulled", "the results of brave-otter"),
        (DISK, None, "not known here", "what is on vol-1"),
        (replace(DISK, state="in-use"), None, "held by a machine that is not ours", "what is on vol-1"),
        (replace(DISK, state="in-use"), replace(RUN, ended=True), "not ours", "what is on vol-1"),
        # Another command is at it.
        (LIVE, replace(RUN, busy=True), "another command is acting", None),
        (GROUP, replace(RUN, busy=True), "another command is acting", None),
        (LIVE, replace(RUN, busy=True, trained=True), "another command is acting", "what brave-otter is doing"),
    ],
)
def test_what_is_not_safe_to_end(item: Item, run: Known | None, why: str, loss: str | None) -> None:
    safe, told, lost = judge(item, run, {}, NOW)
    assert not safe and why in told
    assert (lost is None) == (loss is None) and (loss or "") in (lost or "")


@pytest.mark.parametrize("safe", [True, False])
def test_a_group_goes_with_its_instance_and_not_before(safe: bool) -> None:
    assert judge(GROUP, None, {"feed": safe}, NOW) == (safe, "it goes with its instance", None)

"""How long a session goes on, and each way of not being signed in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cloudtrain.core.errors import SignInError
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.offer import account
from cloudtrain.provider.ec2.offer.account import Account

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("left", "text"),
    [(None, "no known end"), (-1, "ended"), (30, "ends in 1 min"), (3600, "ends in 60 min"), (9 * 3600, "ends in 9 h")],
)
def test_how_long_a_session_goes_on(left: int | None, text: str) -> None:
    end = None if left is None else NOW + timedelta(seconds=left)
    who = Account(owner="", owners=frozenset(), number="123456789012", profile=None, kind="", expires=end)
    assert who.lasts(NOW) == text


@pytest.mark.parametrize(
    ("code", "its_code"),
    [("ExpiredToken", "expired"), ("InvalidClientTokenId", "bad_key"), ("RequestExpired", "clock")],
)
def test_each_way_of_not_being_signed_in(rejecting: Any, code: str, its_code: str) -> None:
    with pytest.raises(SignInError) as caught:
        account.identify(rejecting(GetCallerIdentity=code, status=403))
    assert caught.value.code == its_code


def test_a_profile_that_does_not_exist() -> None:
    with pytest.raises(SignInError) as caught:
        Clients("nobody", "us-east-1")
    assert caught.value.code == "no_profile"


def test_a_plan_that_may_not_be_asked_for_is_not_told(rejecting: Any) -> None:
    assert account.plan(rejecting(GetAccountPlanState="AccessDeniedException")) is None
    assert account.plan(rejecting(GetAccountPlanState="InternalServerException", status=500)) is None

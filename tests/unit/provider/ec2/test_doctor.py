"""What the doctor says without an account."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cloudtrain.core.errors import UsageError
from cloudtrain.core.spec import Ec2Spec
from cloudtrain.provider.ec2 import doctor
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.doctor import Check

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def run(clients: Clients, *types: str, now: datetime = NOW, **more: Any) -> list[Check]:
    spec = Ec2Spec(types=types or ("g4dn.xlarge",), **more)
    found = list(doctor.checks(spec, lambda: clients, now=lambda: now))
    for check in found:
        assert "\n" not in check.message
        assert check.status == "ok" or check.fix or check.message.startswith("not "), check
    return found


def of(found: list[Check], name: str) -> list[Check]:
    return [check for check in found if check.name == name]


def the(found: list[Check], name: str) -> Check:
    [check] = of(found, name)
    return check


def test_expired_credentials_are_told_once_and_prices_are_still_shown(rejecting: Any) -> None:
    found = run(rejecting(Everything="ExpiredToken", status=403))
    signed_in = the(found, "aws")
    assert (signed_in.status, "expired" in signed_in.message, signed_in.fix) == ("fail", True, "aws login")
    assert the(found, "price").status == "ok"
    assert [check.name for check in found if check.status == "fail"] == ["aws"]
    assert all(check.message.startswith("not checked") for check in of(found, "quota") + of(found, "rights"))


def test_no_region_is_its_own_failure() -> None:
    def connect() -> Clients:
        raise UsageError("no AWS Region is set", hint="--region us-east-1", code="no_region")

    found = list(doctor.checks(Ec2Spec(), connect, now=lambda: NOW))
    assert the(found, "region") == Check("region", "fail", "no AWS Region is set", "--region us-east-1")
    assert not of(found, "aws")
    assert the(found, "price").status == "ok"


def test_a_profile_that_does_not_exist() -> None:
    found = list(doctor.checks(Ec2Spec(profile="nobody", region="us-east-1"), now=lambda: NOW))
    assert the(found, "aws").status == "fail"
    assert "nobody" in the(found, "aws").message

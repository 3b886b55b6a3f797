"""Quotas: the right code for each family, what is free, the exact command, and what an unknown quota means."""

from __future__ import annotations

import pytest

from cloudtrain.core.errors import ExitCode, QuotaExceeded
from cloudtrain.provider.ec2.offer import quota
from cloudtrain.provider.ec2.offer.quota import Quota


@pytest.mark.parametrize(
    ("name", "on_demand", "spot"),
    [
        ("g4dn.xlarge", "L-DB2E81BA", "L-3819A6DF"),
        ("gr6.4xlarge", "L-DB2E81BA", "L-3819A6DF"),
        ("g7e.2xlarge", "L-DB2E81BA", "L-3819A6DF"),
        ("vt1.3xlarge", "L-DB2E81BA", "L-3819A6DF"),
        ("p4d.24xlarge", "L-417A185B", "L-7212CCBC"),
        ("p3dn.24xlarge", "L-417A185B", "L-7212CCBC"),
        ("p5en.48xlarge", "L-417A185B", "L-C4BD4855"),
        ("p6-b200.48xlarge", "L-417A185B", None),
        ("t3.micro", "L-1216C47A", "L-34B43A08"),
        ("inf2.xlarge", None, None),
        ("dl1.24xlarge", None, None),
    ],
)
def test_each_family_and_market_has_its_code(name: str, on_demand: str | None, spot: str | None) -> None:
    assert quota.code_of_type(name, "on-demand") == on_demand
    assert quota.code_of_type(name, "spot") == spot


def one(granted: int | None, in_use: int | None = 0) -> Quota:
    return Quota(
        code="L-DB2E81BA",
        name="Running On-Demand G and VT instances",
        region="us-east-1",
        granted=granted,
        in_use=in_use,
        unknown_because=None if granted is not None else "the right servicequotas:GetServiceQuota is missing",
    )


def test_a_quota_that_suffices_says_nothing() -> None:
    assert quota.preflight("g4dn.xlarge", 4, one(4)) is None
    assert quota.preflight("g4dn.xlarge", 4, one(8, 4)) is None


def test_a_new_account_is_told_the_exact_command() -> None:
    with pytest.raises(QuotaExceeded, match=r"g4dn\.xlarge needs 4 vCPU, the quota allows 0") as caught:
        quota.preflight("g4dn.xlarge", 4, one(0))
    error = caught.value
    assert (error.exit_code, error.code) == (ExitCode.REFUSED, "quota")
    assert error.hint == (
        "aws service-quotas request-service-quota-increase --service-code ec2"
        " --quota-code L-DB2E81BA --desired-value 4 --region us-east-1"
    )
    assert error.consequence == "nothing was created"


def test_what_runs_already_counts_and_is_asked_for_on_top() -> None:
    with pytest.raises(QuotaExceeded, match="4 in use") as caught:
        quota.preflight("g4dn.xlarge", 4, one(6, 4))
    assert "--desired-value 8" in (caught.value.hint or "")


def test_an_unknown_quota_is_a_warning() -> None:
    said = quota.preflight("g4dn.xlarge", 4, one(None))
    assert said is not None
    assert "servicequotas:GetServiceQuota" in said
    unlisted = quota.preflight("p6-b200.48xlarge", 192, quota.unlisted("p6-b200.48xlarge", "spot", "us-east-1"))
    assert unlisted is not None
    assert "no quota code is known" in unlisted


def test_usage_that_is_not_known_counts_as_none() -> None:
    assert one(4, None).free == 4
    assert one(None).free is None
    assert one(2, 4).free == 0

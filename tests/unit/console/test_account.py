"""`doctor` and `instances` on a narrow terminal: the same facts, no line wider than it, commands whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloudtrain.console.pages import account
from cloudtrain.provider.ec2.doctor import Check
from cloudtrain.provider.ec2.offer import catalogue

FIX = "aws service-quotas request-service-quota-increase --service-code ec2 --quota-code L-DB2E81BA --desired-value 4"


@pytest.mark.parametrize("width", [None, 80, 40])
def test_instances_have_the_same_facts_at_every_width(width: int | None) -> None:
    found = catalogue.shipped(gpu="T4")
    shown = account.catalogue_lines(found, width)
    assert width is None or max(map(len, shown)) <= width
    text = " ".join(" ".join(shown).split())
    for row in found.rows:
        assert text.count(f"{row.type} ") == 1
        assert f"{row.price_per_hour:.3f}" in text and f"{row.memory_gib:g} GB" in text
    assert "us-east-1" in text


def test_a_table_with_quotas_fits_80_columns_without_vcpus() -> None:
    found = catalogue.shipped()
    rows = tuple(
        replace(row, quota_granted=768, quota_free=764, spot_per_hour=12.345, zones=("a", "b")) for row in found.rows
    )
    full = replace(found, rows=rows, asked=True)
    shown = account.catalogue_lines(full, 90)
    assert shown[0].split() == ["INSTANCE", "GPU", "$/HOUR", "SPOT", "NOW", "YOUR", "QUOTA", "ZONES"]
    assert "vCPU, 16 GB RAM" in "".join(account.catalogue_lines(full, 60))
    assert max(map(len, account.catalogue_lines(full, 60))) <= 60


@pytest.mark.parametrize("width", [80, 40])
def test_a_check_is_wrapped_between_words_and_its_fix_is_not(width: int) -> None:
    check = Check("quota", "fail", "On-Demand G and VT instances: 0 vCPU are granted, and g4dn.xlarge needs 4", FIX)
    *told, fix = account.check_lines(check, width)
    assert max(map(len, told)) <= width and len(told) > 1
    assert " ".join(" ".join(told).split()) == f"fail quota {check.message}"
    assert fix == f"      fix: {FIX}"

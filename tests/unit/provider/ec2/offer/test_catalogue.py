"""What the shipped table shows, and how a GPU is found by its name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from cloudtrain.core.errors import SignInError, UsageError
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.offer import catalogue
from cloudtrain.provider.ec2.offer.catalogue import Catalogue, Row

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def survey(clients: Clients, **more: Any) -> Catalogue:
    return catalogue.survey(clients, now=lambda: NOW, **more)


def row(found: Catalogue, name: str) -> Row:
    [one] = [row for row in found.rows if row.type == name]
    return one


@pytest.mark.parametrize(("asked", "gpus"), [("t4", {"T4"}), ("A10", {"A10G"}), ("l40s", {"L40S"}), ("L4", {"L4"})])
def test_a_gpu_is_found_by_its_name(asked: str, gpus: set[str]) -> None:
    assert {one.gpu_name for one in catalogue.shipped(gpu=asked).rows} == gpus


@pytest.mark.parametrize("asked", ["RTX 9090", "", "-"])
def test_a_gpu_that_nobody_has_names_those_there_are(asked: str) -> None:
    with pytest.raises(UsageError) as caught:
        catalogue.shipped(gpu=asked)
    assert "T4" in (caught.value.hint or "")


def test_without_an_account_the_shipped_table_is_shown() -> None:
    found = catalogue.shipped(now=NOW)
    assert (found.asked, found.region) == (False, "us-east-1")
    assert row(found, "g4dn.xlarge").price_per_hour == pytest.approx(0.526 + 0.005 + 45 * 0.08 / 730, abs=1e-6)
    assert row(found, "g4dn.xlarge").zones == ()
    assert "126 days old" in found.price_note
    assert not [one for one in found.rows if one.type.startswith("p3")]


def test_no_one_signed_in(rejecting: Any) -> None:
    with pytest.raises(SignInError):
        survey(rejecting(Everything="ExpiredToken", status=403))

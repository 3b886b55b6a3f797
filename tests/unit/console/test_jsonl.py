"""JSON lines that are passed on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cloudtrain.console.reporters.jsonl import JsonReporter
from cloudtrain.core.plan import OfferDetails
from tests import plans


def test_a_plan_does_not_tell_who_signed_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plans.plan(tmp_path)
    offer = replace(plan.offer, details=OfferDetails(region="us-east-1", owner="123456789012"))
    JsonReporter("").plan(replace(plan, offer=offer))
    told = capsys.readouterr().out
    assert json.loads(told)["plan"]["offer"]["details"] == {"region": "us-east-1"} and "123456789012" not in told

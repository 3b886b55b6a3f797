"""Tier 1: specs and plans are values; money is counted right."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtrain.core import decode
from cloudtrain.core.errors import Refused, UsageError
from cloudtrain.core.plan import CodeSummary, Plan, make_plan
from cloudtrain.core.spec import Limits, RunSpec, Target, TrainSpec, check_name, check_train
from tests import plans

CODE = CodeSummary(files=1, bytes=1)
AT = Path("runs")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"target": Target.EC2, "ec2": plans.FULL_EC2, "limits": plans.FULL_LIMITS},
        {"target": Target.HOST, "host": plans.FULL_HOST, "train": TrainSpec(args=("--subset", "9"))},
    ],
)
def test_specs_and_plans_survive_json(changes: dict) -> None:
    spec = plans.spec(AT, **changes)
    assert decode.made(RunSpec, json.loads(json.dumps(asdict(spec)))) == spec
    plan = make_plan(spec, plans.offer(0.5), CODE)
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_a_billed_run_has_a_limit_unless_told_otherwise_and_a_free_one_has_none() -> None:
    billed = make_plan(plans.spec(AT), plans.offer(0.526), CODE)
    assert (billed.limit_s, billed.at_most_usd) == (7200.0, 1.06)
    free = make_plan(plans.spec(AT), plans.offer(None), CODE)
    assert (free.limit_s, free.at_most_usd) == (None, None)
    limited = make_plan(plans.spec(AT, limits=Limits(max_time_s=90)), plans.offer(None), CODE)
    assert limited.limit_s == 90


@given(
    price=st.floats(0.001, 100),
    other=st.floats(0.001, 100),
    cap=st.floats(0.01, 50),
    hours=st.floats(0.1, 48),
)
def test_no_plan_can_cost_more_than_max_cost(price: float, other: float, cap: float, hours: float) -> None:
    spec = plans.spec(AT, limits=Limits(max_time_s=hours * 3600, max_cost_usd=cap))
    try:
        plan = make_plan(spec, plans.offer(price, other), CODE)
    except Refused as refused:
        assert refused.code == "price_cap"
        assert cap / max(price, other) * 3600 < 60
        return
    assert plan.limit_s is not None and plan.at_most_usd is not None
    assert max(price, other) * plan.limit_s / 3600 <= cap * 1.000001
    assert plan.at_most_usd >= max(price, other) * plan.limit_s / 3600 - 1e-9
    assert plan.limit_s <= hours * 3600


@pytest.mark.parametrize("name", ["a", "brave-otter", "r2", "a" * 40])
def test_names_that_can_be_folders_and_tags(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a b", "a/b", "..", "a\n", "ä", "a" * 41, "@last"])
def test_names_that_cannot(name: str) -> None:
    with pytest.raises(UsageError) as raised:
        check_name(name)
    assert raised.value.code == "bad_name" and raised.value.hint


@pytest.mark.parametrize(
    "train",
    [
        TrainSpec(model=4),
        TrainSpec(epochs=0),
        TrainSpec(batch_size=0),
        TrainSpec(seed=-1),
        TrainSpec(lr=0.0),
        TrainSpec(lr=float("nan")),
        TrainSpec(device="tpu"),
    ],
)
def test_settings_that_cannot_be_trained_with_are_named(train: TrainSpec) -> None:
    with pytest.raises(UsageError) as raised:
        check_train(train)
    assert raised.value.exit_code == 2 and raised.value.hint


def test_the_jobs_command_line_holds_what_was_given_and_nothing_else() -> None:
    argv = TrainSpec(model=1, epochs=4, lr=0.02, args=("--subset", "600")).argv()
    expected = "--model 1 --epochs 4 --seed 1 --lr 0.02 --device auto --subset 600"
    assert list(argv) == expected.split()

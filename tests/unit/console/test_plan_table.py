"""The plan's table of machines: the same facts at every width, and nothing that looks broken without a history."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from cloudtrain.console.pages import plan_table, summary
from cloudtrain.core.plan import Plan, Training
from tests.host.console.play import plan


@pytest.mark.parametrize("tried", [True, False])
@pytest.mark.parametrize("width", [None, 120, 80, 60, 40])
def test_every_width_has_the_same_facts(width: int | None, tried: bool) -> None:
    shown = plan_table.lines(plan(tried=tried), width)
    assert width is None or max(map(len, shown)) <= width
    text = " ".join(" ".join(shown).split())
    for machine in ("g4dn.xlarge", "g6.xlarge", "g5.xlarge", "1x T4 16 GB", "1x L4 24 GB", "1x A10G 24 GB"):
        assert text.count(machine) == 1
    for fact in ("0.536", "0.815", "1.016", "16 GB", "table of 2026-07-20"):
        assert fact in text
    assert ("3 min" in text and "0.02" in text and "scaled to 5 epochs" in text) is tried
    assert [line.split()[1] for line in shown if line.lstrip().startswith(">")] == ["g4dn.xlarge"]
    [chosen] = [line for line in shown if line.lstrip().startswith(">")]
    assert chosen.endswith("this run")
    assert len(re.findall("2nd choice", text)) == 1


def test_programs_get_the_same_facts() -> None:
    told = json.loads(json.dumps(plan().to_dict()))
    assert [one["type"] for one in told["offer"]["alternatives"]] == ["g5.xlarge"]
    [took] = told["times"]
    assert (took["type"], took["run"], took["total_s"], took["scaled_from"]) == ("g4dn.xlarge", "dry-finch", 161.0, 15)
    assert took["cost_usd"] == pytest.approx(161 * 0.536 / 3600)
    assert told["last"]["setup_s"] == 102.0
    assert Plan.from_dict(told) == plan()


def test_a_plan_of_an_older_registry_has_no_times() -> None:
    old = plan().to_dict()
    del old["times"], old["last"], old["offer"]["alternatives"]
    read = Plan.from_dict(json.loads(json.dumps(old)))
    assert (read.times, read.last, read.offer.alternatives) == ((), None, ())


def test_set_up_training_and_pull_of_last_time() -> None:
    text = "\n".join(summary.plan_lines(plan()))
    assert "set-up took 1m 42s, training 51 s (from 15 epochs to 5), pull 8.0 s" in text
    assert "set-up took" not in "\n".join(summary.plan_lines(plan(tried=False)))


def test_the_shipped_training_is_told_whole_and_how_long_it_usually_takes() -> None:
    fresh = replace(plan(tried=False), last=None, training=Training(recipe="best", epochs=15, batch_size=64, lr=0.01))
    text = " ".join("\n".join(summary.plan_lines(fresh)).split())
    assert "15 epochs, recipe best, batch 64, learning rate 0.01" in text
    assert "usually 2 min to 6 min, $0.02 to $0.06: an estimate" in text and "no run of yours was on this type" in text
    # Nothing is said of another program, a part of the images, or a GPU of which nothing is known.
    [machine, *others] = fresh.offer.candidates
    unknown = replace(fresh.offer, candidates=(replace(machine, gpu="1x K80 12 GB"), *others))
    assert fresh.training is not None
    for other in (
        replace(fresh, training=None),
        replace(fresh, training=replace(fresh.training, subset=600)),
        replace(fresh, offer=unknown),
    ):
        assert "usually" not in "\n".join(summary.plan_lines(other))

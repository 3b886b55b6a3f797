"""The three networks are the course's: counts, names, table, and weights that pass both ways."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from job import models
from job.outputs import summarise
from tests.host.job.seed_nets import NETS

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(("model", "parameters"), [(1, 13_808), (2, 5_048), (3, 7_902)])
def test_parameter_counts(model: int, parameters: int) -> None:
    assert models.parameter_count(models.build(model)) == parameters


@pytest.mark.parametrize("model", [1, 2, 3])
def test_layer_table_is_the_one_of_the_course(model: int) -> None:
    table = summarise(models.build(model)).table()
    assert table + "\n" == (GOLDEN / f"model{model}_table.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("model", [1, 2, 3])
def test_modules_have_the_same_names_in_the_same_order(model: int) -> None:
    ours, theirs = models.build(model), NETS[model]()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [name for name, _ in ours.named_children()] == [name for name, _ in theirs.named_children()]


@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
@pytest.mark.parametrize("model", [1, 2, 3])
def test_weights_pass_both_ways_and_give_the_same_answers(model: int, training: bool) -> None:
    torch.manual_seed(model)
    ours, theirs = models.build(model), NETS[model]()
    pictures = torch.rand(8, 1, 28, 28)
    with torch.no_grad():
        ours(pictures)  # moves BatchNorm's statistics away from their first values
    theirs.load_state_dict(ours.state_dict(), strict=True)
    back = models.build(model)
    back.load_state_dict(theirs.state_dict(), strict=True)
    answers = []
    for net in (ours, theirs, back):
        torch.manual_seed(5)  # the same dropout
        net.train(training)
        with torch.no_grad():
            answers.append(net(pictures))
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])


@pytest.mark.parametrize("model", [1, 2, 3])
def test_same_seed_gives_the_same_first_weights_as_the_course(model: int) -> None:
    torch.manual_seed(7)
    ours = models.build(model).state_dict()
    torch.manual_seed(7)
    theirs = NETS[model]().state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

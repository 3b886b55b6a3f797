"""A run that holds training images out and opens the test set once: whose figures are whose."""

from __future__ import annotations

from cloudtrain.report import markdown, page, record, words
from cloudtrain.report.facts import Facts
from tests.made import MadeRun
from tests.unit.report.test_page import Reader


def held_out(made: MadeRun, opened: float | None) -> Facts:
    made.metrics |= {"scored_on": "held-out training images", "headline": "test", "test": None}
    if opened is not None:
        matrix = [[990 if d == a else 0 for a in range(10)] for d in range(10)]
        made.metrics["test"] = {"epoch": 15, "test_loss": 0.02, "test_acc": opened, "confusion": matrix}
    return made.facts()


def test_figures_of_held_out_images_are_never_called_those_of_the_test_set(made: MadeRun) -> None:
    facts = held_out(made, 99.0)
    text = Reader(page.report(facts)).text
    assert "99.00 %" in text and "Nothing was picked on the test set" in text and "opened once, after epoch 15" in text
    assert "Accuracy on held-out training images went from" in text
    assert "9,900 of 9,900 test pictures are right" in text
    assert "that the weights of the last epoch, 15, got wrong" in text
    section = markdown.section(facts)
    assert "Test Accuracy: 99.00 (15th Epoch, the one look at it)" in section and "Best Test Accuracy" not in section
    told = record.build(facts)
    assert told["best"]["picked_on"] == "held-out training images"
    assert told["opened"] == {"epoch": 15, "test_loss": 0.02, "test_acc": 99.0}


def test_a_test_set_that_was_not_opened_has_no_figure(made: MadeRun) -> None:
    facts = held_out(made, None)
    text = Reader(page.report(facts)).text
    assert "accuracy on held-out training images in the last epoch" in text
    assert "The test set has not been opened." in text and facts.confusion is None
    assert words.picked_on(facts) == "held-out training images"
    assert "Test Accuracy" not in markdown.section(facts)

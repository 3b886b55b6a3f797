"""The section to hand in: the form of the course's README, a clean log, nothing that breaks out of its block."""

from __future__ import annotations

from cloudtrain.report import markdown
from tests.made import MadeRun

FORM = """# Model 3

### Targets:
 - test accuracy >= 99.4 %
 - parameters < 8000
 - epochs <= 15

### Results:
 - Parameters: 7.9k
 - Best Train Accuracy: 98.66
 - Best Test Accuracy: 99.44 (14th Epoch)
 - Test Accuracy of the last epoch: 99.43 (15th Epoch); the best epoch is picked on the test set
 - Target test accuracy >= 99.4 %: met (99.43%)
 - Target parameters < 8000: met (7,902)
 - Target epochs <= 15: met (15)

### Analysis:
"""
LOG = """## Console Log for Model 3

```
cuda
EPOCH: 0
Loss=0.1 Batch_id=468 Accuracy=77.44: 100%

bye
```
"""


def test_it_has_the_form_of_the_hand_in(made: MadeRun) -> None:
    text = markdown.section(made.facts())
    assert text.startswith(FORM)
    assert text.endswith(LOG)
    assert "## Layers of Model 3\n\n```\n------" in text
    assert " - 15 epochs took 2m 33s on Tesla T4, 10 s each.\n" in text
    assert " - Repeat it: `cloudtrain rerun brave-otter`, or `cloudtrain run --instance g4dn.xlarge" in text
    assert " - Hardest digit: 9 (98.00% right); easiest: 0 (100.00%).\n" in text
    assert "\x1b" not in text and "\r" not in text


def test_a_run_that_failed_says_so(made: MadeRun) -> None:
    made.receipt["ended_how"] = "failed"
    made.events, made.metrics = [], {}
    text = markdown.section(made.facts())
    assert " - The training program failed." in text and "Best Test Accuracy" not in text
    assert " - Target test accuracy >= 99.4 %: met" in text  # as the receipt has it


def test_nothing_in_a_log_ends_its_block(made: MadeRun) -> None:
    made.log = b"before\n```\n# a heading\n`````\nafter\n"
    made.receipt["goals"] = [{"goal": "a *star* | <b>bold</b> `code` [x](y)\n# not a heading", "met": None}]
    text = markdown.section(made.facts())
    assert "``````\nbefore\n```\n# a heading\n`````\nafter\n``````\n" in text
    assert " - a \\*star\\* | &lt;b>bold&lt;/b> \\`code\\` \\[x\\](y) # not a heading\n" in text
    assert markdown.code("a `tick`") == "`` a `tick` ``"


def test_arguments_are_quoted(made: MadeRun) -> None:
    made.receipt["train"]["args"] = ["--note", "two words", "`"]
    assert "-- --note 'two words' '`'" in markdown.section(made.facts())

"""What counts as a figure, whoever tells it, and that no line is looked at for long."""

from __future__ import annotations

import itertools
import json
import math
import re
import time
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cloudtrain
from cloudtrain.config.table import SETTINGS
from cloudtrain.core import figures, told
from cloudtrain.core.figures import DECLARED, EVENTS, LINES, Expressions, Figure, LogFigures, Row, newest, of_line, row

PAGE = (Path(__file__).parents[3] / "docs" / "your-own-job.md").read_text(encoding="utf-8")


def test_an_event_of_any_kind_that_says_where_it_is_tells_figures() -> None:
    told = row(
        {"kind": "mine", "v": 1, "t": 5.0, "step": 100, "steps": 200, "val_loss": 0.5, "ok": True, "x": "y"}, EVENTS
    )
    assert told == Row(origin=EVENTS, values={"val_loss": 0.5}, step=100, at=5.0)
    assert row({"kind": "mine", "epoch": 0.5, "loss": 2}, EVENTS) == Row(origin=EVENTS, values={"loss": 2}, epoch=0.5)
    assert row({"global_step": 7.0, "a\x1b[2Jb\nc": 1.0}, EVENTS) == Row(origin=EVENTS, values={"ab c": 1.0}, step=7)
    for nowhere in ({"loss": 0.5}, {"step": -1, "loss": 0.5}, {"step": 3}, {"epoch": math.nan, "loss": 1.0}):
        assert row(nowhere, EVENTS) is None
    assert row({"step": 1, "loss": math.nan, "lr": math.inf}, EVENTS) is None, "what is no number is left out"


def test_a_step_that_counts_from_its_epochs_beginning_is_a_part_of_that_epoch() -> None:
    told = row({"kind": "step", "epoch": 2, "step": 5, "steps": 10, "loss": 0.5}, EVENTS)
    assert told is not None and (told.epoch, told.step) == (1.5, None)


def test_an_event_is_bounded_in_names_and_their_length() -> None:
    told = row({"step": 1, **{f"{at}-{'n' * 200}": at for at in range(500)}}, EVENTS)
    assert told is not None and len(told.values) == 64 and all(len(name) == 80 for name in told.values)


@pytest.mark.parametrize(
    ("line", "values", "where"),
    [
        ("{'loss': 1.2345, 'grad_norm': 0.5, 'lr': 4.9e-05, 'epoch': 0.5}", ("loss", 1.2345, 3), (0.5, None)),
        ("  {'loss': '1.234', 'epoch': '0.01'}  ", ("loss", 1.234, 1), (0.01, None)),  # Trainer's from version 5 on
        ('{"step": 20, "val": {"loss": 3}, "acc": 97}', ("acc", 97, 1), (None, 20)),
        ("{'loss': nan, 'eval_acc': .5, \"epoch\": 3, 'done': True, 'name': None}", ("eval_acc", 0.5, 1), (3, None)),
        ("{'iter': 3, 'loss': -1.}", ("loss", -1.0, 1), (None, 3)),
    ],
)  # fmt: skip
def test_a_line_that_is_one_json_object_or_flat_dict(
    line: str, values: tuple[str, float, int], where: tuple[float | None, int | None]
) -> None:
    told = of_line(line)
    name, value, count = values
    assert told is not None and told.origin == LINES and (told.epoch, told.step) == where
    assert told.values[name] == value and len(told.values) == count


PROSE = [
    "Accuracy: 9835/10000 (98%)",
    "Test set: Average loss: 0.0505, Accuracy: 9835/10000 (98%)",
    "step 250: train loss 2.0594, val loss 2.0646",
    "epoch 3: loss=0.5",
    "loss: 0.5, step: 3",
    "INFO {'loss': 0.5, 'epoch': 1}",
    "{'loss': 0.5, 'epoch': 1} saved",
    "{'batch_size': 64, 'lr': 0.1}",  # settings that were printed say no place in the training
    "{'loss': array([1., 2.]), 'epoch': 1}",
    "{'loss': f(1), 'epoch': __import__('os').system('true')}",
    "{'a' 'loss': 1, 'epoch': 1}",
    "{'loss': 1 'epoch': 1}",
    "{1, 2}",
    "{}",
    "{",
    "",
]


@pytest.mark.parametrize("line", PROSE)
def test_nothing_is_learnt_from_prose(line: str) -> None:
    assert of_line(line) is None and LogFigures({}).feed(line.encode() + b"\n") == []


@given(st.text(st.sampled_from("abc 0189.,:;=/%()-+eE"), max_size=200))
def test_no_line_without_braces_tells_anything(line: str) -> None:
    assert of_line(line) is None


def test_a_bar_that_was_drawn_over_leaves_the_line_that_it_made_way_for() -> None:
    bar = b"\r 10%|#    | 5/50 [00:01<00:09]\r" + b" " * 40 + b"\r"
    (told,) = LogFigures({}).feed(bar + b"{'loss': 1.5, 'epoch': 0.1}\n\r 12%|#\r 14%|#")
    assert told.values == {"loss": 1.5}


BOMBS = [
    "{" * 4096,
    "{" * 2048 + "}" * 2048,
    "{" + "[" * 2000 + "]" * 2000 + "}",
    "{'a': " * 600 + "1" + "}" * 600,
    "{'epoch': " + "-" * 4000 + "1}",
    "{'epoch': 1" + "+1" * 2000 + "}",
    "{" + "'" * 4090 + "}",
    "{" + " " * 4090 + "}",
    "{'" + "a" * 4080 + "':1}",
    "{" + "'a':1," * 680 + "}",
    "{'epoch': 1, 'x': 1" + "0" * 4000 + "}",
    "{'epoch': 1e999999999, 'x': 1}",
]


@pytest.mark.parametrize("line", BOMBS)
def test_no_line_is_read_for_long(line: str) -> None:
    began = time.process_time()
    for _ in range(20):
        of_line(line)
    assert time.process_time() - began < 1.0


EVIL = [
    r"(a+)+$", r"(a|a)*b", r"(?:.*)*(\d)z", r".*.*.*.*.*.*(x)", r"(?:\w+\s?)*:(\d)", r"(?:a?){90}(b)", r"(?:(a)|aa)+$",
    r"(?R)?a(b)", r"(?e)(?:aaaab){e<=5}(q)", r"(?<=(?:a+)+)(b)", r"(?:\X+)+(b)",
]  # fmt: skip
LINES_OF_ALL_KINDS = ["a" * 4096, "a" * 4095 + "!", "ab" * 2048, "é" * 2000, "1" * 4096, " " * 4096, "a " * 2000]


@pytest.mark.parametrize("expression", EVIL)
def test_no_line_hangs_the_matcher(expression: str) -> None:
    looks = Expressions({"x": expression})
    for line in LINES_OF_ALL_KINDS:
        began = time.process_time()
        looks.of_line(line)
        assert time.process_time() - began < 10 * figures.LINE_S
    looks.of_line("a" * 5000)  # longer than a line that can hold figures


_PARTS = st.sampled_from(
    ["(", ")", "(?:", "a", ".", "*", "+", "?", "{2,9}", "[a-z]", r"\d", r"\w", "|", "(?=", "^", "$", "ß"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_PARTS, max_size=20).map("".join), st.text(max_size=300) | st.sampled_from(LINES_OF_ALL_KINDS))
def test_any_expression_is_refused_or_looked_for_in_time(expression: str, line: str) -> None:
    try:
        looks = Expressions({"x": f"{expression}(1)" if "(" not in expression else expression})
    except ValueError:
        return
    began = time.process_time()
    looks.of_line(line)
    assert time.process_time() - began < 10 * figures.LINE_S


def test_an_expression_that_takes_long_is_given_up_and_the_others_are_not() -> None:
    log = LogFigures({"slow": r"(a+)+$", "loss": r"loss ([\d.]+)"})
    (told,) = log.feed(b"a" * 4000 + b"!\nloss 0.5 \n" + b"a" * 4000 + b"!\n")
    assert told.values == {"loss": 0.5} and list(log.given_up) == ["slow"] and "50 ms" in log.given_up["slow"]


def test_an_expression_that_takes_a_little_too_long_for_every_line_is_given_up() -> None:
    clock = itertools.count(0.0, 0.04)
    looks = Expressions({"loss": r"loss ([\d.]+)"}, lambda: next(clock))
    lines = list(itertools.takewhile(lambda line: looks.of_line(line) is not None, itertools.repeat("loss 1")))
    assert 40 <= len(lines) <= 60 and "2." in looks.given_up["loss"]


def test_declared_figures_know_their_place_where_that_is_declared() -> None:
    log = LogFigures({"step": r"^step (\d+)", "val_loss": r"val loss ([\d.]+)", "loss": r"train loss ([\d.]+)"})
    rows = log.feed(
        b"val loss 9\nstep 250: train loss 2.1, val loss 2.2\nepoch one\nval loss 2.3\nval loss n/a\nval loss ."
    )
    assert [(told.step, dict(told.values)) for told in rows] == [
        (None, {"val_loss": 9.0}),
        (250, {"val_loss": 2.2, "loss": 2.1}),
        (250, {"val_loss": 2.3}),
    ]
    assert all(told.origin == DECLARED for told in rows)


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("loss ([0-9.]+", "is none: missing )"),
        ("loss", "has no group; put ( ) around the number"),
        ("(a)(b)", "has 2 groups: write (?:...) for all but one"),
        ("((((a{99}){99}){99}){99})", "is too large"),
        ("a" * 300, "is too large"),
    ],
)
def test_an_expression_that_cannot_be_used_is_refused_with_the_fix(expression: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        SETTINGS["figures"].read({"val_loss": expression})
    assert figures.sound({"val_loss": expression, "loss": "loss (.*)"}) == {"loss": "loss (.*)"}


def test_what_stands_for_a_run() -> None:
    def after(*told: Row, declared: tuple[str, ...] = ()) -> Figure | None:
        known: Figure | None = None
        for each in told:
            known = newest(known, each, declared)
        return known

    loss = Row(origin=EVENTS, values={"lr": 0.1, "loss": 2.0}, step=1)
    scored = Row(origin=EVENTS, values={"eval_runtime": 9.0, "eval_loss": 1.5}, step=2)
    later = Row(origin=EVENTS, values={"lr": 0.1, "loss": 1.0}, step=3)
    assert after(loss, later) == Figure(name="loss", value=1.0, step=3)
    assert after(loss, scored, later) == Figure(name="eval_loss", value=1.5, step=2), "validation says more"
    assert after(loss, scored, later, declared=("lr",)) == Figure(name="lr", value=0.1, step=3)
    printed = Row(origin=LINES, values={"loss": 7.0}, step=4)
    assert after(loss, printed) == Figure(name="loss", value=2.0, step=1), "the more trusted origin is believed"


def test_log_writes_an_event_and_never_ends_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUDTRAIN_EVENTS", raising=False)
    cloudtrain.log(1, loss=0.5)
    events = tmp_path / "events.jsonl"
    monkeypatch.setenv("CLOUDTRAIN_EVENTS", str(events))
    cloudtrain.log(100, val_loss=0.25, name="x", many=[1, 2], bad=math.nan)
    cloudtrain.log(epoch=2, loss=1)
    monkeypatch.setenv("CLOUDTRAIN_EVENTS", str(tmp_path / "not" / "there"))
    cloudtrain.log(101, loss=0.5)
    rows = [row(values, EVENTS) for values in told.read_events(events)]
    assert [(each.epoch, each.step, dict(each.values)) for each in rows if each] == [
        (None, 100, {"val_loss": 0.25}),
        (2, None, {"loss": 1}),
    ]


def test_the_lines_to_copy_do_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (lines,) = re.findall(r"```python\n(   def log.*?)   ```", PAGE, re.DOTALL)
    copied: dict[str, object] = {}
    exec(compile(re.sub(r"^   ", "", lines, flags=re.M), "docs", "exec"), copied)
    events = tmp_path / "events.jsonl"
    monkeypatch.setenv("CLOUDTRAIN_EVENTS", str(events))
    copied["log"](100, val_loss=0.25)  # type: ignore[operator]
    (values,) = [json.loads(line) for line in events.read_text().splitlines()]
    assert row(values, EVENTS) == Row(origin=EVENTS, values={"val_loss": 0.25}, step=100, at=values["t"])


def test_the_expressions_of_the_page_can_be_used() -> None:
    (table,) = re.findall(r"```toml\n(   \[job.figures\].*?)```", PAGE, re.DOTALL)
    declared = tomllib.loads(table)["job"]["figures"]
    (told,) = LogFigures(figures.checked(declared)).feed(b"step 250: train loss 2.0594, val loss 2.0646\n")
    assert (told.step, told.values) == (250, {"val_loss": 2.0646})

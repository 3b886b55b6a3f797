"""The page: honest about what happened, whole in one file, and nothing in it that others wrote is obeyed."""

from __future__ import annotations

import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer

from cloudtrain.cli.app import app
from cloudtrain.report import commands, page, write_facts
from tests.made import MadeRun

HOSTILE = "<script>alert(1)</script>\"'><img src=http://evil.example/x onerror=alert(1)>{{ 7*7 }}"


class Reader(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def alone(reader: Reader) -> None:
    """Nothing in the page runs or asks for anything."""
    assert not reader.all("script") and not reader.all("link") and not reader.all("iframe") and not reader.all("form")
    for _, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(name) or "data:").startswith(("data:image/png", "data:", "#"))
    policies = [meta["content"] for meta in reader.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    (policy,) = policies
    # The last two do not fall back on the first.
    for rule in ("default-src 'none'", "img-src data:", "base-uri 'none'", "form-action 'none'"):
        assert rule in str(policy).split("; ")


def test_goals_and_headline_come_first(made: MadeRun) -> None:
    reader = Reader(page.report(made.facts()))
    alone(reader)
    text = reader.text
    assert text.index("99.43%") < text.index("Learning curves")
    assert "test accuracy in the last epoch, 15 of 15" in text
    assert "Best: 99.44% in epoch 14, picked on the test set" in text
    assert "test accuracy >= 99.4 % 99.43% met" in text and "parameters < 8000 7,902 met" in text
    assert "The goal of 99.4% was first reached in epoch 13." in text
    assert "9 taken for 4 (20)" in text and "About $0.04 at $0.54 an hour (price table of 2026-07-20)" in text
    assert "cloudtrain rerun brave-otter" in text
    assert (
        "cloudtrain run --instance g4dn.xlarge --region us-east-1 --model 3 --epochs 15 --batch-size 128 --seed 1"
        " --lr 0.01 --recipe best --device auto" in text
    )
    assert "script" in text  # the footer says that there is none


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"target": "local"},
            {"local": True, "instance": None, "epochs": 15, "lr": 0.01, "batch_size": 128, "seed": 1},
        ),
        ({"target": "host"}, {"host": "USER@ADDRESS", "local": False, "model": 3, "recipe": "best"}),
        ({"rehearsal": True}, {"dry_run": True, "instance": "g4dn.xlarge", "region": "us-east-1", "spot": None}),
    ],
)
def test_the_command_that_repeats_it_is_one_of_this_program(
    made: MadeRun, changes: dict[str, object], expected: dict[str, object]
) -> None:
    made.receipt |= changes
    made.receipt["train"]["args"] = ["--subset", "600", "two words"]
    command = commands.run(made.facts())
    assert " ".join(commands.parts(command)) == command
    program, name, *arguments = shlex.split(command)
    assert (program, name) == ("cloudtrain", "run")
    context = typer.main.get_command(app).commands["run"].make_context("run", arguments)  # type: ignore[attr-defined]
    assert {key: context.params[key] for key in expected} == expected
    assert context.args == ["--subset", "600", "two words"]


def test_what_others_wrote_is_text(made: MadeRun) -> None:
    made.receipt["name"] = HOSTILE
    made.receipt["ended_how"] = "failed"
    made.receipt["settings"] |= {"device_name": HOSTILE, "recipe": HOSTILE, "hyperparameters": {HOSTILE: HOSTILE}}
    made.receipt["machine"] |= {"os": HOSTILE, "image_name": HOSTILE}
    made.receipt["goals"] = [{"goal": HOSTILE, "met": None}]
    made.receipt["train"] |= {"args": [HOSTILE], "module": HOSTILE}
    made.log, made.layers = HOSTILE.encode(), HOSTILE
    reader = Reader(page.report(made.facts()))
    alone(reader)
    assert HOSTILE in reader.text


def test_every_picture_and_table_has_its_words(made: MadeRun, mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDTRAIN_DATA", str(mnist))
    text = page.report(made.facts())
    reader = Reader(text)
    alone(reader)
    images = reader.all("img")
    assert len(images) == 57 and all(image["alt"] for image in images)
    assert all(svg.get("role") == "img" and svg.get("aria-labelledby") for svg in reader.all("svg"))
    ids = {attributes["id"] for _, attributes in reader.tags if attributes.get("id")}
    for svg in reader.all("svg"):
        assert {svg["aria-labelledby"], svg["aria-describedby"]} <= ids
    assert len(reader.all("h1")) == 1 and reader.all("html")[0]["lang"] == "en"
    assert len(reader.all("table")) >= 6 and all(th.get("scope") in ("row", "col") for th in reader.all("th"))
    assert 30_000 < len(text.encode()) < 150_000


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("failed", "The training program failed."),
        ("stopped", "The run was stopped before its end."),
        ("limit", "reached its time or cost limit"),
        ("spot", "took the spot instance back"),
        ("lost", "without a record"),
        ("not_started", "The training never began."),
        (None, "had not ended when this was written"),
        ("struck by lightning", "The run was ended: struck by lightning."),
    ],
)
def test_a_run_that_ended_badly_says_how_and_shows_its_log(made: MadeRun, how: str | None, says: str) -> None:
    made.receipt["ended_how"] = how
    made.events = made.events[:3]
    reader = Reader(page.report(made.facts()))
    assert says in reader.text and "The end of the console log" in reader.text
    assert "test accuracy in the last epoch, 3 of 15" in reader.text


def test_a_rehearsal_on_a_subset_is_called_one(made: MadeRun) -> None:
    made.receipt["settings"]["subset"] = 3000
    made.receipt["rehearsal"] = True
    made.receipt["cost"] = {"billed": False, "estimate": 0.04, "price_per_hour": 0.536, "price_date": None}
    made.receipt["goals"][0]["met"] = False
    made.metrics["goals"][0]["value"] = None
    text = Reader(page.report(made.facts())).text
    assert "the first 3,000 of 60,000 pictures" in text and "No accuracy here is for all of MNIST" in text
    assert "not judged" in text and "goal 99.4%" not in text
    assert "The EC2 region was emulated" in text or "the EC2 region was emulated" in text
    assert "Nothing was billed. The same time on the real instance costs about $0.04" in text


def test_a_job_of_ones_own_without_figures_gets_a_short_report(made: MadeRun) -> None:
    made.receipt["train"] |= {"module": "mine.train"}
    made.receipt["settings"] = {"hyperparameters": {}}
    made.receipt["goals"], made.events, made.metrics, made.predictions, made.layers = [], [], {}, [], ""
    reader = Reader(page.report(made.facts()))
    assert "no test accuracy was reported" in reader.text and "Job mine.train" in reader.text
    assert "Learning curves" not in reader.text and "--job FOLDER" in reader.text
    assert not reader.all("svg")


def test_the_goal_that_was_missed_is_called_missed(made: MadeRun) -> None:
    made.receipt["goals"][0]["met"] = False
    made.metrics["goals"][0]["value"] = 99.1
    assert "99.10% not met" in Reader(page.report(made.facts())).text


def test_a_result_called_report_html_is_not_replaced(made: MadeRun) -> None:
    made.receipt["artifacts"] = [{"name": "Report.html", "size": 5, "sha256": "0" * 64}]
    (made.write() / "Report.html").write_text("mine!")
    path = write_facts(made.facts())
    assert path.name == "cloudtrain-report.html" and (made.folder / "Report.html").read_text() == "mine!"


def test_colours_can_be_read() -> None:
    """Contrast of text colours on the grounds they stand on, by the formula of WCAG 2.2, in both palettes."""
    style = (Path(page.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    roots = re.findall(r":root \{(.*?)\n\s*\}", style, flags=re.DOTALL)[:2]
    palettes = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", root)) for root in roots]
    assert len(palettes) == 2 and all(len(palette) > 12 for palette in palettes)
    for palette in palettes:
        for ink in ("ink", "muted", "good", "bad", "goal"):
            for ground in ("ground", "faint"):
                assert contrast(palette[ink], palette[ground]) >= 4.5, (ink, ground)
        assert contrast(palette["ink"], palette["right"]) >= 4.5
        for line in ("s0", "s1", "s2", "s3", "s4"):
            assert contrast(palette[line], palette["ground"]) >= 3, line


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

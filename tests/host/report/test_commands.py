"""report, compare and load as a user has them, on a real tiny run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cloudtrain.cli.app import run
from cloudtrain.report import write_facts
from cloudtrain.report.sources import of_path
from cloudtrain.run_folder import files, verify
from tests.made import MadeRun
from tests.region.whole_path.place import ROOT, Place

pytestmark = pytest.mark.mnist


def test_the_page_of_a_real_run(trained: Place, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = trained.cli("report", "tiny-otter", "--out", str(out))
    assert done.stdout.decode().strip() == str(out)
    text = out.read_text(encoding="utf-8")
    assert 30_000 < len(text.encode()) < 150_000
    assert text.count("<img ") > 10 and "No accuracy here is for all of MNIST" in text
    assert str(trained.home) not in text and str(trained.cwd) not in text


def test_the_section_and_the_record_go_to_stdout(trained: Place) -> None:
    done = trained.cli("report", "--format", "md")
    text = done.stdout.decode()
    log = (trained.folder("tiny-otter") / "console.log").read_text(encoding="utf-8")
    assert text.startswith("# Model 3\n\n### Targets:\n - test accuracy >= 99.4 %\n")
    # The job's log has neither redrawn lines nor escapes here: the clean log is the log.
    assert "\n".join(line.rstrip() for line in log.strip().splitlines()) in text
    assert b"wrote the section to hand in: goals, results, layer table, cleaned log" in done.stderr
    told = json.loads(trained.cli("report", "--format", "json").stdout)
    assert json.loads(trained.cli("report", "--json").stdout)["report"] == told
    assert (told["schema_version"], told["run"], told["subset"]) == (1, "tiny-otter", 600)
    assert len(told["epochs"]) == 2 and sum(map(sum, told["confusion"]["matrix"])) == 100
    assert told["last"]["epoch"] == 2 and told["goals"][2] == {"goal": "epochs <= 15", "met": True, "value": 2}
    metrics = json.loads((trained.folder("tiny-otter") / "metrics.json").read_text())
    assert told["confusion"]["class_acc"] == metrics["final"]["per_class_acc"]
    assert told["best"]["test_acc"] == metrics["best"]["test_acc"]


def test_every_run_that_ends_leaves_its_report(tmp_path: Path) -> None:
    place = Place("local", ["--local"], tmp_path / "home", tmp_path)
    try:
        done = place.cli(*place.toy("calm-wren", "--lines", "2"))
        page = place.folder("calm-wren") / "report.html"
        assert f"report   {Path('runs', 'calm-wren', 'report.html')}" in done.stderr.decode()
        assert "98.20%" in page.read_text(encoding="utf-8")
        done = place.cli(*place.toy("sad-wren", "--lines", "2", "--crash", "out of luck"), code=3)
        told = (place.folder("sad-wren") / "report.html").read_text(encoding="utf-8")
        assert "out of luck" in told and "The training program failed." in told
        # A page that cannot be written stands in nobody's way.
        page.unlink()
        page.mkdir()
        done = place.cli("pull", "calm-wren")
        assert b"the report could not be written" in done.stderr and b"cloudtrain report calm-wren" in done.stderr
        assert b"checksums verified" in done.stderr
    finally:
        place.cleanup()


def test_verify_takes_a_report_for_no_result_and_no_stranger(trained: Place, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny-otter"
    shutil.copytree(trained.folder("tiny-otter"), folder)
    write_facts(of_path(folder))
    assert not [check for check in verify.check(folder).checks if check.subject == "report.html"]
    before = (folder / "SHA256SUMS").read_bytes()
    assert files.sha256sums(folder).read_bytes() == before and b"report.html" not in before
    (folder / "report.html").write_text("somebody's own")
    assert [check.verdict.value for check in verify.check(folder).checks if check.subject == "report.html"] == ["extra"]
    assert b"  report.html\n" in files.sha256sums(folder).read_bytes()


def test_a_copied_folder_is_reported_and_compared(trained: Place, made: MadeRun, tmp_path: Path) -> None:
    page = tmp_path / "both.html"
    done = trained.cli("compare", "tiny", str(made.write()), "--html", str(page))
    lines = done.stdout.decode().splitlines()
    assert lines[0].split() == ["tiny-otter", "brave-otter"]
    assert any(line.startswith("batch size") and line.endswith("<- differs") for line in lines)
    assert "brave-otter ended at 99.43%" in page.read_text(encoding="utf-8")
    (made.folder / "run.json").write_text("{}")
    done = trained.cli("report", str(made.folder), code=2)
    assert b"cannot be understood" in done.stderr


def test_bad_input_is_told(
    trained: Place,
    made: MadeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made.write()
    monkeypatch.setenv("CLOUDTRAIN_HOME", str(trained.home))
    monkeypatch.chdir(trained.cwd)
    cases = {
        ("report", "nobody-otter"): "hint:  did you mean tiny-otter?",
        ("report", "--format", "md", "--open"): "--open is for the page",
        ("report", "--out", str(tmp_path / "not" / "there.html")): "cannot be written: no such file or directory",
        ("report", str(made.folder), "--out", str(made.folder / "metrics.json")): "is a result of brave-otter",
        ("report", "--format", "pdf"): "hint:  one of html, md, json",
        ("compare", "tiny-otter"): "one run cannot be compared",
        ("compare",): "RUN RUN... is missing",
        ("export", "tiny-otter"): "--to is missing",
        ("export", "--to", "keras"): "--to: there is no 'keras'",
    }
    for argv, told in cases.items():
        monkeypatch.setattr(sys, "argv", ["cloudtrain", *argv])
        assert run() == 2, argv
        out, err = capsys.readouterr()
        assert told in err and "hint:" in err and not out, (argv, err)
    assert (made.folder / "metrics.json").read_text().startswith("{")


def test_a_notebook_loads_it(trained: Place, made: MadeRun) -> None:
    program = """
import sys, cloudtrain
assert not {"torch", "jinja2", "rich", "boto3"} & set(sys.modules), "import cloudtrain is quick"
run = cloudtrain.load("tiny-otter")
assert not {"torch", "jinja2", "rich", "boto3"} & set(sys.modules), "load is, too"
print(repr(run))
assert [row["epoch"] for row in run.metrics] == [1, 2] and sum(map(sum, run.confusion)) == 100
assert run.settings["model"] == 3 and len(run.goals) == 3 and run.receipt["name"] == run.name
from job.models import build
build(3).load_state_dict(run.state_dict(), strict=True)
build(3).load_state_dict(run.state_dict("last"), strict=True)
try:
    cloudtrain.load("nobody")
except cloudtrain.core.errors.UsageError as error:
    print(error, error.__notes__)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "CLOUDTRAIN_HOME": str(trained.home)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<run tiny-otter: Model 3, done, test accuracy")
    assert 'no run "nobody"' in done.stdout and "hint: cloudtrain ls" in done.stdout


def test_a_notebook_shows_no_markup_of_others(made: MadeRun) -> None:
    import cloudtrain

    made.receipt["name"] = "<b>otter</b>"
    made.receipt["goals"] = [{"goal": "<script>", "met": True}]
    loaded = cloudtrain.load(made.write())
    shown = loaded._repr_html_()
    assert "<b>" not in shown and "<script>" not in shown and "&lt;b&gt;otter" in shown
    assert loaded.best is not None and loaded.best["epoch"] == 14 and len(loaded.mistakes) == 57
    assert "Model 3, done, test accuracy 99.43% in epoch 15 (best 99.44% in epoch 14)" in repr(loaded)

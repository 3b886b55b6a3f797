"""What a listing says of runs, how old that is, and what of it a narrow screen shows."""

from __future__ import annotations

import io
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cloudtrain.console import colour
from cloudtrain.console.pages import listing
from cloudtrain.console.reporters.live import LiveLines
from cloudtrain.console.table import fitted_table
from cloudtrain.console.text import shown_path
from cloudtrain.core import disk
from cloudtrain.core.errors import RunError
from cloudtrain.core.spec import Ec2Spec, HostSpec, Limits, Target
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.store import Run, Store
from tests import plans

AGO_S = 130.0
HOST = HostSpec(user="ada", address="gpu.example", port=22, identity="key")


def run_of(
    tmp_path: Path, state: RunState, life: InstanceLife = InstanceLife.NONE, heard_s: float = AGO_S, **spec: object
) -> Run:
    """A run that was planned an hour ago and was heard of some time ago."""
    now = time.time()
    name = str(spec.pop("name", "brave-otter"))
    made = plans.plan(tmp_path, name, **spec)
    run = Run(name=name, state=state, life=life, plan=made, instance=None)
    return replace(run, created_at=now - 3600, updated_at=now - heard_s, ended_at=now if state.final else None)


def launched(tmp_path: Path, state: RunState, life: InstanceLife = InstanceLife.RUNNING, **more: object) -> Run:
    ec2 = Ec2Spec(types=("g4dn.xlarge",), rehearsal=bool(more.pop("rehearsal", False)))
    run = run_of(tmp_path, state, life, target=Target.EC2, ec2=ec2, **more)  # type: ignore[arg-type]
    return replace(run, instance=plans.machine(expires_at=time.time() + 3600))


def said(run: Run, **more: bool) -> str:
    return listing.standing(run, time.time(), **more)


def test_what_may_have_changed_since_says_when_it_was_heard(tmp_path: Path) -> None:
    assert said(run_of(tmp_path, RunState.RUNNING, target=Target.HOST, host=HOST)) == "training, as of 2 min ago"
    assert said(launched(tmp_path, RunState.RUNNING, heard_s=4.0)) == "training"
    parked = replace(launched(tmp_path, RunState.RUNNING, heard_s=2 * 86400.0 + 5), life=InstanceLife.PARKED)
    assert said(parked) == "parked, as of 2 days ago"
    assert said(run_of(tmp_path, RunState.SUCCEEDED)) == "done", "for good"
    gone = launched(tmp_path, RunState.RUNNING, life=InstanceLife.TERMINATED)
    assert said(gone) == "its machine has ended"


def test_one_that_was_asked_in_vain_says_so(tmp_path: Path) -> None:
    run = launched(tmp_path, RunState.RUNNING, heard_s=12 * 60 + 1)
    assert said(run, silent=True) == "training, no answer; as of 12 min ago"
    told = listing.table([run], silent={run.name: "i-0a1b did\x1b[2J not answer"})
    assert "no answer; as of 12 min ago" in told[1] and told[-1] == "brave-otter: no answer: i-0a1b did not answer"


def test_a_machine_that_boots_is_there_with_its_price(tmp_path: Path) -> None:
    run = launched(tmp_path, RunState.BOOTING, heard_s=1.0)
    assert said(run) == "booting i-0a1b, $0.500 an hour"
    assert said(launched(tmp_path, RunState.SYNCING, rehearsal=True, heard_s=1.0)) == "syncing i-0a1b"
    assert said(run_of(tmp_path, RunState.BOOTING, heard_s=1.0)) == "booting", "nothing was launched"
    # EC2 was asked for one: which it will be is not known yet.
    asked = launched(tmp_path, RunState.PROVISIONING, InstanceLife.LAUNCHING, heard_s=1.0)
    asked = replace(asked, instance=None, plan=replace(asked.plan, offer=plans.offer(0.5, 0.8)))
    assert said(asked) == "provisioning, at most $0.800 an hour"
    assert said(run_of(tmp_path, RunState.PROVISIONING, heard_s=1.0)) == "provisioning"


def test_a_job_on_a_machine_that_stays_which_is_past_its_limit(tmp_path: Path) -> None:
    limits = Limits(max_time_s=1800.0)
    run = run_of(tmp_path, RunState.RUNNING, target=Target.HOST, host=HOST, limits=limits)
    limit = time.strftime("%H:%M", time.localtime(run.created_at + 1800))
    assert said(run) == "past its limit, not confirmed"
    words = f"its limit was {limit}, and its end is not known here; cloudtrain logs brave-otter"
    assert listing.table([run])[-1] == f"brave-otter: {words}"
    ended = replace(run, ending={"state": "exited", "code": 0})
    assert said(ended) == "ended, not pulled yet" and len(listing.table([ended])) == 2
    extended = replace(plans.machine(expires_at=time.time() + 60), owned=False, provider=Target.HOST)
    assert said(replace(run, instance=extended)) == "training, as of 2 min ago"
    assert said(replace(run, plan=replace(run.plan, limit_s=7200.0))) == "training, as of 2 min ago"
    assert said(launched(tmp_path, RunState.RUNNING, limits=limits)) == "training, as of 2 min ago", "it has a lease"


def listed(tmp_path: Path) -> list[Run]:
    name = "a-name-that-is-rather-long"
    return [
        launched(tmp_path, RunState.BOOTING, heard_s=200.0),
        run_of(tmp_path, RunState.RUNNING, target=Target.HOST, host=HOST, name=name),
        run_of(tmp_path, RunState.SUCCEEDED, name="dry-finch"),
    ]


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (200, "NAME MODEL WHERE STATUS TEST ACC COST AGE"),
        (80, "NAME STATUS TEST ACC COST"),
        (60, "NAME STATUS COST"),
        (40, "NAME"),
        (None, "NAME MODEL WHERE STATUS TEST ACC COST AGE"),
    ],
)
def test_columns_give_way_and_names_never(tmp_path: Path, width: int | None, columns: str) -> None:
    runs = listed(tmp_path)
    lines = listing.table(runs, width=width)
    assert " ".join(lines[0].split()) == columns
    assert all(len(line) <= (width or 1000) for line in lines)
    for run in runs:
        assert any(line.startswith(run.name) for line in lines)
    assert any("as of 3 min ago" in line for line in lines), "broken after a comma"


def test_a_name_as_wide_as_the_screen_stands_above_its_status() -> None:
    lines = fitted_table(("NAME", "STATUS", "AGE"), [("n" * 30, "training", "1 h")], 32, long=1, gives_way=((2, 16),))
    assert lines == ["NAME", "  STATUS", "n" * 30, "  training"]


def test_how_it_stands_is_in_colour_and_in_words(tmp_path: Path) -> None:
    runs = listed(tmp_path)
    plain, coloured = listing.table(runs, width=80), listing.table(runs, width=80, colour=True)
    assert [line.replace("\x1b[0m", "").replace("\x1b[36m", "").replace("\x1b[32m", "") for line in coloured] == plain
    assert "\x1b[32mdone\x1b[0m" in coloured[-1]
    lost = listing.table([run_of(tmp_path, RunState.LOST)], colour=True)[1]
    assert f"\x1b[{colour.BAD}mlost\x1b[0m" in lost


class Screen:
    """Standard output as a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False)],
)
def test_when_a_list_is_in_colour(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], coloured: bool) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.platform", "linux")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert colour.of_list(Screen()) is coloured  # type: ignore[arg-type]


def test_what_all_that_runs_costs(tmp_path: Path) -> None:
    first, second = launched(tmp_path, RunState.RUNNING), launched(tmp_path, RunState.BOOTING, name="dry-finch")
    now = time.time()
    assert listing.spending([first, second], (), now) == "2 machines run: $1.00 an hour, $1.00 so far"
    assert listing.spending([first], (), now) == "1 machine runs: $0.50 an hour, $0.50 so far"
    assert listing.spending([first], {first.name}, now).startswith("1 machine may run:")
    rehearsed = launched(tmp_path, RunState.RUNNING, rehearsal=True)
    assert listing.spending([rehearsed], (), now) == "no machine is billed by the hour; 1 rehearsal, not billed"
    host = run_of(tmp_path, RunState.RUNNING, target=Target.HOST, host=HOST)
    assert listing.spending([host], (), now) == "no machine is billed by the hour"
    parked = replace(first, life=InstanceLife.PARKED)
    assert listing.spending([parked], (), now).startswith("no machine is billed by the hour; 1 parked disk")


def test_lines_that_are_drawn_again_keep_the_last_one_on_a_low_screen() -> None:
    out = io.StringIO()
    with LiveLines(Console(file=out, force_terminal=True, width=40, height=6, soft_wrap=True)) as screen:
        screen.show([*(f"run {number}" for number in range(10)), "2 machines run"])
        assert screen.width == 39
    drawn = out.getvalue()
    assert "run 2" in drawn and "run 3" not in drawn and "... 7 more lines" in drawn and "2 machines run" in drawn


@pytest.mark.parametrize("width", [80, 40])
def test_a_page_is_broken_between_words(tmp_path: Path, width: int) -> None:
    run = launched(tmp_path, RunState.RUNNING, life=InstanceLife.PARKED)
    error = RunError(code="quota", message="the account allows none of it " * 4, detail="one line\nand another")
    run = replace(run, error=replace(error, hint="cloudtrain doctor prints the command that asks for more of it"))
    run.folder.mkdir(parents=True)
    told = {"kind": "epoch", "epoch": 1, "epochs": 2, "test_acc": 98.5, "test_loss": 0.5, "seconds": 3.0}
    (run.folder / "events.jsonl").write_text(json.dumps(told) + "\n")
    store = Store(tmp_path / "registry.sqlite")
    whole, lines = listing.page(run, store), listing.page(run, store, width)
    path = shown_path(run.folder)
    assert all(len(line) <= width for line in lines if path not in line)
    facts = "\n".join(lines[: lines.index("")])
    assert facts.split() == "\n".join(whole[: whole.index("")]).split(), "no word is cut, and none is missing"
    assert "           and another" in lines
    assert ("test loss" in "\n".join(lines)) is (width == 80) and any("98.50%" in line for line in lines)
    ways = ["follow it: cloudtrain logs brave-otter", "end it: cloudtrain stop brave-otter"]
    assert lines[-2:] == ways if width == 40 else lines[-1] == "   ".join(ways)


def test_a_local_run_is_looked_for_once_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, looks, glob = run_of(tmp_path, RunState.RUNNING), [], Path.glob
    monkeypatch.setenv("CLOUDTRAIN_HOME", str(tmp_path))
    monkeypatch.setattr(Path, "glob", lambda path, pattern: looks.append(pattern) or glob(path, pattern))
    assert "training, as of" in listing.table([run], colour=True)[1] and len(looks) == 1
    ended = disk.state_dir() / "local" / "runs" / f"{run.name}-0a1b2c3d" / "exit.json"
    ended.parent.mkdir(parents=True)
    ended.write_text("{}")
    assert "ended, not pulled yet" in listing.table([run])[1] and listing.status(run) == "ended, not pulled yet"

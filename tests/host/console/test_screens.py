"""What a person sees: whole screens, read back from a terminal. `CLOUDTRAIN_NEW_GOLDEN=1 pytest` writes them anew."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("there is no pseudo-terminal to read back", allow_module_level=True)

from tests.host.console.screen import Played, Screen, played

GOLDEN = Path(__file__).parent / "golden"
NEW = "CLOUDTRAIN_NEW_GOLDEN" in os.environ
_COLOUR = re.compile(rb"\x1b\[[0-9;]*m")


def matches(name: str, shown: str) -> None:
    """The screen is the golden one of that name."""
    shown = re.sub(r"(?m)^\d\d:\d\d:\d\d ", "hh:mm:ss ", shown)
    path = GOLDEN / f"{name}.txt"
    if NEW:
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(shown, encoding="utf-8", newline="\n")
    assert shown == path.read_text(encoding="utf-8")


def at_stop(player: Played, number: int) -> Screen:
    """The screen at the `number`-th stop, from 1."""
    for _ in range(number - 1):
        player.to_stop()
        player.go_on()
    return player.to_stop()


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize(("name", "stop"), [("launching", 1), ("syncing", 2), ("first-epoch", 3), ("training", 4)])
def test_live(name: str, stop: int, columns: int, tmp_path: Path) -> None:
    with played("training", columns=columns, lines=60, folder=tmp_path) as player:
        matches(f"{name}-{columns}", at_stop(player, stop).text())


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("scene", ["ended", "failure", "plan"])
def test_last_screen(scene: str, columns: int, tmp_path: Path) -> None:
    with played(scene, columns=columns, lines=60, folder=tmp_path) as player:
        player.to_stop()
        player.go_on()
        matches(f"{scene}-{columns}", player.to_end().text())


@pytest.mark.parametrize(("view", "options"), [("live", []), ("logs", ["logs"]), ("logs-t", ["logs", "-t"])])
def test_a_bar_is_drawn_in_place(view: str, options: list[str], tmp_path: Path) -> None:
    """What has no line end yet: its last state, once, within the width; and nothing of it that a terminal obeys."""
    with played("bar", *options, columns=60, lines=40, folder=tmp_path) as player:
        drawn = [player.to_stop().text()]
        player.go_on()
        drawn.append(player.to_stop().text())
        player.go_on()
        screen = player.to_end()
    matches(f"bar-{view}", "\n----\n".join([*drawn, screen.text()]))
    assert b"title" not in screen.raw and b"\x1b[32m" not in screen.raw


@pytest.mark.parametrize(
    ("view", "columns", "options"),
    [("live", 120, []), ("live", 80, []), ("live", 40, []), ("logs", 80, ["logs"]), ("logs", 40, ["logs"])],
)
def test_a_program_of_ones_own(view: str, columns: int, options: list[str], tmp_path: Path) -> None:
    """It draws with the real tqdm and Rich. In the end each of its rows stands there once, in its last state."""
    drawn = []
    with played("program", *options, columns=columns, lines=40, folder=tmp_path) as player:
        for _ in range(5):
            drawn.append(player.to_stop().text())
            player.go_on()
        screen = player.to_end()
    assert b"title" not in screen.raw and b"\x1b[2J" not in screen.raw
    trained = [text.rpartition(" for this run\n")[2] for text in [*drawn, screen.text()]]
    matches(f"program-{view}-{columns}", "\n----\n".join(trained))


def test_a_program_of_ones_own_where_nothing_is_redrawn(tmp_path: Path) -> None:
    with played("program", "--plain", columns=80, lines=60, folder=tmp_path) as player:
        for _ in range(5):
            player.to_stop()
            player.go_on()
        screen = player.to_end()
    assert b"\x1b" not in screen.raw
    matches("program-plain", screen.text())


def test_a_program_that_says_nothing_has_its_time_and_cost_on_the_screen(tmp_path: Path) -> None:
    with played("silent", lines=40, folder=tmp_path) as player:
        first = player.to_stop().text()
        player.go_on()
        second = player.to_stop().text()
        player.go_on()
    assert "of at most $1.63" in first and "ends itself by " in first and "Ctrl-C to detach or stop" in first
    (before,), (after,) = (re.findall(r"(?m)^cost .* (\d\.\d) s", text) for text in (first, second))
    assert float(before) < float(after)


@pytest.mark.parametrize("columns", [40, 60, 100])
def test_no_word_is_broken_by_the_edge(columns: int, tmp_path: Path) -> None:
    with played("training", columns=columns, lines=60, folder=tmp_path) as player:
        text = at_stop(player, 4).text()
        player.go_on()
        player.to_end()
    words = set(text.split())
    assert words >= {"replaced", "that", "machine", "disconnects;", "Reconnecting", "billed", "pull"}
    assert max(len(line) for line in text.splitlines()) <= columns


@pytest.mark.parametrize(
    ("name", "options", "environment"),
    [("plain", ["--plain"], {}), ("dumb", [], {"TERM": "dumb"}), ("dumb-40", [], {"TERM": "dumb"})],
)
def test_nothing_is_redrawn(name: str, options: list[str], environment: dict[str, str], tmp_path: Path) -> None:
    columns = 40 if name.endswith("-40") else 80
    with played("ended", *options, columns=columns, lines=120, environment=environment, folder=tmp_path) as player:
        player.to_stop()
        player.go_on()
        screen = player.to_end()
    assert b"\x1b" not in screen.raw
    assert screen.raw.count(b"\r") == screen.raw.count(b"\r\n")
    matches(name, screen.text())


def test_no_colour_where_none_is_wanted(tmp_path: Path) -> None:
    with played("training", environment={"NO_COLOR": "1"}, folder=tmp_path) as player:
        screen = at_stop(player, 4)
    styles = {style for found in _COLOUR.findall(screen.raw) for style in found[2:-1].split(b";")}
    assert styles <= {b"0", b"1", b"2", b""}, "only bold, dim and their end"


@pytest.mark.parametrize(("name", "columns"), [("cp1252", 80), ("cp1252-40", 40)])
def test_a_terminal_of_an_old_code_page(name: str, columns: int, tmp_path: Path) -> None:
    with played("training", columns=columns, lines=70, encoding="cp1252", folder=tmp_path) as player:
        matches(name, at_stop(player, 4).text())


@pytest.mark.parametrize("columns", [60, 40, 120])
def test_a_resize_leaves_nothing_behind(columns: int, tmp_path: Path) -> None:
    with played("training", columns=80, lines=40, folder=tmp_path) as player:
        at_stop(player, 3)
        player.resize(columns, 40)
        player.go_on()
        drawn = player.to_stop().text()
        player.go_on()
        left = player.to_end().text()
    assert drawn.count("Ctrl-C to detach") == 1
    assert drawn.count("cost  ") == 1
    for redrawn in ("Ctrl-C to detach", "cost  ", "it/s"):
        assert redrawn not in left
    for epoch, accuracy in enumerate(("98.74%", "99.21%", "99.31%", "99.39%", "99.43%"), 1):
        assert len(re.findall(rf"(?m)^ +{epoch}/5 .* {accuracy} ", left)) == 1


@pytest.mark.parametrize("columns", [100, 40])
def test_the_log_of_a_run_that_trains_ends_in_its_time_and_cost(columns: int, tmp_path: Path) -> None:
    with played("watched", "logs", lines=12, columns=columns, folder=tmp_path) as player:
        first = player.to_stop().text()
        player.go_on()
        second = player.to_stop().text()
        player.go_on()
        last = player.to_end().text()
    for text in (first, second):
        *_, before, begun, foot = [line for line in text.splitlines() if line.strip()]
        assert (before, begun) == ("loading data", "epoch 1:") and "of at most $1.63" in foot and len(foot) < columns
        assert ("ends itself by" in foot and "Ctrl-C" in foot) or columns == 40
    assert first != second, "its time goes on"
    assert [line for line in last.splitlines() if line.strip()][-2:] == ["loading data", "epoch 1: done"]
    assert "of at most" not in last, "it is gone when the command is"

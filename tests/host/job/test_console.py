"""The training log keeps the course's shape, byte for byte, on a terminal, in a file and on Windows' code page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from job import console as console_module
from job.console import Console, ordinal
from tests.host.job.conftest import ROOT, SMALL, Job

GOLDEN = Path(__file__).parent / "golden"
BAR = re.compile(
    r"Loss=(?P<loss>\S+) Batch_id=(?P<batch>\d+) Accuracy=(?P<acc>\S+): 100%\|█+\| (?P<n>\d+)/\d+ "
    r"\[(?P<m>\d\d):(?P<s>\d\d)<00:00, +(?P<rate>[\d.]+)it/s\]"
)
TEST = re.compile(r"Test set: Average loss: (?P<loss>[\d.]+), Accuracy: (?P<right>\d+)/(?P<all>\d+) \(")


@pytest.mark.parametrize("model", [2, 3])
def test_the_course_logs_come_out_again(
    model: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feed the console the figures of a whole log of the course: it must print that log."""
    text = (GOLDEN / f"model{model}_log.txt").read_text(encoding="utf-8")
    results = re.search(r"Best Train Accuracy: (.*)\nBest Test Accuracy: (.*) \((\d+)", text)
    assert results
    console = Console()
    parameters = int(re.search(r"Total params: (.*)", text)[1].replace(",", ""))
    head, _, _ = text.partition("EPOCH: 0\n")
    console.line(head.rstrip("\n"))
    tests = list(TEST.finditer(text))
    for epoch, (bar, test) in enumerate(zip(BAR.finditer(text), tests, strict=True)):
        console.epoch(epoch)
        monkeypatch.setattr(console_module, "PLAIN_WIDTH", len(bar[0]))
        whole_seconds, steps = int(bar["m"]) * 60 + int(bar["s"]), int(bar["n"])
        seconds = min(max(steps / float(bar["rate"]), whole_seconds), whole_seconds + 0.999)
        assert int(bar["batch"]) == steps - 1
        console.bar_done(steps, float(bar["loss"]), float(bar["acc"]), seconds)
        console.test(float(test["loss"]), int(test["right"]), int(test["all"]))
    assert len(tests) == 15
    console.results(parameters, float(results[1]), float(results[2]), int(results[3]))
    assert capsys.readouterr().out == text


@pytest.mark.parametrize(("model", "args"), [(1, (13_808, 98.95, 99.41, 15)), (3, (7_902, 98.66, 99.44, 14))])
def test_results_block(model: int, args: tuple[int, float, float, int], capsys: pytest.CaptureFixture[str]) -> None:
    Console().results(*args)
    assert capsys.readouterr().out == "\n" + (GOLDEN / f"model{model}_results.txt").read_text(encoding="utf-8")


def test_ordinals() -> None:
    numbers = (1, 2, 3, 4, 10, 11, 12, 13, 14, 21, 22, 23, 101, 111, 112)
    wanted = "1st 2nd 3rd 4th 10th 11th 12th 13th 14th 21st 22nd 23rd 101st 111th 112th"
    assert " ".join(ordinal(number) for number in numbers) == wanted


def test_log_of_a_run(finished: Job) -> None:
    """Not a terminal: no redrawing, one bar line of 100 columns an epoch, the seed's blank lines."""
    table = (GOLDEN / "model3_table.txt").read_text(encoding="utf-8")
    bar = r"Loss=\d+\.\d+(e-\d+)? Batch_id=13 Accuracy=\d+\.\d\d: 100%\|█+\| 14/14 \[00:\d\d<00:00, +\d+\.\d\dit/s\]\n"
    epochs = "".join(
        rf"EPOCH: {epoch}\n{bar}\nTest set: Average loss: \d\.\d{{4}}, Accuracy: \d+/150 \(\d+\.\d\d%\)\n\n"
        for epoch in range(3)
    )
    subset = r"Subset: the first 900 of 60,000 training images and the first 150 of 10,000 test images; .*\n"
    end = (
        r"\n={19}\nResults:\nParameters: 7\.9k\nBest Train Accuracy: \d+\.\d\d\n"
        r"Best Test Accuracy: \d+\.\d\d \((1st|2nd|3rd) Epoch\)\n={19}\n"
    )
    whole = rf"cpu\n{re.escape(table)}CUDA Available\? (True|False)\n{subset}{epochs}{end}"
    assert re.fullmatch(whole, finished.log), finished.log
    assert {len(line) for line in finished.log.splitlines() if line.startswith("Loss=")} == {100}
    assert "\r" not in finished.log


def test_log_agrees_with_the_metrics(finished: Job) -> None:
    shown = [(int(match["right"]), int(match["all"])) for match in TEST.finditer(finished.log)]
    assert [100 * right / total for right, total in shown] == [row["test_acc"] for row in finished.rows()]
    best = finished.json("metrics.json")["best"]
    assert f"Best Test Accuracy: {best['test_acc']:.2f} ({ordinal(best['epoch'])} Epoch)" in finished.log


def test_output_is_utf8_where_the_code_page_is_not(tmp_path: Path) -> None:
    code = "from job.console import Console; Console().bar_done(18, 0.5, 90.0, 2.0); Console().error('a ñ', 'b')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    line = done.stdout.decode("utf-8")
    assert "█" in line and len(line) == 101 and line.endswith("\n")
    assert done.stderr.decode("utf-8") == "error: a ñ\nhint: b\n"


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_bar_on_a_terminal_is_redrawn_in_place(job, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """What is left on the screen of a terminal is the same clean log."""
    import pty

    import pyte

    made = job("--epochs", "2", *SMALL)
    main, side = pty.openpty()
    try:
        import fcntl
        import struct
        import termios

        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 80, 120, 0, 0))
        env = {**os.environ, "CLOUDTRAIN_OUT": str(made.out), "TERM": "xterm"}
        argv = [sys.executable, "-m", "job.train", *made.argv]
        process = subprocess.Popen(argv, cwd=ROOT, stdin=side, stdout=side, stderr=side, env=env)
        os.close(side)
        side = -1
        received = b""
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:  # Linux: the other side is closed
                break
            if not part:
                break
            received += part
        assert process.wait(60) == 0, received
    finally:
        os.close(main)
        if side != -1:
            os.close(side)
    screen = pyte.Screen(120, 200)
    pyte.ByteStream(screen).feed(received)
    lines = [line.rstrip() for line in screen.display]
    assert b"\r" in received.replace(b"\r\n", b"")  # it was live
    bars = [line for line in lines if "Loss=" in line]
    assert len(bars) == 2 and all(BAR.fullmatch(bar) for bar in bars)
    first = lines.index("EPOCH: 0")
    assert lines[first + 1] == bars[0] and lines[first + 2] == "" and lines[first + 3].startswith("Test set:")
    assert lines[first + 4] == "" and lines[first + 5] == "EPOCH: 1"

"""The pictures of the README, taken from one real run: .venv/bin/python scripts/screenshots.py

Rehearses Model 3 in a terminal of its own (minutes; nothing is billed), takes its screen as docs/images/live.svg while
it trains, and its report, as Chromium shows it, as docs/images/report.png. Needs what `python3 scripts/test.py`
installs, and a system with pseudo-terminals. Further arguments go to `cloudtrain run`.
"""

import codecs
import importlib.util
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _require_python  # noqa: F401  first: under an old Python it ends here, with a clear message
from _terminal import ROOT, Stop, entry, say
from test import PROGRAMS

IMAGES = ROOT / "docs" / "images"
NAME = "brave-otter"
COLUMNS, LINES = 92, 40
# The screen is taken when so many epochs are done and the next is about half through.
AFTER_EPOCHS = 3
LIMIT_S = 2 * 3600
REPORT_WIDTH = 1200
GROUND, INK = (19, 22, 25), (231, 229, 225)
COLOURS = [
    *((60, 66, 72), (255, 140, 110), (95, 211, 171), (230, 190, 90), (86, 180, 233), (224, 160, 198)),
    *((120, 200, 210), INK),
]


def main(arguments: list[str]) -> int:
    """Make the run, then both pictures."""
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    if os.name == "nt":
        raise Stop("this system has no pseudo-terminals", hint="run it on Linux or macOS")
    for module in ("playwright", "pyte", "rich"):
        if importlib.util.find_spec(module) is None:
            raise Stop(f"{module} is not installed", hint="python3 scripts/test.py makes .venv with all that is needed")
    IMAGES.mkdir(parents=True, exist_ok=True)
    command = ["run", "--model", "3", "--instance", "g4dn.xlarge", "--dry-run", *arguments]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "digits"
        place.mkdir()
        environment = {
            **os.environ,
            "CLOUDTRAIN_HOME": str(Path(folder) / "home"),
            "CLOUDTRAIN_DATA": os.environ.get("CLOUDTRAIN_DATA") or str(ROOT / "data" / "mnist"),
            "PYTHONPATH": str(ROOT),
            "TERM": "xterm-256color",
        }
        screen = follow([sys.executable, "-m", "cloudtrain", *command, "--name", NAME, "--yes"], place, environment)
        say(f"  live         {write_live(screen, ' '.join(['cloudtrain', *command]))}")
        report = place / "runs" / NAME / "report.html"
        say(f"  report       {write_report(report)}")
    return 0


def follow(argv, place, environment):
    """Run `argv` in a terminal to its end; its screen at the moment of the picture."""
    import fcntl
    import pty
    import struct
    import termios

    import pyte

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    process = subprocess.Popen(
        argv, cwd=place, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    screen = pyte.Screen(COLUMNS, LINES)
    stream, decoder = pyte.Stream(screen), codecs.getincrementaldecoder("utf-8")("replace")
    taken, deadline = None, time.monotonic() + LIMIT_S
    try:
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 1.0)[0]:
                continue
            try:
                data = os.read(ours, 65536)
            except OSError:  # Linux: the other end was closed
                data = b""
            if not data:
                break
            stream.feed(decoder.decode(data))
            if taken is None and is_the_moment(screen.display):
                taken = [dict(screen.buffer[line]) for line in range(LINES)]
                say("  live         taken; the run goes on to its end")
        code = process.wait(60)
    finally:
        process.kill()
        os.close(ours)
    if code or taken is None:
        raise Stop(
            f"the run ended with {code}" if code else "the moment of the picture never came",
            hint="look at what it says",
            detail=[line.rstrip() for line in screen.display if line.strip()][-12:],
        )
    return taken


def is_the_moment(lines):
    """Whether enough epochs are done and the next is about half through, by what is on the screen."""
    done = sum(bool(re.match(rf" *{number}/\d+ .*\d%", line)) for line in lines for number in range(1, 30))
    step = next((match for line in lines if (match := re.search(r"step (\d+)/(\d+)", line))), None)
    return done >= AFTER_EPOCHS and step is not None and 0.4 < int(step[1]) / int(step[2]) < 0.8


def write_live(screen, title):
    """The screen as an SVG that asks nobody for a font."""
    from rich import _export_format
    from rich.console import Console
    from rich.segment import Segment
    from rich.style import Style
    from rich.terminal_theme import TerminalTheme

    # Rich's own template, without the fonts that it would fetch.
    template = re.sub(r"@font-face \{\{.*?\}\}", "", _export_format.CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    named = {"brown": "yellow", "brightblack": "bright_black"}
    lines = [[(line[x].data, line[x]) if x in line else (" ", None) for x in range(COLUMNS)] for line in screen]
    lines = [without_root(line) for line in lines]
    while lines and not any(text.strip() for text, _ in lines[-1]):
        lines.pop()
    with Path(os.devnull).open("w") as nowhere:
        console = Console(file=nowhere, record=True, width=COLUMNS, force_terminal=True, color_system="truecolor")
        for line in lines:
            segments = []
            for text, look in line:
                colour = None if look is None or look.fg == "default" else named.get(look.fg, look.fg)
                if colour and re.fullmatch("[0-9a-f]{6}", colour):
                    colour = f"#{colour}"
                segments.append(Segment(text, Style(color=colour, bold=bool(look and look.bold))))
            console.print(Line([*Segment.simplify(segments), Segment.line()]), end="")
        theme = TerminalTheme(GROUND, INK, COLOURS)
        svg = console.export_svg(title=title, theme=theme, code_format=template)
    path = IMAGES / "live.svg"
    path.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", encoding="utf-8", newline="\n")
    return path.relative_to(ROOT)


def without_root(line):
    """A line as whoever works in this folder sees it: paths below it are relative."""
    root = f"{ROOT}{os.sep}"
    at = "".join(text for text, _ in line).find(root)
    return line if at < 0 else [*line[:at], *line[at + len(root) :], *[(" ", None)] * len(root)]


class Line:
    """Segments that Rich prints as they are."""

    def __init__(self, segments):
        self.segments = segments

    def __rich_console__(self, _console, _options):
        return self.segments


def write_report(report):
    """The first screens of the report, down to the end of its learning curves."""
    from playwright.sync_api import sync_playwright

    browser = next(program for program in PROGRAMS if program.package == "chromium").find()
    if browser is None:
        raise Stop("there is no Chromium here", hint="apt-get install chromium")
    path = IMAGES / "report.png"
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser, args=[] if os.geteuid() else ["--no-sandbox"])
        page = opened.new_page(viewport={"width": REPORT_WIDTH, "height": 900}, device_scale_factor=1.5)
        page.goto(report.as_uri())
        end = page.locator("#confusion").bounding_box()["y"]
        page.screenshot(path=path, clip={"x": 0, "y": 0, "width": REPORT_WIDTH, "height": end}, full_page=True)
        opened.close()
    return path.relative_to(ROOT)


if __name__ == "__main__":
    entry(main)

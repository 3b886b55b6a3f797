"""What the pages for readers show: commands, output, and options that are named in a sentence."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (
        *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
        *sorted((ROOT / "docs").glob("*.md")),
    )
}
_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", flags=re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")


@dataclass(frozen=True)
class Session:
    """A command in a block of text, and the lines below it."""

    command: str
    output: tuple[str, ...]


def fenced(page: str) -> list[str]:
    """The commands of a page: the lines of its sh blocks, and what follows `$ ` in the others."""
    found = []
    for language, block in _FENCE.findall(PAGES[page]):
        for line in block.splitlines():
            if language == "sh" or line.strip().startswith("$ "):
                command = line.strip().removeprefix("$ ").split("#")[0].strip()
                found += [command] if command else []
    return found


def sessions(page: str) -> list[Session]:
    """The commands of a page that are shown with what they print."""
    found = []
    for language, block in _FENCE.findall(PAGES[page]):
        if language == "text":
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, *output = part.splitlines()
                found.append(Session(command, tuple(output)))
    return found


def mentioned(page: str) -> list[str]:
    """What a page names as code in its sentences."""
    return [span.replace("\n", " ") for span in _SPAN.findall(_FENCE.sub("", PAGES[page]))]


def words(command: str) -> list[str]:
    """The words of a command, up to a pipe."""
    return shlex.split(command.split(" | ")[0], posix="\\" not in command)


def shape(line: str) -> list[str]:
    """A line of output without what is another at every run: clocks, numbers, ids; up to where it is cut."""
    line = re.sub(r"^\d\d:\d\d:\d\d +", "", line.strip())
    cut = line.find("...")
    # "...9012" is the end of an account's number, and no cut.
    while cut != -1 and line[cut + 3 : cut + 4].isdigit():
        cut = line.find("...", cut + 1)
    return [re.sub(r"\S*\d\S*", "#", word) for word in (line if cut == -1 else line[:cut]).split()]


def strange(session: Session, printed: str) -> list[str]:
    """Lines that are shown and that nothing like was printed."""
    lines = [shape(line) for line in printed.splitlines()]
    return [
        line
        for line in session.output
        if (wanted := shape(line)) and not any(found[: len(wanted)] == wanted for found in lines)
    ]

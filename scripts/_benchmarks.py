"""What the benchmarks share: the machine's description, and their sections of docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from _terminal import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"


def circumstances(**versions: str) -> str:
    """One line: day, processor, cores, system, Python and whatever else has a version."""
    known = {"Python": platform.python_version(), **versions}
    listed = ", ".join(f"{name} {version}" for name, version in known.items())
    system = f"{platform.system()} {platform.release().split('-')[0]}"
    return f"{time.strftime('%Y-%m-%d', time.gmtime())}: {_processor()}, {os.cpu_count()} cores, {system}, {listed}."


def _processor() -> str:
    try:
        if platform.system() == "Linux":
            found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
            return found[1] if found else platform.machine()
        if platform.system() == "Darwin":
            ask = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(ask, capture_output=True, text=True, timeout=10).stdout.strip() or platform.machine()
    except (OSError, subprocess.TimeoutExpired):
        pass
    return platform.processor() or platform.machine()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_section(name: str, body: str, page: Path = PAGE) -> None:
    """Put `body` between the marks of section `name` of the page.

    Raises:
        ValueError: the page has no such section.
    """
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    if begin not in text or end not in text:
        raise ValueError(f"{page} has no section {name}")
    head, rest = text.split(begin, 1)
    tail = rest.split(end, 1)[1]
    page.write_text(f"{head}{begin}{body.strip()}\n{end}{tail}", encoding="utf-8", newline="\n")

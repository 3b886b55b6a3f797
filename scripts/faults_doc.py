"""Write docs/faults.md from the declarations of the fault matrix and the crash points.

They are in tests/region/faults and tests/region/crash.

python scripts/faults_doc.py            writes it
python scripts/faults_doc.py --check    says whether it is up to date; exit code 1 if it is not
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.region.crash import points  # noqa: E402
from tests.region.faults import rows  # noqa: E402
from tests.region.faults.matrix import Case  # noqa: E402

DOC = ROOT / "docs" / "faults.md"
OVER = {0: "done", 2: "usage", 3: "training failed", 4: "sign-in", 5: "refused", 6: "connection", 7: "limit"}
OVER |= {8: "still running", 130: "interrupted"}

HEAD = """\
# What goes wrong, and what you see then

This page is written by `python scripts/faults_doc.py` from the declarations of the tests in `tests/region/faults`; do
not edit it. Each row is a test that plays the fault against the emulated EC2 region through the real command line, with
real processes, a real SSH connection and real files, and then holds all of this against what happened:

- the words on the screen, and the exit code;
- what is left in the account: nothing at all, or one instance whose reason and end are on the screen;
- the log here is the log of the machine by its sha256 (where the machine cannot be asked, it is the beginning of it);
- each launch attempt has launched once at most;
- the sentence about money is on the screen;
- the fault was really met, and the case was over in time.

Where something is left, the test then does what the last column says and sees that nothing is left any more.

**How** is the fault as `cloudtrain run --dry-run --fault ...` takes it (`python -m cloudtrain.emulator faults` lists
them all), or what the test does. Waits marked "short waits" are shorter in the test than in the product: the command is
started by `tests/region/faults/hurried.py`, which changes waits and nothing else.
"""

CRASH = """\
## A command killed at any moment (41)

`CLOUDTRAIN_CRASH_AT=POINT` ends the command as by `kill -9`. Tests: `tests/region/crash`.

| point | just done | what is left | what settles it |
| --- | --- | --- | --- |
"""

STANDS_IN = """\
## What is not played as it is in EC2, and what stands in for it

- **Address filters (20).** A packet filter swallows what a security group does not allow; from user space the nearest
  is a connection on which nothing is ever said. The client cannot tell the two apart but by the time that they take.
  This computer's address is not looked up where the region is emulated; the test gives it.
- **Delay and loss.** A relay in user space cuts, resets and freezes connections. Single lost packets are TCP's own
  business, on which the tests of real OpenSSH in `tests/host/transport` say more: latency, a narrow link, new keys.
- **A full disk of the machine (22).** Needs root to play. `disk-full` limits the size of files (EFBIG);
  `tests/host/onhost` runs the supervisor on a small disk of its own (ENOSPC) where it may mount one.
- **A wrong clock (45).** AWS's refusals and the date of its answers are played, this computer's clock is not moved.
- **Waits of minutes.** A machine that stays silent for 90 s or a laptop that sleeps for an hour are played in seconds,
  by the setting `CLOUDTRAIN_BOOT_LIMIT` where there is one and with short waits else.
"""


def doc() -> str:
    """The page."""
    subjects = [f"## {title}\n\n{_table(cases)}" for title, cases in rows.SUBJECTS]
    crashes = [
        f"| {case.name} | {case.done} | {case.left} | {case.settled} |\n" for case in (*points.CASES, *points.TAKEOVER)
    ]
    lower = [f"| {number} | {', '.join(f'`{name}`' for name in names)} |\n" for number, names in _lower().items()]
    head = "## The same at a lower level\n\n| row | tests |\n| --- | --- |\n"
    return "\n".join([HEAD, *subjects, CRASH + "".join(crashes), STANDS_IN, head + "".join(lower)])


def _table(cases: tuple[Case, ...]) -> str:
    head = "| row | fault | how | what you see | exit code | what is left | money |\n" + "| --- " * 7 + "|\n"
    return head + "".join(_row(case) for case in sorted(cases, key=lambda case: (case.row, case.id)))


def _row(case: Case) -> str:
    sees = "; ".join(f"“{words}”" for words in case.sees) or "nothing but the usual"
    how = case.how + ("; short waits" if case.hurried else "")
    left = "nothing"
    if case.alive:
        left = f"1 instance; on the screen “{case.alive} ...”, with its end; {case.then}"
    cells = (case.row, case.fault, how, sees, f"{case.code} {OVER[case.code]}", left, f"“{case.money}”")
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |\n"


def _lower() -> dict[int, list[str]]:
    found: dict[int, dict[str, None]] = {}  # names once each, in the order in which they come
    for case in sorted(rows.CASES, key=lambda case: case.row):
        if case.also:
            found.setdefault(case.row, {}).update(dict.fromkeys(case.also))
    return {row: list(names) for row, names in found.items()}


def main() -> int:
    """Write or check the page; exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, say whether it is up to date")
    if parser.parse_args().check:
        same = DOC.exists() and DOC.read_text(encoding="utf-8") == doc()
        print(f"{DOC.name} is up to date" if same else f"{DOC.name} is not what {Path(__file__).name} writes")
        return int(not same)
    DOC.write_text(doc(), encoding="utf-8", newline="\n")
    print(f"wrote {DOC.name}: {len(rows.CASES)} cases of {len({case.row for case in rows.CASES})} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())

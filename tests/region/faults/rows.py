"""All cases, by subject."""

from __future__ import annotations

from tests.region.faults import rows_account, rows_boot, rows_host, rows_laptop, rows_launch, rows_link, rows_spot

SUBJECTS = (
    ("Launch", rows_launch.CASES),
    ("Boot and trust", rows_boot.CASES),
    ("Link", rows_link.CASES),
    ("Job and machine", rows_host.CASES),
    ("Spot", rows_spot.CASES),
    ("This computer", rows_laptop.CASES),
    ("Account", rows_account.CASES),
)
CASES = tuple(case for _, cases in SUBJECTS for case in cases)

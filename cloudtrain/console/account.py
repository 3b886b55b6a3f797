"""What AWS has and allows, for people: `doctor` and `instances`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cloudtrain.console.text import columns, screen_safe

if TYPE_CHECKING:
    from cloudtrain.provider.ec2.catalogue import Catalogue, Row
    from cloudtrain.provider.ec2.doctor import Check


def check_lines(check: Check) -> list[str]:
    """One check: its verdict, what was found, and the command that mends it."""
    lines = [f"{check.status:<5} {check.name:<10} {check.message}"]
    if check.fix:
        lines.append(f"      fix: {check.fix}")
    return [screen_safe(line) for line in lines]


def verdict(checks: Iterable[Check]) -> str:
    """The last line of `doctor`."""
    found = [check.status for check in checks]
    failed, warned = found.count("fail"), found.count("warn")
    if not failed and not warned:
        return "all is well: cloudtrain run --model 3 --instance g4dn.xlarge"
    told = f"{failed} failed, {warned} warning{'' if warned == 1 else 's'}"
    return f"{told}. Meanwhile, free: cloudtrain run --model 3 --instance g4dn.xlarge --dry-run"


def catalogue_lines(catalogue: Catalogue) -> list[str]:
    """The table of `instances`."""
    header = ("INSTANCE", "GPU", "vCPU", "RAM", "$/HOUR", "SPOT NOW", "YOUR QUOTA", "ZONES")
    rows = [_row(row, catalogue) for row in catalogue.rows]
    lines = columns(header, rows, right=(2, 3, 4, 5, 7))
    lines.append(f"{catalogue.region}, $/hour with public IPv4, without disk; {catalogue.price_note}")
    return [screen_safe(line) for line in lines]


def _row(row: Row, catalogue: Catalogue) -> tuple[str, ...]:
    price = "-" if row.price_per_hour is None else f"{row.price_per_hour:.3f}{'*' if row.estimate else ''}"
    quota = "-" if row.quota_granted is None else f"{row.quota_free} of {row.quota_granted} vCPU free"
    return (
        row.type,
        row.gpu,
        str(row.vcpus),
        f"{row.memory_gib:g} GB",
        price,
        "-" if row.spot_per_hour is None else f"{row.spot_per_hour:.3f}",
        quota,
        str(len(row.zones)) if catalogue.asked else "-",
    )

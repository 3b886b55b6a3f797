"""What AWS has and allows, human-readable: `doctor` and `instances`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cloudtrain.console.text import NARROW
from cloudtrain.core.text import columns, counted, fitted, screen_safe

if TYPE_CHECKING:
    from cloudtrain.provider.ec2.doctor import Check
    from cloudtrain.provider.ec2.offer.catalogue import Catalogue, Row


_HANG = 17  # what follows "ok    quota      "


def check_lines(check: Check, width: int | None = None) -> list[str]:
    """One check: its verdict, what was found, and the command that mends it, which stays one line to be copied.

    Args:
        width: columns to stay in.
    """
    line = f"{check.status:<5} {check.name:<10} {check.message}"
    lines = fitted([line], width, _HANG if width is None or width >= NARROW else 6)
    if check.fix:
        lines.append(f"      fix: {check.fix}")
    return [screen_safe(line) for line in lines]


def verdict(checks: Iterable[Check]) -> str:
    """The last line of `doctor`."""
    found = [check.status for check in checks]
    failed, warned = found.count("fail"), found.count("warn")
    if not failed and not warned:
        return "all is well: cloudtrain run --model 3 --instance g4dn.xlarge"
    told = f"{failed} failed, {counted(warned, 'warning')}"
    return f"{told}. Meanwhile, free: cloudtrain run --model 3 --instance g4dn.xlarge --dry-run"


def catalogue_lines(catalogue: Catalogue, width: int | None = None) -> list[str]:
    """The table of `instances`; where `width` is too narrow for it without vCPU and RAM as well, each type in lines of
    its own."""
    header = ("INSTANCE", "GPU", "vCPU", "RAM", "$/HOUR", "SPOT NOW", "YOUR QUOTA", "ZONES")
    rows = [_row(row, catalogue) for row in catalogue.rows]
    lines = columns(header, rows, right=(2, 3, 4, 5, 7))
    if width is not None and max(map(len, lines)) > width:
        kept = (0, 1, 4, 5, 6, 7)
        lines = columns([header[i] for i in kept], [[row[i] for i in kept] for row in rows], right=(2, 3, 5))
        if max(map(len, lines)) > width:
            lines = [part for row in rows for part in _stacked(row)]
    lines.append(f"{catalogue.region}; {catalogue.price_note}")
    return fitted((screen_safe(line) for line in lines), width, 2)


def _stacked(row: tuple[str, ...]) -> list[str]:
    """The same facts below each other."""
    kind, gpu, vcpus, memory, price, spot, quota, zones = row
    now = "" if spot == "-" else f", spot now ${spot}"
    allowed = "quota not known" if quota == "-" else quota
    sold = "" if zones == "-" else f", in {counted(int(zones), 'zone')}"
    return [f"{kind}  {gpu}", f"  {vcpus} vCPU, {memory} RAM", f"  ${price}/hour{now}", f"  {allowed}{sold}"]


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

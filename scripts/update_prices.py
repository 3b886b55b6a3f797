"""Rebuild the price table that ships with cloudtrain from AWS's own answers. For maintainers; needs an AWS account.

    python scripts/update_prices.py [--region us-east-1] [--profile NAME] [--check]

Facts of the types come from DescribeInstanceTypes, prices from the Pricing API (GetProducts); both are read-only and
free. A type that either does not know keeps its line and is named, so that nothing is invented or lost silently.
The rates of the extras (public IPv4, gp3) are not touched: check them by hand against the AWS price pages.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "cloudtrain" / "provider" / "ec2" / "offer" / "prices.json"
sys.path.insert(0, str(ROOT))

from cloudtrain.core.errors import CloudtrainError  # noqa: E402
from cloudtrain.provider.ec2.clients import Clients  # noqa: E402
from cloudtrain.provider.ec2.offer import prices, types  # noqa: E402
from cloudtrain.provider.ec2.offer.catalogue import GPU_SERIES  # noqa: E402
from cloudtrain.provider.ec2.offer.types import InstanceType  # noqa: E402


def row(kind: InstanceType, usd: float | None) -> dict[str, Any]:
    """One line of the table."""
    return {
        "usd_per_hour": usd,
        "vcpus": kind.vcpus,
        "memory_gib": kind.memory_gib,
        "gpu": kind.gpu_name,
        "gpus": kind.gpu_count,
        "gpu_mib": kind.gpu_mib,
        "arch": kind.arch,
    }


def render(table: dict[str, Any]) -> str:
    """The file's text: one type a line, so that a change of price is a change of one line."""
    rows = table["types"]
    order = sorted(rows, key=lambda name: (types.family(name), rows[name]["gpus"], rows[name]["vcpus"]))
    head = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in table.items() if key != "types"]
    body = [f"    {json.dumps(name)}: {json.dumps(rows[name])}" for name in order]
    return "\n".join(["{", *head, '  "types": {', ",\n".join(body), "  }", "}", ""])


def rebuild(table: dict[str, Any], clients: Clients, today: str) -> tuple[dict[str, Any], list[str]]:
    """The table with what AWS says now, and what it did not say."""
    missing = []
    found = types.describe(GPU_SERIES, clients.ec2)
    rows = dict(table["types"])
    for name, kind in sorted(found.items()):
        if kind.nvidia and kind.gpu_count >= 1:
            usd = prices.ask(name, clients.region, clients.pricing)
            if usd is None:
                missing.append(f"{name}: no price")
                usd = rows.get(name, {}).get("usd_per_hour")
            rows[name] = row(kind, usd)
    missing += [f"{name}: not in {clients.region}" for name in rows if name not in found]
    return {**table, "as_of": today, "region": clients.region, "types": rows}, missing


def main() -> int:
    """Exit code: 0 rebuilt (with --check: up to date), 1 it could not be done, or is out of date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--region", default="us-east-1", help="whose prices to ship")
    parser.add_argument("--profile", help="AWS profile")
    parser.add_argument("--check", action="store_true", help="change nothing; say which prices have changed")
    asked = parser.parse_args()
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    try:
        clients = Clients(asked.profile, asked.region)
        rebuilt, missing = rebuild(table, clients, datetime.now(UTC).date().isoformat())
    except CloudtrainError as error:
        print(f"error: {error.message}\nhint:  {error.hint or 'none'}", file=sys.stderr)
        return 1
    changed = [name for name, one in rebuilt["types"].items() if table["types"].get(name) != one]
    for line in missing:
        print(f"kept   {line}", file=sys.stderr)
    for name in changed:
        before = table["types"].get(name, {}).get("usd_per_hour")
        print(f"{name}: {before} -> {rebuilt['types'][name]['usd_per_hour']}")
    if asked.check:
        return 1 if changed else 0
    TABLE.write_text(render(rebuilt), encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

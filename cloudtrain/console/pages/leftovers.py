"""What is left in the account, for the screen and for programs: `clean` and `ls --remote`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from cloudtrain.cleanup.leftovers import View
from cloudtrain.cleanup.on_host import Left
from cloudtrain.console.pages.listing import age
from cloudtrain.core.text import an_hour, columns, counted, money, screen_safe, seconds, size
from cloudtrain.provider.ec2.end.cleaning import Ended, Leftover
from cloudtrain.transfer.answers import HostFolders

DAYS_A_MONTH = 30


def table(leftovers: Sequence[Leftover], now: float) -> list[str]:
    """Two lines each: what it is, how old, when it ends itself and what it costs; then whether it is safe to end."""
    header = ["WHAT", "ID", "RUN", "STATE", "AGE", "LEASE", "COST"]
    several = len({one.region for one in leftovers}) > 1
    rows = []
    for one in leftovers:
        item = one.item
        row = [
            f"{item.type}{' spot' if item.spot else ''}" if item.kind == "instance" else item.kind,
            item.id,
            item.run or "-",
            "parked" if one.parked else item.state or "-",
            age(one.age_s) if one.age_s is not None else "-",
            _lease(one, now),
            cost(one),
        ]
        rows.append([*row, one.region] if several else row)
    head, *facts = columns([*header, "REGION"] if several else header, rows)
    lines = [head]
    for line, one in zip(facts, leftovers, strict=True):
        whose = f" (another's, owner {one.item.owner})" if one.others and one.item.owner not in one.why else ""
        lines += [line, f"  {'safe to end' if one.safe else 'keep'}: {one.why}{whose}"]
    return [screen_safe(line) for line in lines]


def cost(one: Leftover) -> str:
    """What a leftover costs: by the hour while it runs, by the month where it is only disk."""
    if one.item.kind == "security group":
        return "nothing"
    if one.item.kind == "volume" or one.parked:
        return f"{money(one.usd_per_month)}/month" if one.usd_per_month is not None else "its disk"
    if one.usd_per_hour is None:
        return "billed, price unknown"
    return f"{'<= ' if one.item.spot else ''}${one.usd_per_hour:.3f}/h"


def _lease(one: Leftover, now: float) -> str:
    if one.item.expires_at is None or one.item.kind != "instance" or one.parked:
        return "-"
    left = one.item.expires_at - now
    return f"ends in {seconds(left)}" if left > 0 else f"over for {seconds(-left)}"


def listing(view: View, now: float, *, command: str | None, anyone: bool = False) -> list[str]:
    """All lines of `clean` before it does anything; the last one says what to type.

    Args:
        command: the command with the options that narrowed the look, without `--all` and `--yes`; None: it acts now.
        anyone: what is another person's may be ended as well.
    """
    lines = table(view.leftovers, now) if view.leftovers else []
    lines += refused(view)
    safe = [one for one in view.leftovers if one.safe]
    if not view.leftovers:
        return [*lines, f"nothing of cloudtrain's in {_regions(view)}: 0 instances, 0 volumes, 0 security groups"]
    lines += ["", _sum(view.leftovers)]
    if command is None:
        return lines
    reached = [one for one in view.leftovers if anyone or not one.others]
    away = len(view.leftovers) - len(reached)
    if reached:
        lines.append(_next(command, reached, safe))
    if away:
        what = "It is" if not reached and away == 1 else f"{away} of these {'is' if away == 1 else 'are'}"
        stay = "stays" if away == 1 else "stay"
        lines.append(f"{what} another's and {stay}; {command} --owner any shows how to end what others have launched")
    return lines


def _next(command: str, reached: Sequence[Leftover], safe: Sequence[Leftover]) -> str:
    """What to type to end `reached`; those of it that are `safe`."""
    lost = losses(reached)
    rest = f"{command} --all --yes ends {'it' if len(reached) == 1 else f'all {len(reached)}'}"
    rest += f" and loses {_joined(lost)}" if lost else ""
    if not safe:
        return f"nothing here is safe to end; {rest}"
    count = "it" if len(reached) == 1 else f"the {len(safe)} that {'is' if len(safe) == 1 else 'are'} safe"
    words = f"{command} --yes ends {count}"
    return words if len(safe) == len(reached) else f"{words}; {rest}"


def fates(ended: Sequence[Ended], view: View) -> list[str]:
    """What became of each, and what is still there."""
    lines = [fate(one) for one in ended]
    done = {one.leftover.item.id for one in ended}
    lines += [screen_safe(f"kept    {_named(one)}: {one.why}") for one in view.leftovers if one.item.id not in done]
    gone = {one.leftover.item.id for one in ended if one.gone}
    left = [one for one in view.leftovers if one.item.id not in gone]
    lines += refused(view)
    lines += [f"left: {_counts(left)} in {_regions(view)}"]
    costly = [one.leftover.item.id for one in ended if one.may_cost]
    if costly:
        region = next(one.leftover.region for one in ended if one.may_cost)
        lines.append(f"may still be billed: {', '.join(costly)}; run this again, or see the EC2 console of {region}")
    return lines


def fate(one: Ended) -> str:
    """What became of one."""
    lost = f"; lost with it: {one.leftover.loss}" if one.gone and one.leftover.loss else ""
    return screen_safe(f"{'ended ' if one.gone else 'FAILED'}  {_named(one.leftover)}: {one.told}{lost}")


def losses(leftovers: Iterable[Leftover]) -> list[str]:
    """What is lost with `leftovers`, each once."""
    return list(dict.fromkeys(screen_safe(one.loss) for one in leftovers if one.loss))


def refused(view: View) -> list[str]:
    """Regions that did not answer."""
    return [screen_safe(f"not seen: {region}: {error.message}") for region, error in view.refused]


def remote(view: View, now: float) -> list[str]:
    """The lines of `ls --remote` below the runs: what is left in the account, and which of it is not known here."""
    lines = []
    for one in view.leftovers:
        item = one.item
        if item.kind != "instance":
            continue
        if one.others:
            type_this = f"another's, owner {item.owner}: leave it to them; cloudtrain clean --owner any ends it"
        elif one.known is None:
            ways = f"cloudtrain adopt {item.id} takes it back; cloudtrain clean shows how to end it"
            type_this = f"not known here: {ways}"
        elif one.parked:
            type_this = f"cloudtrain pull {one.known.run} fetches its results and ends it"
        elif one.safe:
            type_this = f"{one.why}: cloudtrain clean --yes ends it"
        else:
            type_this = f"cloudtrain logs {one.known.run}"
        price = cost(one)
        if one.parked and one.usd_per_month is not None:
            price = f"{money(one.usd_per_month / DAYS_A_MONTH)}/day for {item.size_gb} GB of disk"
        old = f", {age(one.age_s)} old" if one.age_s is not None else ""
        lease = f", {_lease(one, now)}" if _lease(one, now) != "-" else ""
        state = "parked" if one.parked else item.state
        orphan = "another's  " if one.others else "orphan  " if one.known is None else ""
        lines += [f"{orphan}{item.run or '-'}  {item.id} {item.type} {state}{old}{lease}, {price}", f"  {type_this}"]
    others = [one for one in view.leftovers if one.item.kind != "instance" and one.safe]
    if others:
        lines.append(f"left behind: {_counts(others)}   cloudtrain clean")
    lines += refused(view)
    return [screen_safe(line) for line in lines] or [f"nothing of cloudtrain's in {_regions(view)}"]


def record(one: Leftover) -> dict[str, Any]:
    """One leftover for programs: ages in seconds, money in USD."""
    item = one.item
    return {
        "kind": item.kind,
        "id": item.id,
        "region": one.region,
        "run": item.run or None,
        "known": one.known is not None,
        "owner": item.owner or None,
        "mine": not one.others,
        "state": item.state or None,
        "type": item.type or None,
        "spot": item.spot,
        "age_s": one.age_s,
        "expires_at": None if item.expires_at is None else datetime.fromtimestamp(item.expires_at, UTC).isoformat(),
        "usd_per_hour": one.usd_per_hour,
        "usd_per_month": one.usd_per_month,
        "safe": one.safe,
        "why": one.why,
        "loss": one.loss,
    }


def view_record(view: View, ended: Sequence[Ended] = (), *, acted: bool = False) -> dict[str, Any]:
    """A whole look for programs, with what became of each: `ended`, `failed` or `kept`; null where nothing was done."""
    by_id = {one.leftover.item.id: one for one in ended}
    rows = []
    for one in view.leftovers:
        done = by_id.get(one.item.id)
        became = ("ended" if done.gone else "failed") if done else ("kept" if acted else None)
        rows.append({**record(one), "fate": became, "told": done.told if done else None})
    return {
        "regions": list(view.regions),
        "refused": [{"region": region, "code": e.code, "message": e.message} for region, e in view.refused],
        "leftovers": rows,
    }


def on_host(host: str, left: Sequence[Left], found: HostFolders, *, asks: bool) -> list[str]:
    """What a host of the user's own keeps, two lines each; and what to type to remove it, if it `asks`."""
    if not left:
        return [f"no run has a folder on {host}", *_kept(found)]
    facts = [[one.folder.name, size(one.folder.size), age(one.folder.age_s), one.folder.state] for one in left]
    head, *rows = columns(["FOLDER", "SIZE", "AGE", "STATE"], facts)
    lines = [head]
    for row, one in zip(rows, left, strict=True):
        lines += [row, f"  {'safe to remove' if one.safe else 'keep'}: {one.why}"]
    lines += _kept(found)
    if asks:
        command = f"cloudtrain clean --host {host}"
        lines += [f"{command} --yes removes what is safe; {command} NAME --yes, or --all --yes, also what may be lost"]
    return [screen_safe(line) for line in lines]


def _kept(found: HostFolders) -> list[str]:
    """What stays for later runs."""
    lines = []
    for folders, noun, quick, last in (
        (found.trees, "pushed copy of code", "sync", "push"),
        (found.environments, "environment", "run", "use"),
    ):
        total = size(sum(one.size for one in folders if not one.removed))
        what = counted(len(folders), noun).replace("copy of codes", "copies of code")
        if folders:
            lines.append(f"stays: {what}, {total}: the next {quick} is quick; removed 30 days after the last {last}")
    return lines


def removed_on_host(host: str, left: Sequence[Left]) -> list[str]:
    """What became of each."""
    lines = []
    for one in left:
        here = "; results are here and verified" if one.safe else ""
        told = f"removed {one.folder.name}, {size(one.folder.size)}, from {host}{here}"
        lines.append(told if one.folder.removed else f"kept    {one.folder.name}: {one.folder.kept or one.why}")
    return [screen_safe(line) for line in lines]


def host_record(one: Left) -> dict[str, Any]:
    """A run's folder on a host, for programs; sizes in bytes, ages in seconds."""
    folder = one.folder
    told = {"folder": folder.name, "run": one.run, "bytes": folder.size, "age_s": folder.age_s, "state": folder.state}
    return {**told, "safe": one.safe, "why": one.why, "removed": folder.removed, "kept": folder.kept}


def _named(one: Leftover) -> str:
    item = one.item
    return f"{item.kind} {item.id}" + (f" of {item.run}" if item.run else "") + f" in {one.region}"


def _sum(leftovers: Sequence[Leftover]) -> str:
    hour = sum(one.usd_per_hour or 0 for one in leftovers)
    month = sum(one.usd_per_month or 0 for one in leftovers if one.usd_per_hour is None)
    costs = filter(None, (an_hour(hour), f"{money(month)} a month for disks" if month else ""))
    return f"{_counts(leftovers)}; {', '.join(costs) or 'they cost nothing'}"


def _counts(leftovers: Sequence[Leftover]) -> str:
    kinds = ("instance", "volume", "security group")
    counts = [(kind, sum(one.item.kind == kind for one in leftovers)) for kind in kinds]
    return ", ".join(counted(count, kind) for kind, count in counts)


def _regions(view: View) -> str:
    return ", ".join(view.regions) if len(view.regions) <= 3 else f"{len(view.regions)} Regions"


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"

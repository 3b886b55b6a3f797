"""The machines of a plan side by side: what each is, what an hour costs, how long the last run took there. Pure."""

from __future__ import annotations

from cloudtrain.core.plan import Candidate, Plan
from cloudtrain.core.text import columns, fitted, money, ordinal, seconds

_HEADER = ("", "INSTANCE", "GPU", "vCPU", "RAM", "$/HOUR", "TIME", "COST", "")
_RIGHT = (3, 4, 5, 6, 7)
_INDENT = "  "


def lines(plan: Plan, width: int | None = None) -> list[str]:
    """The table and the notes to it; where `width` is too narrow for it, each machine in lines of its own."""
    offer = plan.offer
    rows = [
        *(
            _row(plan, one, f"{ordinal(i)} choice" if i > 1 else "this run")
            for i, one in enumerate(offer.candidates, 1)
        ),
        *(_row(plan, one, "") for one in offer.alternatives),
    ]
    table = columns(_HEADER, rows, right=_RIGHT)
    notes = [f"{one.type}: {one.note}" for one in offer.candidates if one.note]
    notes += [offer.price_note] if offer.price_note else []
    narrow = width is not None and max(map(len, table)) + len(_INDENT) > width
    if narrow:
        table = [part for row in rows for part in _stacked(row)]
    return fitted((f"{_INDENT}{line}" for line in [*table, *notes, _about_time(plan, narrow=narrow)]), width)


def last_line(plan: Plan) -> str | None:
    """How long it took last time where this run trains, phase by phase; None: it is the first time."""
    last = plan.last
    if last is None:
        return None
    epochs = plan.spec.train.epochs
    scaled = f" (from {last.scaled_from} epochs to {epochs})" if last.scaled_from else ""
    return (
        f"about {seconds(last.total_s)}, from your last run {last.run}: set-up took {seconds(last.setup_s)},"
        f" training {seconds(last.training_s)}{scaled}, pull {seconds(last.pull_s)}"
    )


def _row(plan: Plan, one: Candidate, use: str) -> tuple[str, ...]:
    """One machine, in words; "-" for what is not known."""
    took, cost = plan.time_on(one.type), plan.cost_on(one)
    return (
        ">" if use == "this run" else "",
        one.type,
        one.gpu or "-",
        str(one.vcpus or "-"),
        f"{one.memory_gib:g} GB" if one.memory_gib else "-",
        f"{one.price_per_hour:.3f}" if one.price_per_hour else "-",
        _roughly(took.total_s) if took else "-",
        money(cost).removeprefix("$") if cost is not None else "-",
        use,
    )


def _stacked(row: tuple[str, ...]) -> list[str]:
    """The same facts below each other."""
    mark, kind, gpu, vcpus, memory, price, took, cost, use = row
    past = "never tried" if took == "-" else f"{took}, ${cost}" if cost != "-" else took
    return [
        f"{mark or ' '}  {kind}{f'  {use}' if use else ''}",
        f"     {gpu}, {vcpus} vCPU, {memory} RAM",
        f"     ${price}/hour, {past}",
    ]


def _roughly(value: float) -> str:
    """A span as it is worth telling of what may take another time the next time: 45 s, 4 min, 2.5 h."""
    if value < 99.5:
        return f"{max(1, round(value))} s"
    return f"{round(value / 60)} min" if value < 99.5 * 60 else f"{value / 3600:.1f} h"


def _about_time(plan: Plan, *, narrow: bool) -> str:
    if not plan.times:
        return (
            "How long it takes is shown here after a run of yours on that type."
            if narrow
            else 'TIME and COST: "-" means never tried; a run of yours on that type fills them in.'
        )
    scaled = f", scaled to {plan.spec.train.epochs} epochs" if any(took.scaled_from for took in plan.times) else ""
    if narrow:
        return f"Time and cost are of your last run on that type{scaled}."
    return f'TIME is from your last run on that type{scaled}; "-" means never tried.'

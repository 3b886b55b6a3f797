"""The machines of a plan side by side: what each is, what an hour costs, how long the last run took there. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from cloudtrain.core.plan import Candidate, Plan
from cloudtrain.core.text import columns, fitted, money, ordinal, seconds

_HEADER = ("", "INSTANCE", "GPU", "vCPU", "RAM", "$/HOUR", "TIME", "COST", "")
_RIGHT = (3, 4, 5, 6, 7)
_INDENT = "  "


@dataclass(frozen=True, slots=True)
class _Row:
    """One machine, in words; "-" for what is not known."""

    chosen: bool
    type: str
    gpu: str
    vcpus: str
    memory: str
    price: str
    time: str
    cost: str
    use: str


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
    table = columns(
        _HEADER,
        [(">" if r.chosen else "", r.type, r.gpu, r.vcpus, r.memory, r.price, r.time, r.cost, r.use) for r in rows],
        right=_RIGHT,
    )
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
        f"about {seconds(last.total_s)}, by your last run {last.run}: set-up took {seconds(last.setup_s)},"
        f" training {seconds(last.training_s)}{scaled}, pull {seconds(last.pull_s)}"
    )


def _row(plan: Plan, one: Candidate, use: str) -> _Row:
    took, cost = plan.time_on(one.type), plan.cost_on(one)
    return _Row(
        chosen=use == "this run",
        type=one.type,
        gpu=one.gpu or "-",
        vcpus=str(one.vcpus or "-"),
        memory=f"{one.memory_gib:g} GB" if one.memory_gib else "-",
        price=f"{one.price_per_hour:.3f}" if one.price_per_hour else "-",
        time=_roughly(took.total_s) if took else "-",
        cost=money(cost).removeprefix("$") if cost is not None else "-",
        use=use,
    )


def _stacked(row: _Row) -> list[str]:
    """The same facts below each other."""
    past = "never tried" if row.time == "-" else f"{row.time}, ${row.cost}" if row.cost != "-" else row.time
    return [
        f"{'>' if row.chosen else ' '}  {row.type}{f'  {row.use}' if row.use else ''}",
        f"     {row.gpu}, {row.vcpus} vCPU, {row.memory} RAM",
        f"     ${row.price}/hour, {past}",
    ]


def _roughly(value: float) -> str:
    """A span as it is worth telling of what may take another time the next time: 45 s, 4 min, 2.5 h."""
    if value < 99.5:
        return f"{max(1, round(value))} s"
    return f"{round(value / 60)} min" if value < 99.5 * 60 else f"{value / 3600:.1f} h"


def _about_time(plan: Plan, *, narrow: bool) -> str:
    if not plan.times:
        return (
            "How long it takes stands here after a run of yours on that type."
            if narrow
            else 'TIME and COST: "-" means never tried; a run of yours on that type fills them in.'
        )
    scaled = f", scaled to {plan.spec.train.epochs} epochs" if any(took.scaled_from for took in plan.times) else ""
    if narrow:
        return f"Time and cost are of your last run on that type{scaled}."
    return f'TIME is from your last run on that type{scaled}; "-" means never tried.'

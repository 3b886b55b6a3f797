"""The machines of a plan side by side: what each is, what an hour costs, how long the last run took there. Pure."""

from __future__ import annotations

from cloudtrain.core.plan import Candidate, Plan
from cloudtrain.core.text import columns, fitted, money, ordinal, seconds

_HEADER = ("", "INSTANCE", "GPU", "vCPU", "RAM", "$/HOUR", "TIME", "COST", "")
_RIGHT = (3, 4, 5, 6, 7)
_INDENT = "  "
# Until a new machine trains: it answers after one to three minutes, then torch loads and the data comes. And of an
# epoch of Model 3: by the arithmetic of a T4, and as the plain loop took it there (docs/guide.md).
_BEGINS_S, _EPOCH_S = (90.0, 240.0), (1.0, 9.2)
_KNOWN = ("T4", "L4", "A10G")  # the others are no slower than a T4


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
    """How long it took last time where this run trains, phase by phase, else how long it usually takes; None: nothing
    is known of that."""
    last = plan.last
    if last is None:
        return _usually(plan)
    epochs = plan.spec.train.epochs
    scaled = f" (from {last.scaled_from} epochs to {epochs})" if last.scaled_from else ""
    return (
        f"about {seconds(last.total_s)}, from your last run {last.run}: set-up took {seconds(last.setup_s)},"
        f" training {seconds(last.training_s)}{scaled}, pull {seconds(last.pull_s)}"
    )


def _usually(plan: Plan) -> str | None:
    """How long the training that comes along takes on a machine of EC2 that no run of the user's was on."""
    machine, training = plan.offer.candidates[0], plan.training
    if training is None or training.subset or not machine.price_per_hour or plan.spec.resume is not None:
        return None
    if not any(f" {gpu} " in f"{machine.gpu} " for gpu in _KNOWN):
        return None
    spans = [begins + training.epochs * epoch for begins, epoch in zip(_BEGINS_S, _EPOCH_S, strict=True)]
    costs = [money(machine.price_per_hour * span / 3600) for span in spans]
    return (
        f"usually {_roughly(spans[0])} to {_roughly(spans[1])}, {costs[0]} to {costs[1]}: an estimate, from"
        f" {_roughly(_BEGINS_S[0])} to {_roughly(_BEGINS_S[1])} until a new machine trains and {_EPOCH_S[0]:g} to"
        f" {_EPOCH_S[1]:g} s an epoch on such a GPU; no run of yours was on this type"
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

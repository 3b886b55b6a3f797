"""RunSpec + what the provider offers + what will be sent -> Plan. Pure: no I/O, so `--plan` can print it and leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cloudtrain.core.decode import Given, Odd, made
from cloudtrain.core.environment import EnvironmentPlan
from cloudtrain.core.errors import Refused
from cloudtrain.core.spec import RunSpec
from cloudtrain.core.text import an_hour

DEFAULT_LIMIT_S = 2 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One machine that could be used.

    Attributes:
        price_per_hour: USD with disk and public address, as it is now; None: costs nothing.
        most_per_hour: what it can rise to while it runs: spot moves, up to the on-demand price; None: it is fixed.
    """

    type: str
    gpu: str = ""
    vcpus: int | None = None
    memory_gib: float | None = None
    price_per_hour: float | None = None
    most_per_hour: float | None = None
    zones: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A zone where a type may be launched, and of it the subnet, its VPC and its addresses; None: the default ones."""

    zone: str
    subnet: str | None = None
    vpc: str | None = None
    cidr: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Launchable:
    """A type that may be launched, and where, in the order to try; the price is USD an hour."""

    type: str
    price_per_hour: float | None = None
    vcpus: int | None = None
    zones: tuple[Place, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OfferDetails(Given):
    """What a provider has looked up, so that nobody asks again. Of EC2 (docs/ec2.md, "The offer").

    Attributes:
        market: "on-demand" or "spot".
        image_owner: the account that published it, or "amazon"; `image_source`: how it was found, in words.
        root_gb: GiB of the disk; `parked_per_day`: USD that it costs a day.
        user: login name of the image.
        owner: tag of whoever launches (`tags.owner_of`).
        price_date: day of the oldest price, ISO 8601.
        instance_id, state, zone: of an existing instance.
        adopted: the run was planned elsewhere (`cloudtrain adopt`).
    """

    region: str | None = None
    market: str | None = None
    arch: str | None = None
    image_id: str | None = None
    image_name: str | None = None
    image_owner: str | None = None
    image_source: str | None = None
    root_device: str | None = None
    root_gb: int | None = None
    parked_per_day: float | None = None
    user: str | None = None
    owner: str | None = None
    price_date: str | None = None
    candidates: tuple[Launchable, ...] = ()
    instance_id: str | None = None
    state: str | None = None
    zone: str | None = None
    adopted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a provider found before anything exists.

    Attributes:
        where: human-readable: "this computer", "us-east-1".
        candidates: in the order they will be tried; the first is what the plan prices.
        alternatives: other machines of the same place, to compare with; none of them is ever launched.
        account: human-readable: profile and masked account, or None.
        price_note: date and content of the prices, or None where nothing is billed.
        enforcer: who ends the machine when the limit is reached, human-readable; None: nothing to end.
        warnings: what the user should know before agreeing.
    """

    where: str
    candidates: tuple[Candidate, ...]
    alternatives: tuple[Candidate, ...] = ()
    account: str | None = None
    price_note: str | None = None
    enforcer: str | None = None
    warnings: tuple[str, ...] = ()
    details: OfferDetails = OfferDetails()

    @property
    def dearest(self) -> float:
        """USD an hour of the dearest candidate, at most; 0.0: nothing is billed."""
        return max(c.most_per_hour or c.price_per_hour or 0.0 for c in self.candidates)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeSummary:
    """What will be sent: number of files, bytes, and the git state of the folder if it has one.

    Attributes:
        stays: what of the folder stays here though a program may miss it, and why, in words.
        warnings: what the user should know before agreeing.
    """

    files: int
    bytes: int
    git: str | None = None
    stays: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """What an earlier run of the same training took, in seconds (`run_folder/history.py`).

    Attributes:
        run: its name.
        type: the instance type that it was on, "" for a machine that is not EC2's.
        setup_s: from its plan until it trained.
        training_s: of the training, for as many epochs as are planned now.
        pull_s: from the training's end until its results were here and its machine was given back.
        scaled_from: how many epochs it trained, where these are not as many as are planned now; else None.
    """

    run: str
    type: str
    setup_s: float
    training_s: float
    pull_s: float
    scaled_from: int | None = None

    @property
    def total_s(self) -> float:
        """Seconds from the plan to the end."""
        return self.setup_s + self.training_s + self.pull_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What the training program that comes along does, by its own word; `lr` is the peak, `subset` of images."""

    recipe: str
    epochs: int
    batch_size: int
    lr: float
    subset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run, resolved and printable.

    Attributes:
        price_per_hour: USD of the first candidate; None: nothing is billed.
        limit_s: seconds from launch until the run is ended whatever it does; never None where something is billed.
        at_most_usd: the most this run can cost by the dearest candidate, rounded up to the cent.
        times: what the user's own last run took on each type that is shown, where there was one.
        last: the same of the place where this run trains.
        environment: what its packages come from; None: nothing but what the shipped job needs.
        training: None: another program runs.
        origins: settings of money and trust that a file has decided: name -> path of the file.
    """

    spec: RunSpec
    offer: Offer
    code: CodeSummary
    price_per_hour: float | None
    limit_s: float | None
    at_most_usd: float | None
    times: tuple[Took, ...] = ()
    last: Took | None = None
    environment: EnvironmentPlan | None = None
    training: Training | None = None
    origins: Mapping[str, str] = field(default_factory=dict)

    def time_on(self, type: str) -> Took | None:
        """What the last run on `type` took; None: never tried."""
        return next((took for took in self.times if took.type == type), None)

    def cost_on(self, machine: Candidate) -> float | None:
        """USD of that time on `machine`, by its price now; EC2 bills a minute at least. None: not known."""
        took, price = self.time_on(machine.type), machine.price_per_hour
        return None if took is None or price is None else price * max(60.0, took.total_s) / 3600

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        machines = {one.type: one for one in (*self.offer.alternatives, *self.offer.candidates)}
        times = [_told(took, self.cost_on(machines[took.type])) for took in self.times if took.type in machines]
        cost = next((told["cost_usd"] for told in times if self.last and told["run"] == self.last.run), None)
        last = _told(self.last, cost) if self.last else None
        offer = {**asdict(self.offer), "details": self.offer.details.to_dict()}
        return {**asdict(self), "offer": offer, "times": times, "last": last}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """The inverse of `to_dict`.

        Raises:
            Odd: it is none.
        """
        plan = made(cls, data)
        if not plan.offer.candidates:
            raise Odd("not a plan: it has no machine")
        return plan


def _told(took: Took, cost_usd: float | None) -> dict[str, Any]:
    return {**asdict(took), "total_s": took.total_s, "cost_usd": cost_usd}


def at_most(usd_per_hour: float | None, seconds: float | None) -> float | None:
    """USD that so long can cost, rounded up to the cent; None: one of the two is not known."""
    return -(-usd_per_hour * seconds / 36 // 1) / 100 if usd_per_hour and seconds else None


def make_plan(
    spec: RunSpec,
    offer: Offer,
    code: CodeSummary,
    *,
    times: tuple[Took, ...] = (),
    last: Took | None = None,
    environment: EnvironmentPlan | None = None,
    training: Training | None = None,
) -> Plan:
    """Resolve `spec` against `offer`. `times`, `last`, `environment` and `training`: see `Plan`.

    The time limit is `--max-time` (2 h if something is billed), shortened so that the dearest candidate cannot cost
    more than `--max-cost`.

    Raises:
        Refused: the cost limit does not buy a minute of the dearest candidate.
    """
    limit_s, dearest = spec.limits.max_time_s, offer.dearest
    if dearest:
        limit_s = limit_s or DEFAULT_LIMIT_S
        if spec.limits.max_cost_usd is not None:
            limit_s = min(limit_s, spec.limits.max_cost_usd / dearest * 3600)
            # EC2 bills at least a minute (docs: "minimum of 60 seconds").
            if limit_s < 60:
                raise Refused(
                    f"--max-cost ${spec.limits.max_cost_usd:g} does not buy a minute {an_hour(dearest, 'at ')}",
                    hint="raise --max-cost or choose a cheaper --instance",
                    consequence="nothing was created",
                    code="price_cap",
                )
    return Plan(
        spec=spec,
        offer=offer,
        code=code,
        price_per_hour=offer.candidates[0].price_per_hour,
        limit_s=limit_s,
        at_most_usd=at_most(dearest, limit_s),
        times=times,
        last=last,
        environment=environment,
        training=training,
    )

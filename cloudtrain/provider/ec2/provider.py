"""EC2 as a source of hosts: the parts of this folder behind the provider boundary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cloudtrain.core.events import Emit
from cloudtrain.core.instance import Ended, Instance
from cloudtrain.core.notes import Journal
from cloudtrain.core.plan import Offer, Plan
from cloudtrain.core.spec import RunSpec, Target
from cloudtrain.provider.base import Machine, Provider
from cloudtrain.provider.ec2 import network, tags
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.instances import ENDED, LIVE, described, down_since, life_of, one, state_of, to_instance
from cloudtrain.provider.ec2.launch.acquire import Acquisition
from cloudtrain.provider.ec2.machine import Ec2Machine
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.provider.ec2.offer import offers
from cloudtrain.provider.ec2.pace import Pace
from cloudtrain.provider.ec2.reach import existing
from cloudtrain.provider.ec2.translate import translated


class Ec2Provider(Provider):
    """Instances of one account; the emulated Region differs by its endpoint alone.

    Args:
        clients: the account, Region and endpoint to begin with. A run that was launched elsewhere keeps its own Region.
        pace: deadlines and clock.
        ask_address: finds this computer's public address.
    """

    target = Target.EC2

    def __init__(
        self,
        clients: Clients,
        *,
        pace: Pace | None = None,
        ask_address: Callable[[], str] = network.ask_address,
    ) -> None:
        self._clients = clients
        self._pace = pace or Pace()
        self._ask_address = ask_address
        self._looked_at: set[str] = set()

    def survey(self, spec: RunSpec) -> Offer:
        return offers.survey(spec, self._clients)

    def acquire(self, plan: Plan, journal: Journal, emit: Emit) -> Instance:
        with self._of(journal, plan.offer.details.region).recorded(journal, self._pace.now) as clients:
            if plan.spec.ec2 is not None and plan.spec.ec2.instance_id:
                return existing.acquire_existing(plan, clients, journal, emit, self._pace)
            return Acquisition(plan, clients, journal, emit, self._pace, self._ask_address).instance()

    def find(self, run: str, journal: Journal) -> Instance | None:
        """See `Provider.find`. Without any notes (the registry is lost) the run's name and owner must do."""
        notes = journal.read(Ec2Notes)
        clients = self._of(journal)
        if notes.existing:
            found = one(clients, notes.existing)
            return (
                existing.as_existing(found, run, clients, journal) if found and state_of(found) not in ENDED else None
            )
        record, found = notes.instance or notes.release_pending, None
        if record is not None:
            age = self._pace.now() - (notes.instance.at if notes.instance else 0.0)
            for _ in self._pace.polls(max(0.0, self._pace.visible - age)):
                if found := one(clients, record.id):
                    break
        seeds = notes.seeds
        if found is None or (state_of(found) in ENDED and seeds):
            wanted = tags.where(token=seeds) if seeds else _of_caller(run, clients)
            # A launch that was cut short may take some seconds to be listed.
            for _ in self._pace.polls(self._pace.settle if notes.request else 0.0):
                if several := described(clients, wanted):
                    # Of the latest attempt, if several live: a run that goes on elsewhere has left the others.
                    found = max(several, key=lambda i: _place(tags.as_map(i.get("Tags")).get(tags.TOKEN), seeds))
                    break
        if found is None or state_of(found) in ENDED:
            return None
        return to_instance(found, clients, notes, run=run, price=record.price if record else None)

    def lives(self, known: Iterable[tuple[Instance, Journal]]) -> Mapping[str, Ended]:
        """See `Provider.lives`. One question a Region."""
        regions: dict[str, list[str]] = {}
        for instance, journal in known:
            regions.setdefault(self._of(journal, instance.details.region).region, []).append(instance.id)
        found: dict[str, Ended] = {}
        for region, ids in regions.items():
            clients = self._clients.at(region)
            for each in described(clients, [{"Name": "instance-id", "Values": ids}], (*LIVE, *ENDED)):
                life = life_of(each)
                found[str(each["InstanceId"])] = Ended(life, None if life.may_be_up else down_since(each, clients))
        return found

    def machine(self, instance: Instance, journal: Journal, emit: Emit) -> Machine:
        clients = self._of(journal, instance.details.region)
        return Ec2Machine(instance, clients, journal, emit, self._pace, self._ask_address, self._looked_at)

    def _of(self, journal: Journal, region: str | None = None) -> Clients:
        """Clients of the Region that the run was launched in, whatever this shell's Region is now."""
        return self._clients.at(journal.read(Ec2Notes).region or region or self._clients.region)


def _place(token: str | None, seeds: Sequence[str]) -> int:
    return seeds.index(token) if token in seeds else -1


def _of_caller(run: str, clients: Clients) -> list[dict[str, Any]]:
    """Filters for a run by its name and whose it is, when no note of it is left."""
    with translated("look up who you are", profile=clients.profile, consequence="nothing was changed"):
        who = clients.sts.get_caller_identity()
    return tags.where(run=run, owner=tags.owners_of(who["UserId"], who["Arn"]))

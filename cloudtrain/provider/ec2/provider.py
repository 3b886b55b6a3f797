"""EC2 as a source of hosts: the parts of this folder behind the provider boundary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from cloudtrain.core.errors import UsageError
from cloudtrain.core.events import Emit
from cloudtrain.core.host import HostFacts
from cloudtrain.core.instance import Ended, Instance, Login, Released
from cloudtrain.core.notes import Journal
from cloudtrain.core.plan import Offer, Plan
from cloudtrain.core.spec import RunSpec, Target
from cloudtrain.core.states import InstanceLife
from cloudtrain.provider.base import Machine, Provider
from cloudtrain.provider.ec2 import network, requests, tags, trust
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.end import lease
from cloudtrain.provider.ec2.end.release import release_own
from cloudtrain.provider.ec2.instances import ENDED, LIVE, described, down_since, life_of, one, state_of, to_instance
from cloudtrain.provider.ec2.launch import environment
from cloudtrain.provider.ec2.launch.acquire import Acquisition
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.provider.ec2.offer import offers
from cloudtrain.provider.ec2.pace import Pace
from cloudtrain.provider.ec2.reach import existing
from cloudtrain.provider.ec2.reach.boot import Credentials, Door
from cloudtrain.provider.ec2.translate import translated
from cloudtrain.transport.base import Transport


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
        with requests.recorded(self._of(journal, plan.offer.details.region), journal, self._pace.now) as clients:
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


class Ec2Machine(Machine):
    """One instance.

    Args:
        clients: of the Region that it is in.
        ask_address: see `Ec2Provider`.
        looked_at: ids of the instances that this command has reached or asked EC2 about.
    """

    def __init__(
        self,
        instance: Instance,
        clients: Clients,
        journal: Journal,
        emit: Emit,
        pace: Pace,
        ask_address: Callable[[], str],
        looked_at: set[str],
    ) -> None:
        super().__init__(instance)
        self._clients, self._journal, self._emit, self._pace = clients, journal, emit, pace
        self._ask_address, self._looked_at = ask_address, looked_at

    def open(self) -> Transport:
        """See `Machine.open`. A host key that fits neither pin is fatal and never retried."""
        # Imported where a connection is made: paramiko costs 0.1 s that no other command needs.
        from cloudtrain.transport.ssh_boot import connect_booting

        instance, key = self.instance, self._key()
        if not instance.owned:
            existing.host_key_of(instance, self._clients, self._journal, self._emit, self._pace)
        if not key.exists():
            raise UsageError(
                f"the key of {instance.details.run} is not on this computer: {key}",
                hint=f"another computer may hold it; cloudtrain stop {instance.details.run} ends the instance",
                consequence="nothing was sent",
                code="no_key",
            )
        door = Door(
            self._clients, self._journal, self._emit, self._pace, connect=connect_booting, ask_address=self._ask_address
        )
        notes = self._journal.read(Ec2Notes)
        may_be_away = instance.life is InstanceLife.PARKED or instance.id in (notes.parks, notes.held)
        if instance.owned and may_be_away and instance.id not in self._looked_at:
            # A command that comes back: the machine may have ended since, and its address be somebody else's.
            instance = door.as_it_is(instance)
        self._looked_at.add(instance.id)
        return door.open(instance, Credentials(instance.user or "ubuntu", key))

    def prepare(self, transport: Transport, facts: HostFacts, job: Path) -> str:
        """See `Machine.prepare`. Nothing is installed on a machine of the user's, nor on an emulated one, which is
        this computer."""
        if not self.instance.owned:
            return facts.python
        if self._clients.loopback:
            if not facts.torch:
                raise UsageError(
                    "the rehearsal trains on this computer, and its Python has no torch",
                    hint='pip install "cloudtrain[local,rehearse]"',
                    consequence="nothing was installed",
                    code="no_torch",
                )
            return facts.python
        return environment.prepare(transport, facts, _requirements(job), self._emit)

    def login(self) -> Login | None:
        notes = self._journal.read(Ec2Notes)
        pinned = notes.host_key or self.instance.host_key
        return Login((self._key(),), pinned, user=notes.user) if pinned else None

    def park_at_end(self) -> bool:
        """See `Machine.park_at_end`. The one call is recorded; a command that comes back does not make it again."""
        self._looked_at.add(self.instance.id)
        with self._recorded():
            return lease.park_at_end(self.instance, self._clients, self._journal)

    def end_at(self, transport: Transport, until: float) -> bool:
        if self.instance.owned:
            with self._recorded():
                lease.end_at(self.instance, transport, until, self._clients, self._journal)
        return self.instance.owned

    def extend(self, transport: Transport, expires_at: float) -> bool:
        if self.instance.owned:
            with self._recorded():
                lease.move(self.instance, transport, expires_at, self._clients)
            self._journal.write(Ec2Notes(ends_by=expires_at))
        return self.instance.owned

    def end(self, *, parks: bool) -> Ended:
        with self._recorded():
            return lease.enforce(self.instance, self._clients, self._emit, self._pace, parks=parks)

    def wake(self) -> Instance:
        with self._recorded():
            return lease.wake(self.instance, self._clients, self._journal, self._emit, self._pace)

    def release(self) -> Released:
        """See `Machine.release`. A machine that is not ours is left as it was found."""
        release = release_own if self.instance.owned else existing.release_existing
        with self._recorded():
            return release(self.instance, self._clients, self._journal, self._emit, self._pace)

    def _key(self) -> Path:
        """The private key that opens it."""
        owned, run = self.instance.owned, self.instance.details.run
        return trust.keys_folder(run) / "client" if owned else existing.identity_of(self._journal)

    def _recorded(self) -> AbstractContextManager[Clients]:
        return requests.recorded(self._clients, self._journal, self._pace.now)


def _place(token: str | None, seeds: Sequence[str]) -> int:
    return seeds.index(token) if token in seeds else -1


def _of_caller(run: str, clients: Clients) -> list[dict[str, Any]]:
    """Filters for a run by its name and whose it is, when no note of it is left."""
    with translated("look up who you are", profile=clients.profile, consequence="nothing was changed"):
        who = clients.sts.get_caller_identity()
    return tags.where(run=run, owner=tags.owners_of(who["UserId"], who["Arn"]))


def _requirements(source: Path) -> Path | None:
    """The file of requirements of the package that is sent: the shipped job's own, or the folder's."""
    named = (source / "job" / "requirements.txt", source / "requirements.txt")
    return next((path for path in named if path.is_file()), None)

"""An instance of ours that no registry knows any more: what its tags tell, the key that it must show, and a way in.

The pinned host key was lost with the registry. What takes its place is the console output, which is as trustworthy as
the AWS API: the machine printed its key there at its first boot, and again when the first login replaced it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudtrain.core import disk
from cloudtrain.core.errors import CloudtrainError, ConnectionFailed, UsageError
from cloudtrain.core.events import Emit, Noted
from cloudtrain.core.instance import Instance
from cloudtrain.core.notes import Journal
from cloudtrain.core.plan import Candidate, CodeSummary, Offer, OfferDetails, Plan, at_most
from cloudtrain.core.spec import Ec2Spec, JobSpec, Limits, RunSpec, Target, TrainSpec, check_name
from cloudtrain.core.states import InstanceLife
from cloudtrain.provider.ec2 import network, tags, trust
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.instances import ENDED, inventory, one, reason_of, state_of, to_instance
from cloudtrain.provider.ec2.notes import Ec2Notes, Group, Launched
from cloudtrain.provider.ec2.offer import account
from cloudtrain.provider.ec2.offer.prices import USUAL_DISK_GB, load
from cloudtrain.provider.ec2.pace import Pace
from cloudtrain.provider.ec2.reach import existing
from cloudtrain.provider.ec2.reach.boot import AGAIN_S
from cloudtrain.provider.ec2.translate import translated
from cloudtrain.transport.base import Transport
from cloudtrain.transport.ssh_boot import connect_booting
from cloudtrain.transport.ssh_keys import fingerprint, public_key

_LET_IN = 'umask 077; mkdir -p "$HOME/.ssh"; cat >> "$HOME/.ssh/authorized_keys"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A running or parked instance of ours, as its tags tell it.

    Attributes:
        token: mark of the launch attempt.
        launched_at, expires_at: unix seconds; the latter None where the tag cannot be read.
        group: its own security group, None where it has none.
        private: it is reached at its private address.
    """

    instance: Instance
    run: str
    token: str
    launched_at: float
    expires_at: float | None
    group: str | None
    private: bool = False

    @property
    def parked(self) -> bool:
        """Whether it is stopped, and its disk alone is billed."""
        return self.instance.life is InstanceLife.PARKED


def find(clients: Clients, instance_id: str, user: str, *, anyone: bool = False) -> Orphan:
    """The instance called `instance_id`; with `anyone` also one that another person has launched.

    Raises:
        UsageError: there is none, it is not ours or another's, it has ended or it is still starting.
    """
    found = one(clients, instance_id)
    if found is None or state_of(found) in ENDED:
        why = "it does not exist" if found is None else f"it has ended: {reason_of(found)}"
        raise _unfit(
            f"{instance_id} cannot be adopted in {clients.region}: {why}", "cloudtrain ls --remote; or --region"
        )
    marks = tags.as_map(found.get("Tags"))
    if marks.get(tags.MANAGED) != "true" or not marks.get(tags.RUN):
        raise _unfit(
            f"{instance_id} was not launched by cloudtrain",
            f"cloudtrain run --instance-id {instance_id} uses a machine of your own",
        )
    owner = marks.get(tags.OWNER, "")
    if not anyone and tags.is_others(owner, account.identify(clients).owners):
        raise _unfit(
            f"{instance_id} belongs to somebody else, owner {owner}",
            f"ask whoever launched it; cloudtrain adopt {instance_id} --owner any takes it all the same",
        )
    if state_of(found) not in ("running", "stopped"):
        raise _unfit(f"{instance_id} is {state_of(found)}", "adopt it once it runs or is parked")
    token = marks.get(tags.TOKEN, "")
    table, private = load(None if clients.loopback else clients.region), marks.get(tags.ADDRESS) == "private"
    price = table.of(str(found.get("InstanceType", "")), clients.region)
    items = inventory(clients, tokens=[token]) if token else []
    groups = [item.id for item in items if item.kind == "security group"]
    disk_gb = next((item.size_gb for item in items if item.id == instance_id and item.size_gb), USUAL_DISK_GB)
    hour = table.hourly(price.usd_per_hour, disk_gb) if price else None
    return Orphan(
        instance=to_instance(
            found,
            clients,
            Ec2Notes(user=user, private=private),
            run=check_name(marks[tags.RUN]),
            price=hour.total - (hour.address if private else 0.0) if hour else None,
        ),
        run=marks[tags.RUN],
        token=token,
        launched_at=found["LaunchTime"].timestamp(),
        expires_at=tags.utc_seconds(marks.get(tags.EXPIRES_AT)),
        group=groups[0] if groups else None,
        private=private,
    )


def _unfit(message: str, hint: str) -> UsageError:
    return UsageError(message, hint=hint, consequence="nothing was changed", code="not_adoptable")


def notes(orphan: Orphan, clients: Clients) -> Ec2Notes:
    """The journal that the lost registry held, as far as it can be known again."""
    instance = orphan.instance
    price, at = instance.price_per_hour, orphan.launched_at
    return Ec2Notes(
        seeds=(orphan.token,) if orphan.token else (),
        region=clients.region,
        user=instance.user,
        private=orphan.private,
        instance=Launched(id=instance.id, type=instance.type, zone=instance.zone, price=price, at=at),
        group=Group(id=orphan.group) if orphan.group and not orphan.private else None,
        reached=instance.id,
        adopted=True,
    )


def plan(orphan: Orphan, region: str, *, profile: str | None, train: TrainSpec, job: JobSpec, runs_dir: Path) -> Plan:
    """The plan of a run that was planned elsewhere.

    Args:
        profile: as it was asked for; None: whatever AWS's own settings name.
    """
    instance, expires_at = orphan.instance, orphan.expires_at
    limit_s = max(0.0, expires_at - orphan.launched_at) if expires_at is not None else None
    price = instance.price_per_hour
    spec = RunSpec(
        name=orphan.run,
        target=Target.EC2,
        train=train,
        job=job,
        runs_dir=str(runs_dir),
        limits=Limits(max_time_s=limit_s),
        ec2=Ec2Spec(types=(instance.type,), region=region, profile=profile, spot=instance.details.spot),
    )
    offer = Offer(
        where=region,
        candidates=(Candidate(type=instance.type, price_per_hour=price),),
        enforcer="the instance itself, by its own lease",
        details=OfferDetails(region=region, adopted=True),
    )
    most, code = at_most(price, limit_s), CodeSummary(files=0, bytes=0)
    return Plan(spec=spec, offer=offer, code=code, price_per_hour=price, limit_s=limit_s, at_most_usd=most)


def enter(
    orphan: Orphan,
    clients: Clients,
    journal: Journal,
    emit: Emit,
    pace: Pace,
    *,
    identity: Path | None,
    ask_address: Callable[[], str] = network.ask_address,
) -> Transport:
    """Log in with the run's own key if it is still here, with `identity`, or by EC2 Instance Connect; verified.

    The key that the machine accepts becomes the run's own key on this computer.

    Raises:
        HostKeyMismatch: it is not the machine whose key the console shows; nothing was sent.
        ConnectionFailed: it cannot be entered; it goes on running.
    """
    instance = orphan.instance
    _open_port(orphan, clients, journal, ask_address)
    host_key = existing.host_key_of(instance, clients, journal, emit, pace)

    def login(key: Path) -> Transport:
        return connect_booting(
            instance.address or "",
            instance.port,
            instance.user or "ubuntu",
            key,
            host_key,
            limit_s=AGAIN_S,
            emit=emit,
            auth_limit_s=0.0,
        )

    own = trust.keys_folder(orphan.run) / "client"
    if identity is not None:
        transport = login(identity)
        _keep(identity, own)
        return transport
    had = own.exists()
    if had:
        try:
            return login(own)
        except ConnectionFailed as error:
            if error.code != "auth_refused":
                raise
    key = trust.client_key(orphan.run)
    try:
        return _by_instance_connect(orphan, clients, key, login, emit)
    except CloudtrainError as error:
        if not had:
            trust.forget(orphan.run)
        raise ConnectionFailed(
            f"{instance.id} runs, but nobody here can log in: the key of {orphan.run} was lost with the state folder,"
            f" and EC2 Instance Connect does not open it ({error.message})",
            hint="--identity FILE if a copy of the key exists (state folder, keys/NAME/client);"
            f" else end it, with what it has trained: cloudtrain clean --all --yes {instance.id}",
            consequence="it keeps running and being billed until its own lease ends it",
            code="no_key",
        ) from error


def enter_later(
    orphan: Orphan,
    clients: Clients,
    journal: Journal,
    emit: Emit,
    *,
    identity: Path | None,
    ask_address: Callable[[], str] = network.ask_address,
) -> None:
    """Make all ready for the login to a parked machine, which is not started here: that costs money.

    Raises:
        ConnectionFailed: its last console output shows no host key, or no key of the run is left here.
    """
    instance = orphan.instance
    with translated("read the console output", profile=clients.profile, consequence="nothing was changed"):
        # What it wrote before it stopped: the present output, `Latest`, is for machines that run.
        output = clients.ec2.get_console_output(InstanceId=instance.id).get("Output") or ""
    keys = existing.host_keys_in(output)
    own = trust.keys_folder(orphan.run) / "client"
    what = "its last console output shows no host key" if not keys else None
    if identity is None and not own.exists():
        what = f"the key of {orphan.run} was lost with the state folder"
    if what is not None:
        raise ConnectionFailed(
            f"{instance.id} is parked and cannot be taken back: {what}",
            hint="--identity FILE if a copy of the key exists (state folder, keys/NAME/client);"
            f" else end it, with what its disk holds: cloudtrain clean --all --yes {instance.id}",
            consequence="its disk is billed until then",
            code="no_key",
        )
    host_key = keys.get("ssh-ed25519") or next(iter(keys.values()))
    emit(Noted(f"host key {fingerprint(host_key)}, from the instance's console output"))
    _open_port(orphan, clients, journal, ask_address)
    if identity is not None:
        public_key(identity)
        _keep(identity, own)
    journal.write(Ec2Notes(host_key=host_key, parks=instance.id))


def _open_port(orphan: Orphan, clients: Clients, journal: Journal, ask_address: Callable[[], str]) -> None:
    """Port 22 for this computer alone: the one that launched it may have had another address. What a VPN makes of an
    address is not known here, so the rule of a launch over one stays."""
    if orphan.group and not orphan.private:
        cidr = network.caller_cidr(clients, None, ask_address)
        network.allow_only(clients, orphan.group, cidr)
        journal.write(Ec2Notes(group=Group(id=orphan.group, cidr=cidr)))


def _keep(identity: Path, own: Path) -> None:
    disk.private_dir(own.parent)
    disk.write_durably(own, identity.read_bytes(), mode=0o600)


def _by_instance_connect(
    orphan: Orphan, clients: Clients, key: Path, login: Callable[[Path], Transport], emit: Emit
) -> Transport:
    """Have AWS show the machine a key of ours for a minute, log in, and leave the key there."""
    public = public_key(key)
    instance = orphan.instance
    with translated("show the machine a key by EC2 Instance Connect", profile=clients.profile, consequence=None):
        clients.connect.send_ssh_public_key(
            InstanceId=instance.id, InstanceOSUser=instance.user or "ubuntu", SSHPublicKey=public
        )
    transport = login(key)
    try:
        # Each later login would need another minute of AWS's.
        done = transport.run(["sh", "-c", _LET_IN], stdin=f"{public}\n".encode())
        if done.exit_code != 0:
            raise ConnectionFailed(f"the key could not be left there: {done.stderr.decode(errors='replace').strip()}")
    except BaseException:
        transport.close()
        raise
    emit(Noted("logged in by EC2 Instance Connect; a new key of this run is on the machine now"))
    return transport


def learnt(values: Mapping[str, Any]) -> TrainSpec:
    """What is trained, from the `start` event of the job; what it does not tell is left open."""
    known = {name: values[name] for name in ("epochs", "batch_size", "seed", "lr", "recipe") if values.get(name)}
    model = values.get("model")
    return TrainSpec(model=model if model in (1, 2, 3) else TrainSpec().model, **known)

"""Whether a launch would work, check by check, at no cost: look-ups and trial calls (DryRun) only, nothing is created.

A check that fails carries its fix; the others go on. What is on this computer (terminal, Python) is not checked here.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from botocore.exceptions import BotoCoreError, ClientError

from cloudtrain.core.errors import CloudtrainError, QuotaExceeded, Refused, UsageError
from cloudtrain.core.plan import OfferDetails
from cloudtrain.core.spec import Ec2Spec
from cloudtrain.core.text import an_hour
from cloudtrain.provider.ec2 import tags
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.instances import Item, inventory
from cloudtrain.provider.ec2.launch import launch
from cloudtrain.provider.ec2.notes import Slot
from cloudtrain.provider.ec2.offer import account, images, prices, quota, types, zones
from cloudtrain.provider.ec2.offer.images import Image
from cloudtrain.provider.ec2.offer.prices import PriceTable
from cloudtrain.provider.ec2.offer.quota import ON_DEMAND, SPOT
from cloudtrain.provider.ec2.offer.types import InstanceType
from cloudtrain.provider.ec2.offer.zones import Subnet
from cloudtrain.provider.ec2.translate import NO_POLICY, Failure, code_of, failure_of, translate

Status = Literal["ok", "warn", "fail"]

POLICY = "attach the policy of docs/iam-policy.json to this user or role"
REFRESH = "cloudtrain instances --refresh"
# A run of the default limit should not outlive the session that has to end it.
SHORT_SESSION = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the answer.

    Attributes:
        name: one word: "aws", "quota".
        message: what was found, one line, lower case.
        fix: the command or action that mends it; None where there is nothing to mend.
    """

    name: str
    status: Status
    message: str
    fix: str | None = None


@dataclass(slots=True)
class _Seen:
    """What earlier checks found, for the later ones; None: that check failed."""

    ec2: Ec2Spec
    clients: Clients
    table: PriceTable
    now: datetime
    who: account.Account | None = None
    kinds: tuple[InstanceType, ...] = ()
    image: Image | None = None
    subnet: Subnet | None = None
    items: list[Item] | None = None

    @property
    def market(self) -> str:
        return SPOT if self.ec2.spot else ON_DEMAND

    @property
    def region(self) -> str:
        return self.clients.region


def checks(
    ec2: Ec2Spec,
    connect: Callable[[], Clients] | None = None,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[Check]:
    """Every check for launching what `ec2` names, each as soon as it is known.

    Args:
        connect: makes the clients; None: those of `ec2.profile` and `ec2.region`.
    """
    yield _packages()
    try:
        clients = (connect or (lambda: Clients(ec2.profile, ec2.region)))()
        table = prices.load(None if clients.loopback else clients.region)
    except CloudtrainError as error:
        name = "region" if isinstance(error, UsageError) else "aws"
        yield _failed(name, error)
        yield from _price(prices.load(), ec2.types, None, now())
        yield from _not_checked(_AFTER_SIGN_IN, f"not checked: {error.message}")
        return
    seen = _Seen(ec2, clients, table, now())
    signed_in = _guarded("aws", lambda: _signed_in(seen))
    yield from signed_in
    if not any(check.name == "region" for check in signed_in):
        yield Check("region", "ok", f"{clients.region} (from {clients.region_source})")
    if seen.who is None:
        yield from _price(table, ec2.types, clients.region, seen.now)
        yield from _not_checked(_AFTER_SIGN_IN, "not checked: AWS could not be asked")
        return
    yield from _guarded("plan", lambda: _plan(seen))
    yield from _guarded("type", lambda: _types(seen))
    yield from _price(table, [kind.name for kind in seen.kinds], clients.region, seen.now)
    yield from _guarded("quota", lambda: _quota(seen))
    yield from _guarded("image", lambda: _image(seen))
    yield from _guarded("disk", lambda: _disk(seen))
    yield from _guarded("network", lambda: _network(seen))
    yield from _guarded("rights", lambda: _rights(seen))
    yield from _guarded("leftovers", lambda: _leftovers(seen))


_AFTER_SIGN_IN = ("type", "quota", "image", "disk", "network", "rights", "leftovers")


def _guarded(name: str, look: Callable[[], Iterable[Check]]) -> list[Check]:
    """The lines of one check; a failure of its look-ups is a line too."""
    found: list[Check] = []
    try:
        found.extend(look())
    except CloudtrainError as error:
        found.append(_failed(name, error))
    return found


def _failed(name: str, error: CloudtrainError) -> Check:
    return Check(name, "fail", error.message, error.hint)


def _not_checked(names: Sequence[str], why: str) -> Iterator[Check]:
    for name in names:
        yield Check(name, "warn", why)


def _packages() -> Check:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("boto3", "paramiko"))
    if importlib.util.find_spec("awscrt") is None:
        lacking = f'{versions}; awscrt is missing, so "aws login" cannot be used'
        return Check("packages", "warn", lacking, 'pip install "botocore[crt]"')
    return Check("packages", "ok", f"{versions}, awscrt {importlib.metadata.version('awscrt')}")


def _signed_in(seen: _Seen) -> Iterator[Check]:
    try:
        seen.who = account.identify(seen.clients)
    except Refused as error:
        # The key is good, and the Region is not enabled.
        yield _failed("region", error)
        return
    text = f"{seen.who.text}, {seen.who.kind}"
    if seen.who.expires is not None:
        text += f", session {seen.who.lasts(seen.now)}"
    if seen.who.expires is not None and seen.who.expires - seen.now < SHORT_SESSION:
        yield Check(
            "aws",
            "warn",
            f"{text}: a run goes on without it, but ending the instance from here needs it",
            "sign in again before a long run; the limit on the instance ends it in any case",
        )
        return
    yield Check("aws", "ok", text)


def _plan(seen: _Seen) -> Iterator[Check]:
    # An emulated Region has no plan, and not every account has the API: then there is nothing to say.
    found = None if seen.clients.loopback else account.plan(seen.clients)
    if found is None:
        return
    credit = "" if found.credit_usd is None else f", ${found.credit_usd:.2f} credit"
    if found.free:
        yield Check(
            "plan",
            "warn",
            f"free plan{credit}: types with a GPU need the paid plan",
            "upgrade in the billing console; free meanwhile: cloudtrain run --model 3 --dry-run",
        )
    else:
        yield Check("plan", "ok", f"paid plan{credit}")


def _price(table: PriceTable, names: Iterable[str], region: str | None, now: datetime) -> Iterator[Check]:
    """Age and origin of the prices; needs nobody signed in."""
    for name in names:
        price = table.of(name, region or table.region)
        if price is None:
            yield Check("price", "fail", f"no price is known for {name}", REFRESH)
            continue
        age = price.age_days(now.date())
        costs = an_hour(table.hourly(price.usd_per_hour).total)
        text = f"{name} {costs} ({table.held()}), {price.source} of {price.as_of} ({age} days old)"
        if price.estimate:
            text += f": {price.region}'s, as an estimate for {region}"
        doubtful = price.estimate or age > prices.STALE_DAYS
        yield Check("price", "warn", text, REFRESH) if doubtful else Check("price", "ok", text)


def _types(seen: _Seen) -> Iterator[Check]:
    names = seen.ec2.types
    for name in names:
        if not types.TYPE_NAME.fullmatch(name):
            types.refuse_known(name)
    found = types.describe(names, seen.clients.ec2)
    for name in names:
        try:
            kind = types.check_usable(
                name,
                found,
                known=seen.table.names,
                region=seen.region,
                market=seen.market,
                own_image=seen.ec2.ami is not None,
            )
        except CloudtrainError as error:
            yield _failed("type", error)
            continue
        seen.kinds = (*seen.kinds, kind)
        yield Check("type", "ok", f"{name}: {kind.gpu}, {kind.vcpus} vCPU, {kind.memory_gib:.0f} GB RAM, {kind.arch}")


def _quota(seen: _Seen) -> Iterator[Check]:
    if not seen.kinds:
        yield Check("quota", "warn", "not checked: no usable type")
        return
    used = quota.in_use(seen.clients.ec2, {kind.name: kind.vcpus for kind in seen.kinds})
    codes = {code for kind in seen.kinds if (code := quota.code_of_type(kind.name, seen.market))}
    found = quota.survey(codes, seen.region, used, seen.clients.quotas)
    for kind in seen.kinds:
        code = quota.code_of_type(kind.name, seen.market)
        one = found[code] if code else quota.unlisted(kind.name, seen.market, seen.region)
        try:
            unknown = quota.preflight(kind.name, kind.vcpus, one)
        except QuotaExceeded as error:
            yield _failed("quota", error)
            continue
        if unknown is not None:
            yield Check("quota", "warn", unknown, one.command(kind.vcpus))
        else:
            yield Check(
                "quota", "ok", f"{one.name}: {one.free} of {one.granted} vCPU free, {kind.name} needs {kind.vcpus}"
            )


def _image(seen: _Seen) -> Iterator[Check]:
    arch = seen.kinds[0].arch if seen.kinds else "x86_64"
    found = images.resolve(arch, seen.clients.ec2, seen.clients.ssm, ami=seen.ec2.ami)
    seen.image = found
    text = f"{found.id} {found.name} ({found.source}), {found.root_gb} GB, login {seen.ec2.user or found.user}"
    if found.notes:
        yield Check("image", "warn", f"{text}; {'; '.join(found.notes)}", "--ami names another image")
    else:
        yield Check("image", "ok", text)


def _disk(seen: _Seen) -> Iterator[Check]:
    key = account.disk_key(seen.clients)
    if key is None:
        yield Check("disk", "warn", "not looked at: ec2:GetEbsEncryptionByDefault or GetEbsDefaultKmsKeyId", POLICY)
    elif key in ("", "alias/aws/ebs"):
        how = f"encrypted by AWS's own key {key}" if key else "not encrypted by default"
        yield Check("disk", "ok", f"new disks are {how}: no further right is needed")
    else:
        text = f"new disks are encrypted with {key}: a launch by whoever may not use it ends with Client.InternalError"
        yield Check("disk", "warn", text, 'docs/ec2.md, "Encrypted disks", has the rights to add if they are not there')


def _network(seen: _Seen) -> Iterator[Check]:
    tables = zones.routes(seen.clients.ec2)
    found = zones.routed(zones.subnets(seen.clients.ec2), tables)
    allowed = zones.usable(found, seen.region, asked=seen.ec2.subnet, private=seen.ec2.private_ip)
    sold = zones.offered([kind.name for kind in seen.kinds], seen.clients.ec2) if seen.kinds else {}
    for kind in seen.kinds:
        try:
            places = zones.place(kind.name, sold, allowed, seen.region)
        except CloudtrainError as error:
            yield _failed("network", error)
            continue
        seen.subnet = seen.subnet or places[0]
        text = f"{kind.name} in {', '.join(place.zone for place in places)} ({places[0].vpc})"
        if seen.ec2.private_ip:
            yield Check("network", "ok", f"{text}, by private addresses: the route there is yours")
        elif tables is None:
            yield Check("network", "warn", f"{text}; routes not checked: ec2:DescribeRouteTables is missing", POLICY)
        else:
            yield Check("network", "ok", f"{text}, with a route to the Internet")
    if not seen.kinds:
        seen.subnet = allowed[0]
        yield Check("network", "ok", f"{len(allowed)} usable subnets in {allowed[0].vpc}")


def _rights(seen: _Seen) -> Iterator[Check]:
    """Trial calls with the parameters of a real launch. EC2 checks the right and does nothing."""
    image, subnet = seen.image, seen.subnet
    if image is None or subnet is None or not seen.kinds or seen.who is None:
        yield Check("rights", "warn", "not tried: a trial launch needs a type, an image and a subnet")
        return
    client = seen.clients.ec2_launch
    marks = tags.tags_of_run("doctor", "doctor", seen.who.owner, seen.now.timestamp(), seen.ec2)
    mine = seen.who.owners
    own = [item.id for item in _own(seen) if item.kind == "instance" and not tags.is_others(item.owner, mine)]
    # Without an instance of ours there is none that may be named: this id has the form of one and belongs to nobody.
    target = own[:1] or ["i-00000000000000000"]
    trials: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("RunInstances", lambda: client.run_instances(**_trial_launch(seen, image, subnet, marks))),
        (
            "CreateSecurityGroup",
            lambda: client.create_security_group(
                GroupName=f"cloudtrain-doctor-{secrets.token_hex(4)}",
                Description="trial call of cloudtrain doctor",
                VpcId=subnet.vpc,
                TagSpecifications=tags.specifications(marks, "security-group"),  # type: ignore[arg-type]
                DryRun=True,
            ),
        ),
        ("TerminateInstances", lambda: client.terminate_instances(InstanceIds=target, DryRun=True)),
    )
    allowed = []
    for action, call in trials:
        error = _trial(action, call)
        if error is None:
            allowed.append(action)
        elif action == "TerminateInstances" and not own and error.code == "denied":
            yield Check(
                "rights",
                "warn",
                "TerminateInstances could not be proved: a policy that allows it for cloudtrain's own instances alone"
                " refuses the trial until there is one",
                f"{POLICY}, unless it is attached already",
            )
        else:
            yield Check("rights", "fail", error.message, POLICY if error.detail == NO_POLICY else error.hint)
    if allowed:
        yield Check("rights", "ok", f"{', '.join(allowed)}: trial call allowed")


def _trial_launch(seen: _Seen, image: Image, subnet: Subnet, marks: dict[str, str]) -> dict[str, Any]:
    size, _ = images.root_size(image, seen.ec2.volume_gb)
    details = OfferDetails(image_id=image.id, root_device=image.root_device, root_gb=size)
    slot = Slot(seen.kinds[0].name, subnet.zone, subnet.id)
    request = launch.request_for(
        slot, details, seen.ec2, seed=secrets.token_hex(8), group="", user_data="#cloud-config\n{}\n", marks=marks
    )
    # A run makes a group of its own first; the trial stands in the VPC's default one.
    for interface in request["NetworkInterfaces"]:
        interface.pop("Groups", None)
    return {**request, "DryRun": True}


def _trial(action: str, call: Callable[[], Any]) -> CloudtrainError | None:
    """None if the trial was allowed, else why not."""
    try:
        call()
    except (ClientError, BotoCoreError) as error:
        if code_of(error) != "DryRunOperation" and failure_of(error) is not Failure.ABSENT:
            return translate(error, f"try {action}")
    return None


def _own(seen: _Seen) -> list[Item]:
    """What carries our mark in the Region, looked up once."""
    if seen.items is None:
        seen.items = inventory(seen.clients)
    return seen.items


def _leftovers(seen: _Seen) -> Iterator[Check]:
    items = _own(seen)
    if not items:
        yield Check("leftovers", "ok", f"nothing of cloudtrain's in {seen.region}")
    for item in items:
        text = item.describe(item.hourly(seen.table, seen.region))
        if item.run:
            text += f", of run {item.run}"
        if seen.who is not None and tags.is_others(item.owner, seen.who.owners):
            yield Check("leftovers", "ok", f"{text}; another's, owner {item.owner}")
            continue
        yield _leftover(item, text, seen.now)


def _leftover(item: Item, text: str, now: datetime) -> Check:
    if item.kind != "instance":
        return Check("leftovers", "warn", text, "cloudtrain clean")
    if item.expires_at is not None and item.state in ("pending", "running"):
        left = item.expires_at - now.timestamp()
        if left > 0:
            return Check(
                "leftovers", "warn", f"{text}; ends itself in {left / 60:.0f} min", f"cloudtrain stop {item.run}"
            )
        return Check("leftovers", "fail", f"{text}; its time ended {-left / 60:.0f} min ago", "cloudtrain clean")
    return Check("leftovers", "warn", text, "cloudtrain clean")

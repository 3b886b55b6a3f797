"""`--instance-id`: an instance of the user's own. If it was stopped it is started, and stopped again; it never ends."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloudtrain.core.errors import ConnectionFailed, HostKeyMismatch, Refused, SignInError, UsageError
from cloudtrain.core.events import Emit, Noted, StepDone, StepProgress, StepStarted
from cloudtrain.core.instance import Instance, Released
from cloudtrain.core.notes import Journal
from cloudtrain.core.plan import Plan
from cloudtrain.core.states import InstanceLife
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.instances import ENDED, address_of, one, reason_of, state_of, to_instance, watched
from cloudtrain.provider.ec2.network import SSH_PORT
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.provider.ec2.pace import Pace
from cloudtrain.provider.ec2.translate import NO_POLICY, translated
from cloudtrain.transport.ssh import scan_host_key
from cloudtrain.transport.ssh_boot import wait_for_banner
from cloudtrain.transport.ssh_keys import PublicKey, check_fingerprint, fingerprint, parse_public_key
from cloudtrain.transport.ssh_trust import PinnedHosts

_BLOCK = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)


def acquire_existing(plan: Plan, clients: Clients, journal: Journal, emit: Emit, pace: Pace) -> Instance:
    """The instance that `--instance-id` names, running.

    Raises:
        UsageError: there is none, or it has ended.
        Refused: it did not start.
    """
    spec = plan.spec.ec2
    assert spec is not None and spec.instance_id is not None
    began = time.monotonic()
    emit(StepStarted("instance", spec.instance_id, pace.pending))
    found = one(clients, spec.instance_id)
    if found is None or state_of(found) in ENDED:
        why = "it does not exist" if found is None else f"it has ended: {reason_of(found)}"
        raise UsageError(
            f"{spec.instance_id} cannot be used in {clients.region}: {why}",
            hint="aws ec2 describe-instances lists those that exist; or --region",
            consequence="nothing was changed",
            code="no_instance",
        )
    notes = Ec2Notes(
        existing=spec.instance_id,
        region=clients.region,
        private=spec.private_ip,
        user=spec.user or plan.offer.details.user or "ubuntu",
        identity=spec.identity,
        host_key_given=spec.host_key,
    )
    if state_of(found) in ("stopped", "stopping"):
        # Before the effect: whoever comes after a crash knows that it has to be stopped again.
        notes |= Ec2Notes(started=spec.instance_id)
    journal.write(notes)
    running = _running(found, clients, emit, pace, private=spec.private_ip)
    instance = as_existing(running, plan.spec.name, clients, journal)
    emit(StepDone("instance", f"{instance.id} {instance.type}, {instance.zone}", time.monotonic() - began))
    return instance


def as_existing(found: Mapping[str, Any], run: str, clients: Clients, journal: Journal) -> Instance:
    """Our `Instance` of a machine that is not ours: no price, no end."""
    return to_instance(found, clients, journal.read(Ec2Notes), run=run, price=None, owned=False)


def _running(found: Mapping[str, Any], clients: Clients, emit: Emit, pace: Pace, *, private: bool) -> Mapping[str, Any]:
    instance_id = str(found["InstanceId"])
    if state_of(found) == "running" and address_of(found, private=private):
        return found
    asked = False
    for current, state, gone in watched(clients, instance_id, emit, pace, step="instance", within_s=pace.pending):
        if current and state == "running" and address_of(current, private=private):
            return current
        if state in ENDED:
            raise Refused(
                f"{instance_id} has ended: {reason_of(current)}", consequence="nothing was sent", code="no_instance"
            )
        if state == "running" and gone > pace.visible:
            raise Refused(
                f"{instance_id} has no public address",
                hint="give it one, or reach it at its private one, over your VPN: --private-ip",
                consequence="nothing was sent",
                code="no_public_ip",
            )
        if state == "stopped" and not asked:
            with _of_theirs(instance_id, f"start {instance_id}", clients, "it stays stopped"):
                clients.ec2.start_instances(InstanceIds=[instance_id])
            asked = True
    raise Refused(
        f"{instance_id} did not start within {pace.pending:.0f} s",
        hint=f"aws ec2 describe-instances --instance-ids {instance_id}",
        consequence="it may be billed once it runs",
        code="stuck_pending",
    )


def release_existing(instance: Instance, clients: Clients, journal: Journal, emit: Emit, pace: Pace) -> Released:
    """Leave the machine as it was found: stopped again if a run of ours started it."""
    if journal.read(Ec2Notes).started != instance.id:
        summary = f"{instance.id} is yours and goes on running"
        emit(Noted(summary))
        return Released(life=InstanceLife.NONE, summary=summary)
    began = time.monotonic()
    emit(StepStarted("release", f"stopping {instance.id} again", pace.end))
    with _of_theirs(
        instance.id,
        f"stop {instance.id} again",
        clients,
        f"it keeps running and being billed: aws ec2 stop-instances --instance-ids {instance.id}",
    ):
        clients.ec2.stop_instances(InstanceIds=[instance.id])
    for found, state, _ in watched(clients, instance.id, emit, pace, step="release", within_s=pace.end):
        if found is None or state in ("stopped", *ENDED):
            journal.write(Ec2Notes(started=None))
            summary = f"{instance.id} stopped again; its disk is billed as before"
            emit(StepDone("release", summary, time.monotonic() - began))
            return Released(life=InstanceLife.NONE, summary=summary)
    raise ConnectionFailed(
        f"{instance.id} is not stopped after {pace.end:.0f} s",
        hint=f"aws ec2 stop-instances --instance-ids {instance.id}",
        consequence="its time is billed until it stops",
        code="not_stopped",
    )


def host_key_of(instance: Instance, clients: Clients, journal: Journal, emit: Emit, pace: Pace) -> PublicKey:
    """The key to pin for a machine that we did not make: the one that was given, or the one in its console output,
    which is as trustworthy as the AWS API.

    Raises:
        ConnectionFailed: neither is available.
        HostKeyMismatch: it shows another key than the one given.
    """
    notes = journal.read(Ec2Notes)
    if notes.host_key:
        return notes.host_key
    given = notes.host_key_given
    # A console tells the keys after the first boot alone, so what was trusted once is kept for machines that come back.
    pins = PinnedHosts()
    known = None if instance.owned else pins.get(instance.id, SSH_PORT)
    if given:
        key = _from_given(given, instance, emit, pace)
    elif known is not None:
        key = known
    else:
        key = _from_console(instance, clients, emit, pace)
        emit(Noted(f"host key {fingerprint(key)}, from the instance's console output"))
    if not instance.owned:
        pins.pin(instance.id, SSH_PORT, key)
    journal.write(Ec2Notes(host_key=key))
    return key


def _from_given(given: str, instance: Instance, emit: Emit, pace: Pace) -> PublicKey:
    if not given.startswith("SHA256:"):
        parse_public_key(given)
        return " ".join(given.split()[:2])
    wanted = check_fingerprint(given)
    # It may have been started a moment ago.
    wait_for_banner(instance.address or "", instance.port, limit_s=pace.boot, emit=emit)
    shown = scan_host_key(instance.address or "", instance.port)
    if fingerprint(shown) != wanted:
        raise HostKeyMismatch(
            f"{instance.address} does not show the host key that was given",
            detail=f"given:     {wanted}\npresented: {fingerprint(shown)}",
            consequence="nothing was sent",
            hint="compare with: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub on the instance",
        )
    return shown


def _from_console(instance: Instance, clients: Clients, emit: Emit, pace: Pace) -> PublicKey:
    # The keys are printed once the start-up scripts have ended.
    for gone in pace.polls(min(120.0, pace.boot)):
        what, consequence = "read the console output", "nothing was sent"
        ours = translated(what, profile=clients.profile, consequence=consequence)
        with ours if instance.owned else _of_theirs(instance.id, what, clients, consequence):
            answer = clients.ec2.get_console_output(InstanceId=instance.id, Latest=True)
        keys = host_keys_in(answer.get("Output") or "")
        if keys:
            return keys.get("ssh-ed25519") or next(iter(keys.values()))
        emit(StepProgress("ssh", "waiting for the host keys in the console output", done=gone, total=120.0, unit="s"))
    raise ConnectionFailed(
        f"the console output of {instance.id} shows no host key",
        hint="on the instance: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub, then --host-key SHA256:...",
        consequence="nothing was sent: a host is not trusted unverified",
        code="no_host_key",
    )


@contextmanager
def _of_theirs(instance_id: str, action: str, clients: Clients, consequence: str) -> Iterator[None]:
    """`translated`, for a call about a machine of the user's, which the shipped policy allows for those with a tag."""
    try:
        with translated(action, profile=clients.profile, consequence=consequence):
            yield
    except SignInError as error:
        if error.code == "denied" and error.detail == NO_POLICY:
            error.hint = (
                "docs/iam-policy.json allows it for machines of yours with the tag cloudtrain:use=true: aws ec2"
                f" create-tags --resources {instance_id} --tags Key=cloudtrain:use,Value=true"
            )
        raise


def host_keys_in(output: str) -> dict[str, PublicKey]:
    """Host keys that cloud-init printed to the console, the last block of each kind, by type ("ssh-ed25519")."""
    if "-----BEGIN" not in output:
        try:
            output = base64.b64decode(output, validate=True).decode("utf-8", "replace")
        except ValueError:
            return {}
    keys: dict[str, PublicKey] = {}
    for block in _BLOCK.findall(output):
        for line in block.replace("\r", "").splitlines():
            words = line.split()
            if len(words) >= 2:
                try:
                    kind, _ = parse_public_key(f"{words[0]} {words[1]}")
                except UsageError:
                    continue
                keys[kind] = f"{words[0]} {words[1]}"
    return keys


def identity_of(journal: Journal) -> Path:
    """The private key that the user named for the machine.

    Raises:
        UsageError: none was named.
    """
    named = journal.read(Ec2Notes).identity
    if not named:
        raise UsageError(
            "an instance of your own needs the key that it trusts",
            hint="--identity FILE",
            consequence="nothing was changed",
            code="no_identity",
        )
    return Path(named).expanduser()

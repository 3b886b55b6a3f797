"""Two people of one account, each with docs/iam-policy.json and nothing else: every call of theirs to the emulated
region is held against it first, with the condition keys that IAM would fill in.

moto can enforce IAM, but not this policy: it asks for the resource "*" always, gives a condition no keys (so that a
statement with one denies), and puts nothing in for `${aws:userid}`. So `tests.policy` judges, and the region does what
is allowed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError

from cloudtrain.core.errors import SignInError
from cloudtrain.emulator.region import Region
from cloudtrain.provider.ec2 import tags, trust
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.provider import Ec2Provider
from cloudtrain.provider.ec2.reach import adopt
from tests import policy
from tests.refusing import Raw
from tests.region.ec2.conftest import QUICK, Notes
from tests.region.ec2.test_iam_policy import ANNA, BEN, HURTS, SERVICES


class Person:
    """A caller whom the policy binds.

    Attributes:
        allowed, denied: the rights that were asked for; `launched_with`: the kinds of things that a launch asked for.
    """

    def __init__(self, user_id: str, clients: Clients, root: Clients, region: Region) -> None:
        self.user_id, self.clients, self.root, self.region = user_id, clients, root, region
        self.allowed: set[str] = set()
        self.denied: set[str] = set()
        self.launched_with: set[str] = set()
        for name in ("ec2", "ec2_launch", "ssm", "sts", "quotas", "pricing", "freetier", "connect"):
            getattr(clients, name).meta.events.register("before-call.*.*", self.judge)

    def judge(self, model: Any, params: dict[str, Any], **ignored: Any) -> tuple[AWSResponse, dict[str, Any]] | None:
        """What IAM says of a call that is about to be made: an answer, or None: it may go on."""
        action = f"{SERVICES[str(model.service_model.service_name)]}:{model.name}"
        if action in policy.NEED_NO_RIGHT:
            arn = f"arn:aws:iam::{self.region.account}:user/{self.user_id}"
            return self.answer(200, {"UserId": self.user_id, "Arn": arn, "Account": self.region.account})
        sent = params["body"] if isinstance(params["body"], dict) else json.loads(params["body"])
        for right, arn, keys in policy.asks(action, sent, self.region.account, self.region.name, self.facts):
            if not policy.allows(right, arn, {"aws:userid": self.user_id, **keys}):
                self.denied.add(right)
                said = f"is not authorized to perform: {right} on resource: {arn} because no identity-based policy"
                return self.answer(403, {"Error": {"Code": "UnauthorizedOperation", "Message": f"{said} allows it"}})
            self.allowed.add(right)
            if right == "ec2:RunInstances":
                self.launched_with.add(arn.rpartition(":")[2].partition("/")[0])
        return None

    def answer(self, status: int, parsed: dict[str, Any]) -> tuple[AWSResponse, dict[str, Any]]:
        parsed["ResponseMetadata"] = {"HTTPStatusCode": status, "HTTPHeaders": {}}
        return AWSResponse("https://aws.invalid", status, {}, Raw(b"")), parsed

    def facts(self, id: str) -> dict[str, str]:
        if id.startswith("ami-"):
            [image] = self.root.ec2.describe_images(ImageIds=[id])["Images"]
            return {"ec2:Owner": image.get("ImageOwnerAlias") or image["OwnerId"]}
        found = self.root.ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [id]}])["Tags"]
        return {f"aws:ResourceTag/{one['Key']}": one["Value"] for one in found}


@pytest.fixture
def people(trip_of: Callable[..., Any], clients_of: Callable[..., Clients]) -> tuple[Any, Person, Person]:
    """Anna's trip, Anna, and Ben."""
    trip = trip_of()
    root = clients_of(trip.region)
    anna = Person(ANNA, trip.clients, root, trip.region)
    ben = Person(BEN, clients_of(trip.region), root, trip.region)
    offer = trip.provider.survey(trip.plan.spec)
    assert offer.details.owner == ANNA
    trip.plan = replace(trip.plan, offer=offer)
    return trip, anna, ben


def hurting(instance: str, group: str) -> dict[str, Callable[[Clients], Any]]:
    """A call of each right that ends, opens or changes a machine, by its right."""
    rule: Any = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    stop: Any = {"Value": "stop"}
    mine: Any = [{"Key": tags.OWNER, "Value": BEN}]
    return {
        "ec2-instance-connect:SendSSHPublicKey": lambda to: to.connect.send_ssh_public_key(
            InstanceId=instance, InstanceOSUser="ubuntu", SSHPublicKey="ssh-ed25519 " + "A" * 68
        ),
        "ec2:AuthorizeSecurityGroupIngress": lambda to: to.ec2.authorize_security_group_ingress(
            GroupId=group, IpPermissions=rule
        ),
        "ec2:CreateTags": lambda to: to.ec2.create_tags(Resources=[instance], Tags=mine),
        "ec2:DeleteSecurityGroup": lambda to: to.ec2.delete_security_group(GroupId=group),
        "ec2:GetConsoleOutput": lambda to: to.ec2.get_console_output(InstanceId=instance),
        "ec2:ModifyInstanceAttribute": lambda to: to.ec2.modify_instance_attribute(
            InstanceId=instance, InstanceInitiatedShutdownBehavior=stop
        ),
        "ec2:RevokeSecurityGroupIngress": lambda to: to.ec2.revoke_security_group_ingress(
            GroupId=group, IpPermissions=rule
        ),
        "ec2:StartInstances": lambda to: to.ec2.start_instances(InstanceIds=[instance]),
        "ec2:StopInstances": lambda to: to.ec2.stop_instances(InstanceIds=[instance]),
        "ec2:TerminateInstances": lambda to: to.ec2.terminate_instances(InstanceIds=[instance]),
    }


def test_each_may_all_that_a_run_needs_and_nothing_of_the_others(people: tuple[Any, Person, Person]) -> None:
    trip, anna, ben = people
    instance = trip.acquire()
    assert anna.launched_with == {"instance", "volume", "network-interface", "image", "subnet", "security-group"}
    trip.open(instance).close()
    # The registry is lost, and the keys.
    shutil.rmtree(trust.keys_folder("brave-otter"))
    orphan = adopt.find(trip.clients, instance.id, "ubuntu")
    notes = Notes()
    notes.write(adopt.notes(orphan, trip.clients))
    adopt.enter(orphan, trip.clients, notes, trip.told.append, QUICK, identity=None).close()
    trip.machine(instance).park_at_end()

    assert orphan.group is not None
    hurts = hurting(instance.id, orphan.group)
    assert set(hurts) == {*HURTS, "ec2:StopInstances"} - {"ec2:DeleteVolume"}
    for right, call in hurts.items():
        with pytest.raises(ClientError, match=f"not authorized to perform: {right} "):
            call(ben.clients)
    with pytest.raises(SignInError, match="ec2:TerminateInstances"):
        Ec2Provider(ben.clients, pace=QUICK).machine(instance, Notes(), trip.told.append).release()
    assert ben.denied == set(hurts)
    assert [row["state"] for row in trip.region.inventory()["instances"]] == ["running"]

    anna.root.ec2.stop_instances(InstanceIds=[instance.id])
    woken = trip.machine(instance).wake()
    trip.open(woken).close()
    trip.release(woken)
    assert trip.left() == {} and anna.denied == set()
    # Nobody is let in anew where the address has not changed, and Anna has no machine of her own that she stops.
    assert set(hurts) - anna.allowed == {"ec2:RevokeSecurityGroupIngress", "ec2:StopInstances"}

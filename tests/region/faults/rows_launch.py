"""Rows 1 to 14, 48 and 50: no capacity, quotas, throttling, answers that are lost, instances that never run."""

from __future__ import annotations

from tests.region.faults.matrix import NOTHING, TERMINATED, Case
from tests.region.faults.scene import Scene

LAUNCH = "tests/region/ec2/test_launch.py"


def one_run(scene: Scene) -> None:
    """A run of the toy job, with nobody doing anything else."""
    scene.run()


def _next_zone(scene: Scene) -> None:
    scene.run()
    asked = scene.calls("RunInstances")
    # AWS's SDK would ask a full zone again by itself: lack of capacity comes as an HTTP 500.
    assert [call["effect"] for call in asked] == [False, True]


def _two_types(scene: Scene) -> None:
    scene.run(flags=("--instance", "g4dn.xlarge,g6.xlarge"))
    types = [call["parameters"]["InstanceType"] for call in scene.calls("RunInstances")]
    assert types == sorted(types) and set(types) == {"g4dn.xlarge", "g6.xlarge"}
    tokens = [call["parameters"]["ClientToken"] for call in scene.calls("RunInstances")]
    assert len(set(tokens)) == len(tokens) >= 6


def _asked_once(scene: Scene) -> None:
    scene.run()
    assert len(scene.calls("RunInstances")) == 1


def _spot(scene: Scene) -> None:
    scene.run(flags=("--spot",))
    asked = scene.calls("RunInstances")
    assert len(asked) == 1 and "spot" in str(asked[0]["parameters"])


def _same_token(scene: Scene) -> None:
    scene.run()
    asked = scene.calls("RunInstances")
    assert len(asked) > 1 and len({call["parameters"]["ClientToken"] for call in asked}) == 1


def _then_full(scene: Scene) -> None:
    """The place is full by the time at which it is asked again."""
    with scene.started(*scene.toy()) as command:
        scene.until(lambda: "asking again with the same token" in command.said)
        scene.inject("InsufficientInstanceCapacity:1@RunInstances")
    assert len(scene.calls("RunInstances")) == 2


def _denied_group(scene: Scene) -> None:
    scene.run()
    assert not scene.calls("RunInstances")


NO_INSTANCE = "inventory: 0 instances, 0 volumes, 0 security groups of this run in us-east-1"
AGAIN = "g4dn.xlarge in us-east-1a: no usable answer ({}), asking again with the same token"

CASES = (
    Case(
        row=1,
        fault="The zone has no free instance of the type; another zone has one",
        how="`capacity:us-east-1a`",
        script=("capacity:us-east-1a",),
        play=_next_zone,
        sees=(
            "no g4dn.xlarge in us-east-1a (InsufficientInstanceCapacity), trying the next place",
            "g4dn.xlarge, us-east-1b",
        ),
        code=0,
        money=TERMINATED,
        also=(f"{LAUNCH}::test_a_full_zone_is_asked_once_and_the_next_one_gives",),
    ),
    Case(
        row=2,
        way="second type",
        fault="No zone has the type; the second type that was named is free",
        how="`capacity:*:g4dn.xlarge`, `--instance g4dn.xlarge,g6.xlarge`",
        script=("capacity:*:g4dn.xlarge",),
        play=_two_types,
        sees=("no g4dn.xlarge in us-east-1a", "g6.xlarge, us-east-1"),
        code=0,
        money=TERMINATED,
    ),
    Case(
        row=2,
        way="all full",
        fault="No zone has any type that was named",
        how="`capacity:*`, `--instance g4dn.xlarge,g6.xlarge`",
        script=("capacity:*",),
        play=_two_types,
        sees=("no g4dn.xlarge or g6.xlarge free in us-east-1", "--region us-west-2", NO_INSTANCE),
        code=5,
        money=NOTHING,
        launches=0,
        log="",
        also=(f"{LAUNCH}::test_full_everywhere_is_one_clear_refusal_and_nothing_is_left",),
    ),
    Case(
        row=3,
        fault="The account's vCPU quota is used up",
        how="`VcpuLimitExceeded@RunInstances`",
        script=("VcpuLimitExceeded@RunInstances",),
        play=_asked_once,
        sees=("g4dn.xlarge needs 4 vCPU", "request-service-quota-increase", "L-DB2E81BA", NO_INSTANCE),
        code=5,
        money=NOTHING,
        launches=0,
        log="",
        also=(f"{LAUNCH}::test_a_quota_stops_the_launch_and_names_the_way_out",),
    ),
    Case(
        row=4,
        fault="The spot quota is used up",
        how="`MaxSpotInstanceCountExceeded@RunInstances`, `--spot`; on-demand is not tried silently",
        script=("MaxSpotInstanceCountExceeded@RunInstances",),
        play=_spot,
        sees=("g4dn.xlarge needs 4 vCPU", "L-3819A6DF", NO_INSTANCE),
        code=5,
        money=NOTHING,
        launches=0,
        log="",
    ),
    Case(
        row=5,
        fault="AWS asks for slower calls, three times",
        how="`RequestLimitExceeded:3@RunInstances`, `RequestLimitExceeded:1@DescribeSubnets`; the token stays",
        script=("RequestLimitExceeded:3@RunInstances", "RequestLimitExceeded:1@DescribeSubnets"),
        hurried=True,
        play=_same_token,
        sees=(),
        code=0,
        money=TERMINATED,
    ),
    Case(
        row=6,
        fault="The launch takes effect, its answer is an internal error",
        how="`internal-after-effect@RunInstances`",
        script=("internal-after-effect@RunInstances",),
        play=_same_token,
        sees=(AGAIN.format("InternalError"),),
        code=0,
        money=TERMINATED,
    ),
    Case(
        row=7,
        fault="The launch takes effect, the connection closes without an answer",
        how="`lost-response@RunInstances`",
        script=("lost-response@RunInstances",),
        play=_same_token,
        sees=(AGAIN.format("ConnectionClosedError"),),
        code=0,
        money=TERMINATED,
    ),
    Case(
        row=8,
        fault="The same, and asked again the zone is full",
        how="`lost-response@RunInstances`, then `InsufficientInstanceCapacity:1@RunInstances`; the instance is found "
        "by its tags before another zone is asked",
        script=("lost-response@RunInstances",),
        play=_then_full,
        sees=("g4dn.xlarge, us-east-1a",),
        code=0,
        money=TERMINATED,
        also=(f"{LAUNCH}::test_after_an_unknown_effect_no_other_zone_is_asked_before_a_look",),
    ),
    Case(
        row=9,
        fault="AWS says that the launch's token was used with another request",
        how="`IdempotentParameterMismatch@RunInstances`",
        script=("IdempotentParameterMismatch@RunInstances",),
        hurried=True,
        play=_asked_once,
        sees=("(IdempotentParameterMismatch)", NO_INSTANCE),
        code=5,
        money="no instance is running",
        launches=0,
        log="",
    ),
    Case(
        row=10,
        way="launch",
        fault="The account may not launch, or not tag what it launches",
        how="`UnauthorizedOperation@RunInstances`: AWS checks both in the one call",
        script=("UnauthorizedOperation@RunInstances",),
        play=_asked_once,
        sees=("ec2:RunInstances", NO_INSTANCE),
        code=4,
        money="no instance is running",
        launches=0,
        log="",
        also=(f"{LAUNCH}::test_what_asking_again_cannot_change_stops_at_once",),
    ),
    Case(
        row=10,
        way="group",
        fault="The account may not make a security group",
        how="`UnauthorizedOperation@CreateSecurityGroup`",
        script=("UnauthorizedOperation@CreateSecurityGroup",),
        play=_denied_group,
        sees=("ec2:CreateSecurityGroup", NO_INSTANCE),
        code=4,
        money="no instance was started",
        launches=0,
        log="",
    ),
    Case(
        row=12,
        fault="EC2 does not know the new instance yet",
        how="`not-found:2s`; it is waited for, nothing is launched again",
        script=("not-found:2s",),
        play=_asked_once,
        sees=(),
        code=0,
        money=TERMINATED,
        also=(f"{LAUNCH}::test_a_new_instance_that_cannot_be_described_yet_is_not_taken_for_gone",),
    ),
    Case(
        row=13,
        fault="The instance ends before it runs",
        how="`dies-pending`; the next zone is asked, so there are two launches, one after the other's end",
        script=("dies-pending",),
        play=one_run,
        sees=("ended before it ran: Server.InternalError", "trying the next place", "g4dn.xlarge, us-east-1b"),
        code=0,
        money=TERMINATED,
        launches=2,
    ),
    Case(
        row=51,
        fault="The instance ends before it runs, for a reason that lies with the account (a key of KMS)",
        how="`refused-pending:Client.InternalError`; no other zone is asked",
        script=("refused-pending:Client.InternalError",),
        play=_asked_once,
        sees=("ended before it ran: Client.InternalError", "kms:CreateGrant", "it has ended, nothing is billed"),
        code=5,
        money="it has ended, nothing is billed any more",
        log="",
    ),
    Case(
        row=14,
        fault="The instance never leaves pending",
        how="`stays-pending`, `CLOUDTRAIN_BOOT_LIMIT=3s`",
        script=("stays-pending",),
        environment=(("CLOUDTRAIN_BOOT_LIMIT", "3s"),),
        play=one_run,
        sees=("did not start within 3 s", NO_INSTANCE),
        code=5,
        money="it was terminated; nothing is billed any more",
        log="",
    ),
    Case(
        row=48,
        way="no network",
        fault="The Region has no default network",
        how="`no-default-vpc`",
        script=("no-default-vpc",),
        own=True,
        play=one_run,
        sees=("no default network", "aws ec2 create-default-vpc"),
        code=5,
        money="nothing was created",
        launches=0,
        log="",
    ),
    Case(
        row=48,
        way="no address",
        fault="Instances in the network get no public address",
        how="`no-public-ip`",
        script=("no-public-ip",),
        own=True,
        play=one_run,
        sees=("could be reached", "--subnet"),
        code=5,
        money="nothing was created",
        launches=0,
        log="",
    ),
    Case(
        row=50,
        way="launch",
        fault="AWS answers the launch with a page of HTML",
        how="`html500@RunInstances:2`: the effect is taken for unknown",
        script=("html500@RunInstances:2",),
        hurried=True,
        play=_same_token,
        sees=(AGAIN.format("ResponseParserError"),),
        code=0,
        money=TERMINATED,
    ),
    Case(
        row=50,
        way="look",
        fault="AWS answers a look at the instance with a page of HTML",
        how="`html500@DescribeInstances:2`",
        script=("html500@DescribeInstances:2",),
        play=one_run,
        sees=(),
        code=0,
        money=TERMINATED,
    ),
)

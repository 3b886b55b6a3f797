"""Rows 11, 40, 45 to 47 and 49: what AWS does not let the account do, or not now."""

from __future__ import annotations

from tests.region.faults.matrix import TERMINATED, Case
from tests.region.faults.rows_launch import one_run
from tests.region.faults.scene import NAME, Scene

DEBT = "could not be terminated and may still be billed at $0.536 an hour"


def _stop(scene: Scene) -> None:
    scene.cli("stop", NAME, "--yes")
    assert TERMINATED in scene.screen


def _any_command(scene: Scene) -> None:
    said = scene.cli("instances", "--gpu", "T4")
    assert f"of {NAME}: ended, nothing of it is billed any more" in said and scene.code == 0


def _expires(scene: Scene) -> None:
    with scene.started(*scene.toy("--pause", "0.1", "--lines", "20", "--epochs", "2")) as command:
        scene.until(scene.here)
        scene.inject("expired-token")
        command.wait(100)


def _one_group(scene: Scene) -> None:
    scene.run()
    assert [call["effect"] for call in scene.calls("CreateSecurityGroup")].count(True) == 1


CASES = (
    Case(
        row=11,
        fault="The account may not terminate instances",
        how="`UnauthorizedOperation:*@TerminateInstances`; the results are pulled before",
        script=("UnauthorizedOperation:*@TerminateInstances",),
        play=one_run,
        sees=("ec2:TerminateInstances", "aws ec2 terminate-instances --instance-ids i-", "the results are safe in"),
        code=4,
        money=DEBT,
        alive="its own lease switches it off at",
        mend=_stop,
        then="the next command that talks to AWS tries again, `cloudtrain stop` at once",
        also=(
            "tests/region/whole_path/test_clean.py::test_a_failed_end_is_remembered_shown_and_paid_by_the_next_command",
        ),
    ),
    Case(
        row=40,
        way="for a while",
        fault="AWS is unavailable when the instance is to be terminated, five times",
        how="`Unavailable:5@TerminateInstances`",
        script=("Unavailable:5@TerminateInstances",),
        hurried=True,
        play=one_run,
        sees=(),
        code=0,
        money=TERMINATED,
        also=("tests/region/ec2/test_provider.py::test_termination_is_asked_for_until_it_is_answered",),
    ),
    Case(
        row=40,
        way="for ever",
        fault="AWS stays unavailable when the instance is to be terminated",
        how="`Unavailable:*@TerminateInstances`",
        script=("Unavailable:*@TerminateInstances",),
        hurried=True,
        play=one_run,
        sees=("the results are safe in", f"cloudtrain stop {NAME} tries again"),
        code=6,
        money=DEBT,
        alive="its own lease switches it off at",
        mend=_any_command,
        then="the next command that talks to AWS ends it, here `cloudtrain instances`",
    ),
    Case(
        row=45,
        fault="This computer's clock is ten minutes wrong",
        how="`clock-skew`",
        script=("clock-skew",),
        play=one_run,
        sees=("clock", "10 min", "network time"),
        code=4,
        money="nothing was created",
        launches=0,
        log="",
    ),
    Case(
        row=46,
        way="missing",
        fault="The Region has no parameters that name images",
        how="`ssm-missing`; the newest image is found by its name, and the plan says so",
        script=("ssm-missing",),
        own=True,
        play=one_run,
        sees=("parameter",),
        code=0,
        money=TERMINATED,
    ),
    Case(
        row=46,
        way="denied",
        fault="The account may not read parameters",
        how="`ssm-denied`; the same",
        script=("ssm-denied",),
        play=one_run,
        sees=("ssm:",),
        code=0,
        money=TERMINATED,
    ),
    Case(
        row=47,
        way="there already",
        fault="The answer to making the security group is lost, and asked again it is there already",
        how="`lost-response@CreateSecurityGroup`",
        script=("lost-response@CreateSecurityGroup",),
        play=_one_group,
        sees=(),
        code=0,
        money=TERMINATED,
    ),
    Case(
        row=47,
        way="in use",
        fault="The security group cannot be deleted at first: something still uses it",
        how="`DependencyViolation:2@DeleteSecurityGroup`",
        script=("DependencyViolation:2@DeleteSecurityGroup",),
        play=one_run,
        sees=("inventory: 0 instances, 0 volumes, 0 security groups of this run in us-east-1",),
        code=0,
        money=TERMINATED,
        also=("tests/region/ec2/test_provider.py::test_a_group_that_stays_in_use_is_waited_for_once_the_end_is_told",),
    ),
    Case(
        row=49,
        way="before",
        fault="The AWS session has expired before the run",
        how="`expired-token`",
        script=("expired-token",),
        play=one_run,
        sees=("session", "has expired", "aws login"),
        code=4,
        money="nothing was created",
        launches=0,
        log="",
    ),
    Case(
        row=49,
        way="in training",
        fault="The AWS session expires in mid-training",
        how="`expired-token` once the log comes; the log and the results come over SSH and are complete",
        play=_expires,
        sees=("has expired", "aws login", "the results are safe in"),
        code=4,
        money=DEBT,
        alive="its own lease switches it off at",
        mend=_stop,
        then="`cloudtrain stop` after a new sign-in, or the lease",
    ),
)

"""What a user of EC2 can run into, through the real command line: one clear error each, its exit code, nothing left."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.emulator.core import Timing
from cloudtrain.emulator.region import Region
from tests.whole_path.place import Place
from tests.whole_path.test_story import sums_hold

QUICK = Timing(pending_s=0.1, boot_s=0.1, shutting_down_s=0.1)


@dataclass
class Account:
    """One account of the emulated region, and the command line of somebody who uses it."""

    region: Region
    place: Place

    def run(self, *argv: str, code: int, name: str = "calm-otter") -> str:
        """`cloudtrain run ARGV` with the toy job; what it said."""
        return self.place.cli(*self.place.toy(name, flags=argv), code=code).stderr.decode()

    def launches(self) -> list[tuple[str, str]]:
        """(type, zone or subnet's zone) of every RunInstances, in order."""
        zones = {
            subnet.id: subnet.availability_zone
            for call in self.region.calls("RunInstances")
            for subnet in _subnets(self.region, call["region"])
        }
        return [
            (told["InstanceType"], zones[re.findall(r"subnet-[0-9a-f]+", str(told))[0]])
            for told in (call["parameters"] for call in self.region.calls("RunInstances"))
        ]


def _subnets(region: Region, name: str) -> list[Any]:
    from moto.ec2.models import ec2_backends

    return list(ec2_backends[region.account][name].describe_subnets())


@pytest.fixture
def account_of(tmp_path: Path) -> Iterator[Callable[..., Account]]:
    """Makes an account with faults; its user has no other AWS settings than these."""
    with ExitStack() as stack:

        def make(*faults: str, environment: Mapping[str, str] | None = None, **options: Any) -> Account:
            region = stack.enter_context(Region(tmp_path / "region", script=faults, timing=QUICK, **options))
            (tmp_path / "work").mkdir()
            (tmp_path / "aws").mkdir()
            (tmp_path / "aws" / "config").write_text("[profile student]\nregion = us-east-1\n[profile course]\n")
            own = {
                # Empty is unset, for botocore as for us; the developer's own must not shine through.
                **{key: "" for key in os.environ if key.startswith("AWS_")},
                "AWS_CONFIG_FILE": str(tmp_path / "aws" / "config"),
                "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "aws" / "credentials"),
                **region.environment(),
                **(environment or {}),
            }
            flags = ["--instance", "g4dn.xlarge"]
            return Account(region, Place("ec2", flags, tmp_path / "home", tmp_path / "work", own))

        yield make


def one_clear_error(told: str) -> str:
    """The error's line; there is one, with what to do, and with what it means for money."""
    errors = [line for line in told.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, told
    hints = [line for line in told.splitlines() if line.startswith("hint:  ")]
    assert len(hints) == 1, told
    assert re.search(r"nothing|no instance is running|not billed|terminated|lease", hints[0]), told
    message = errors[0].removeprefix("error: ")
    assert not message.endswith(".") and "\n" not in message
    return message


@dataclass(frozen=True)
class Case:
    """A refusal before anything exists: what is asked, what is wrong, the exit code, and words of the answer."""

    id: str
    code: int
    words: tuple[str, ...]
    argv: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


NO_KEYS = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
CASES = [
    Case("typing mistake", 2, ("no instance type g4dn.xlrage", "g4dn.xlarge"), ("--instance", "g4dn.xlrage")),
    Case("no GPU", 5, ("t3.micro cannot be used", "no GPU"), ("--instance", "t3.micro")),
    Case("AMD", 5, ("g4ad.xlarge cannot be used", "AMD"), ("--instance", "g4ad.xlarge")),
    Case("Habana", 5, ("dl1.24xlarge cannot be used", "Habana"), ("--instance", "dl1.24xlarge")),
    Case(
        "not in this Region",
        5,
        ("g6.xlarge is not offered in us-west-1", "cloudtrain instances --region us-west-1"),
        ("--instance", "g6.xlarge", "--region", "us-west-1"),
    ),
    Case("no default VPC", 5, ("no default network", "create-default-vpc"), faults=("no-default-vpc",)),
    Case("no public address", 5, ("could be reached", "--subnet"), faults=("no-public-ip",)),
    Case(
        "quota 0",
        5,
        (
            "vCPU",
            "aws service-quotas request-service-quota-increase --service-code ec2 --quota-code L-DB2E81BA "
            "--desired-value 4 --region us-east-1",
        ),
        faults=("quota:0",),
    ),
    Case("no credentials", 4, ("no AWS credentials were found", "aws login"), environment=NO_KEYS),
    Case("expired", 4, ("session", "has expired", "aws login"), faults=("expired-token",)),
    Case("unknown key", 4, ("does not know the access key",), faults=("bad-credentials",)),
    Case("no such profile", 4, ('profile "tutor"', "course, student"), ("--profile", "tutor")),
    Case(
        "no Region",
        2,
        ("no AWS Region is set", "--region us-east-1", "AWS_REGION"),
        environment={"AWS_REGION": "", "AWS_DEFAULT_REGION": ""},
    ),
    Case("wrong clock", 4, ("clock", "10 min", "network time"), faults=("clock-skew",)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_refused_before_anything_exists(case: Case, account_of: Callable[..., Account]) -> None:
    account = account_of(*case.faults, environment=case.environment)
    told = account.run(*case.argv, code=case.code)
    one_clear_error(told)
    for word in case.words:
        assert word in told, told
    assert "Plan for" not in told
    assert not any(call["effect"] for call in account.region.calls())
    assert not any(account.region.inventory().values())
    # A run that never was leaves no row and no folder behind.
    assert account.place.cli("ls", "-q").stdout == b""
    assert not (account.place.cwd / "runs").exists() or not list((account.place.cwd / "runs").iterdir())


@pytest.mark.parametrize(("fault", "word"), [("ssm-missing", "parameter"), ("ssm-denied", "ssm:")])
def test_without_ssm_the_image_is_found_by_name_and_the_plan_says_so(
    fault: str, word: str, account_of: Callable[..., Account]
) -> None:
    account = account_of(fault)
    told = account.run("--plan", code=0)
    assert "Plan for calm-otter" in told and word in told.lower(), told
    assert account.region.calls("DescribeImages")
    assert not any(call["effect"] for call in account.region.calls())


def test_a_quota_that_is_used_up_at_the_launch(account_of: Callable[..., Account]) -> None:
    account = account_of("VcpuLimitExceeded@RunInstances")
    told = account.run(code=5)
    message = one_clear_error(told)
    assert "g4dn.xlarge needs 4 vCPU" in message and "request-service-quota-increase" in told
    assert len(account.region.calls("RunInstances")) == 1
    assert "inventory: 0 instances, 0 volumes, 0 security groups" in told
    assert not any(account.region.inventory().values())
    assert account.place.shown("calm-otter")["instance"]["life"] == "none"


def test_capacity_out_in_every_zone(account_of: Callable[..., Account]) -> None:
    account = account_of("capacity:*")
    told = account.run("--instance", "g4dn.xlarge,g6.xlarge", code=5)
    message = one_clear_error(told)
    assert "no g4dn.xlarge or g6.xlarge free in us-east-1" in message and "nothing is billed" in told
    asked = account.launches()
    # Each place once: AWS's SDK would ask a full zone again by itself. The first type first.
    assert len(asked) == len(set(asked)) >= 6
    types = [kind for kind, _ in asked]
    assert types == sorted(types) and set(types) == {"g4dn.xlarge", "g6.xlarge"}
    assert "inventory: 0 instances, 0 volumes, 0 security groups" in told
    assert not any(account.region.inventory().values())


def test_the_second_type_is_used_when_the_first_is_out(account_of: Callable[..., Account]) -> None:
    account = account_of("capacity:*:g4dn.xlarge")
    told = account.run("--instance", "g4dn.xlarge,g6.xlarge", code=0)
    asked = account.launches()
    assert [kind for kind, _ in asked].count("g6.xlarge") == 1 and asked[-1][0] == "g6.xlarge"
    assert len(set(asked)) == len(asked)
    assert "g6.xlarge, us-east-1" in told and "no g4dn.xlarge in us-east-1a" in told
    tokens = [call["parameters"]["ClientToken"] for call in account.region.calls("RunInstances")]
    assert len(set(tokens)) == len(tokens)
    assert not any(account.region.inventory().values())


def test_throttling_is_waited_out_with_the_same_token(account_of: Callable[..., Account]) -> None:
    account = account_of("RequestLimitExceeded:2@RunInstances", "RequestLimitExceeded:1@DescribeSubnets")
    account.run(code=0)
    calls = account.region.calls("RunInstances")
    assert [call["effect"] for call in calls] == [False, False, True]
    assert len({call["parameters"]["ClientToken"] for call in calls}) == 1
    assert not any(account.region.inventory().values())


def test_the_right_to_launch_is_missing(account_of: Callable[..., Account]) -> None:
    account = account_of("UnauthorizedOperation:*@RunInstances")
    told = account.run(code=4)
    assert "ec2:RunInstances" in one_clear_error(told) + told
    assert "inventory: 0 instances, 0 volumes, 0 security groups" in told
    assert not any(account.region.inventory().values())


def test_a_wrong_host_key_is_fatal_and_nothing_is_sent(account_of: Callable[..., Account]) -> None:
    account = account_of("wrong-host-key")
    told = account.run(code=6)
    message = one_clear_error(told)
    assert "does not show the host key of i-" in message
    shown = told[told.index("error: ") :]
    assert len(set(re.findall(r"SHA256:[A-Za-z0-9+/]{43}", shown))) == 2, shown
    assert "nothing was sent" in shown
    assert len(account.region.calls("RunInstances")) == 1
    assert "inventory: 0 instances, 0 volumes, 0 security groups" in told
    assert not any(account.region.inventory().values())
    assert account.place.shown("calm-otter")["instance"]["life"] == "terminated"


def test_an_instance_that_may_not_be_terminated_is_shouted_about(account_of: Callable[..., Account]) -> None:
    account = account_of("UnauthorizedOperation:*@TerminateInstances")
    told = account.run(code=4)
    [left] = account.region.inventory()["instances"]
    [instance] = account.region.machines().values()
    message = one_clear_error(told)
    assert instance.id in message and instance.id in str(left)
    assert "could not be terminated and may still be billed at $0.536 an hour" in message
    assert f"aws ec2 terminate-instances --instance-ids {instance.id}" in told
    assert "the results are safe in" in told and "lease switches it off at 20" in told
    sums_hold(account.place.folder("calm-otter"))
    # What ends it if nobody does: the timer on the machine itself.
    assert instance.timers["cloudtrain-lease.timer"] > 0
    assert "its instance may still be billed: cloudtrain stop calm-otter" in account.place.cli("ls").stdout.decode()
    # The right is given: the same command that ends a run pays the debt.
    account.region.faults.replace([])
    paid = account.place.cli("stop", "calm-otter", "--yes").stderr.decode()
    assert f"{instance.id} terminated, nothing is billed any more" in paid
    assert not any(account.region.inventory().values())
    assert "still" not in account.place.cli("ls").stdout.decode()
    assert account.place.shown("calm-otter")["instance"]["life"] == "terminated"


def test_programs_are_told_that_money_is_being_spent(account_of: Callable[..., Account]) -> None:
    import json

    account = account_of("UnauthorizedOperation:*@TerminateInstances")
    done = account.place.cli(*account.place.toy("json-otter", flags=("--json",)), code=4)
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["type"], last["ok"], last["exit"]) == ("result", False, 4)
    assert last["error"]["code"] == "release_pending" and last["billing"] == {"running": True}
    assert [json.loads(line)["type"] for line in done.stdout.splitlines()].count("result") == 1


def test_a_machine_that_somebody_ends_saves_what_it_can_and_the_run_says_so(
    account_of: Callable[..., Account],
) -> None:
    account = account_of("terminated:6")
    place = account.place
    done = place.cli(*place.toy("gone-run", "--lines", "20", "--pause", "0.1", "--epochs", "500"), code=7, timeout=200)
    told = done.stderr.decode()
    assert "gone-run was ended with its machine" in told and "had already ended: Client.UserInitiatedShutdown" in told
    assert (place.folder("gone-run") / "console.log").stat().st_size > 0
    sums_hold(place.folder("gone-run"))
    assert not any(account.region.inventory().values())

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

from cloudtrain.emulator.aws.core import Timing
from cloudtrain.emulator.region import Region
from tests.region.whole_path.place import Place

QUICK = Timing(pending_s=0.1, boot_s=0.1, shutting_down_s=0.1)


@dataclass
class Account:
    """One account of the emulated region, and the command line of somebody who uses it."""

    region: Region
    place: Place

    def run(self, *argv: str, code: int, name: str = "calm-otter") -> str:
        """`cloudtrain run ARGV` with the toy job; what it said."""
        return self.place.cli(*self.place.toy(name, flags=argv), code=code).stderr.decode()


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
    Case("unknown key", 4, ("does not know the access key",), faults=("bad-credentials",)),
    Case("no such profile", 4, ('profile "tutor"', "course, student"), ("--profile", "tutor")),
    Case(
        "no Region",
        2,
        ("no AWS Region is set", "--region us-east-1", "AWS_REGION"),
        environment={"AWS_REGION": "", "AWS_DEFAULT_REGION": ""},
    ),
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


def test_programs_are_told_that_money_is_being_spent(account_of: Callable[..., Account]) -> None:
    import json

    account = account_of("UnauthorizedOperation:*@TerminateInstances")
    done = account.place.cli(*account.place.toy("json-otter", flags=("--json",)), code=4)
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["type"], last["ok"], last["exit"]) == ("result", False, 4)
    assert last["error"]["code"] == "release_pending" and last["billing"]["running"]
    assert [json.loads(line)["type"] for line in done.stdout.splitlines()].count("result") == 1

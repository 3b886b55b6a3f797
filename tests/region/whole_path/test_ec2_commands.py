"""The commands beside `run`: doctor, instances, ssh, and an instance of the user's own, on a real command line."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from cloudtrain.emulator.region import Region
from cloudtrain.transport.ssh_keys import new_key, public_key
from tests import policy
from tests.region.whole_path.test_ec2_refusals import NO_KEYS, Account, account_of, one_clear_error

__all__ = ["account_of"]
Opens = Callable[..., Account]


def test_doctor_finds_a_good_account_good(account_of: Opens) -> None:
    account = account_of()
    told = account.place.cli("doctor", "--instance", "g4dn.xlarge").stdout.decode()
    assert not [line for line in told.splitlines() if line.startswith("fail")], told
    assert re.match(r"all is well|0 failed", told.splitlines()[-1]), told
    assert not any(call["effect"] for call in account.region.calls())
    assert policy.uncovered(account.region.calls()) == set()


def test_doctor_gives_the_exact_command_for_a_quota_of_zero(account_of: Opens) -> None:
    account = account_of("quota:0")
    told = account.place.cli("doctor", "--instance", "g4dn.xlarge", code=5).stdout.decode()
    [line] = [line for line in told.splitlines() if line.startswith("fail")]
    assert "quota" in line and "needs 4 vCPU, the quota allows 0" in line
    assert (
        "fix: aws service-quotas request-service-quota-increase --service-code ec2 --quota-code L-DB2E81BA "
        "--desired-value 4 --region us-east-1" in told
    )
    found = json.loads(account.place.cli("doctor", "--json", code=5).stdout)
    assert found["ok"] is False
    assert [check["name"] for check in found["checks"] if check["status"] == "fail"] == ["quota"]


def test_doctor_without_credentials_says_how_to_sign_in(account_of: Opens) -> None:
    account = account_of(environment=NO_KEYS)
    told = account.place.cli("doctor", code=5).stdout.decode()
    assert "no AWS credentials were found" in told and "fix: aws login" in told
    assert "--dry-run" in told.splitlines()[-1]


def test_instances_lists_types_with_price_quota_and_zones(account_of: Opens) -> None:
    account = account_of()
    told = account.place.cli("instances", "--gpu", "T4").stdout.decode()
    header, *rows = told.splitlines()
    assert header.split()[:2] == ["INSTANCE", "GPU"] and "YOUR QUOTA" in header
    assert any(row.startswith("g4dn.xlarge") and "T4" in row and "vCPU free" in row for row in rows)
    assert not any(row.startswith(("g6.", "g5.")) for row in rows)
    assert not any(call["effect"] for call in account.region.calls())
    rows = json.loads(account.place.cli("instances", "--json").stdout)["rows"]
    assert {"g4dn.xlarge", "g6.xlarge"} <= {row["type"] for row in rows}


def test_instances_offline_asks_nobody(account_of: Opens) -> None:
    account = account_of(environment={**NO_KEYS, "AWS_REGION": "", "AWS_DEFAULT_REGION": ""})
    found = json.loads(account.place.cli("instances", "--offline", "--json").stdout)
    assert any(row["type"] == "g4dn.xlarge" and row["price_per_hour"] > 0 for row in found["rows"])
    assert "g4dn.xlarge" in account.place.cli("instances", "--offline").stdout.decode()
    assert not account.region.calls()


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH client")
def test_the_plan_names_price_limit_and_who_ends_it(account_of: Opens) -> None:
    account = account_of()
    told = account.place.cli("run", "--model", "3", "--instance", "g4dn.xlarge", "--plan").stderr.decode()
    for said in ("g4dn.xlarge", "1x T4 16 GB", "0.536", "Limit    2h 00m", "At most  $1.08", "laptop on or off"):
        assert said in told, said
    # Without a terminal nothing is launched unless --yes says so; and then the amount is named.
    told = account.place.cli("run", "--model", "3", "--instance", "g4dn.xlarge", code=2).stderr.decode()
    assert "cannot ask for confirmation without a terminal" in told and "--yes to accept at most $1.08" in told
    assert "(nothing was started)" in told
    assert not any(call["effect"] for call in account.region.calls())


def test_ssh_opens_the_runs_machine_by_its_pinned_key_alone(account_of: Opens) -> None:
    account = account_of()
    place = account.place
    place.cli(*place.toy("open-otter", "--pause", "0.5", "--epochs", "500", flags=("-d",)))
    done = place.cli("ssh", "open-otter", "--", "echo", "it's $HOME", "&& false")
    assert done.stdout == b"it's $HOME && false\n"
    assert place.cli("ssh", "open-otter", "--", "sh", "-c", "exit 7", code=7).stdout == b""
    assert place.cli("ssh", "open-otter", "--", "echo one; echo two | tr t d; exit 5", code=5).stdout == b"one\ndwo\n"
    # The entry for editors leads to the same machine, by the same key.
    account.place.environment["HOME"] = str(account.place.cwd)
    asked = place.cli("ssh", "open-otter", "--setup", code=2).stderr.decode()
    assert "is written, and your own file is unchanged" in asked and not (place.cwd / ".ssh/config").exists()
    told = place.cli("ssh", "open-otter", "--setup", "--yes").stderr.decode()
    assert "VS Code: Remote-SSH, host ct-open-otter" in told
    folder = account.place.cwd / ".ssh"
    assert (folder / "config").read_text() == "Include cloudtrain/config\n"
    entry = ["ssh", "-F", str(folder / "cloudtrain" / "config"), "ct-open-otter", "echo from the editor"]
    done = subprocess.run(entry, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert done.stdout == b"from the editor\n", done.stderr
    # Somebody else answers at the address: what is shown there is another key than the pinned one.
    [machine] = account.region.machines().values()
    key = machine.root / "etc" / "ssh" / "ssh_host_ed25519_key"
    pinned = {path: path.read_bytes() for path in (key, key.with_name(key.name + ".pub"))}
    key.unlink()
    new_key(key)
    key.with_name(key.name + ".pub").write_text(public_key(key) + "\n")
    _reload_ssh(account)
    refused = place.cli("ssh", "open-otter", "--", "echo", "secret", code=255)
    assert b"secret" not in refused.stdout and b"Host key verification failed" in refused.stderr
    for path, text in pinned.items():
        path.write_bytes(text)
    _reload_ssh(account)
    place.cli("stop", "open-otter", "--yes")
    assert not any(account.region.inventory().values())


def _reload_ssh(account: Account) -> None:
    """As root of the machine would: its sshd reads its host keys again."""
    [machine] = account.region.core.lives.machines.values()
    loop = account.region.core.loop

    async def reload() -> None:
        machine.systemd.systemctl(["reload", "ssh"])

    asyncio.run_coroutine_threadsafe(reload(), loop).result(10)


@pytest.fixture
def own_machine(tmp_path: Path) -> Callable[[Region], tuple[str, Path]]:
    """Launches an instance as its user would by other means; its id and the private key that it trusts."""

    def make(region: Region) -> tuple[str, Path]:
        identity = tmp_path / "my key"
        public = new_key(identity)
        ec2 = ec2_of(region)
        x86 = [{"Name": "architecture", "Values": ["x86_64"]}]
        image = ec2.describe_images(Owners=["amazon"], Filters=x86)["Images"][0]["ImageId"]
        group = ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"][0]["GroupId"]
        me = [{"CidrIp": "127.0.0.1/32"}]
        rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": me}
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
        config = "#cloud-config\n" + json.dumps({"ssh_authorized_keys": [public]})
        told = ec2.run_instances(
            ImageId=image,
            InstanceType="g4dn.xlarge",
            MinCount=1,
            MaxCount=1,
            SecurityGroupIds=[group],
            UserData=config,
        )["Instances"][0]
        ec2.get_waiter("instance_running").wait(
            InstanceIds=[told["InstanceId"]], WaiterConfig={"Delay": 1, "MaxAttempts": 30}
        )
        return told["InstanceId"], identity

    return make


def ec2_of(region: Region) -> Any:
    told = region.environment()
    return boto3.client(
        "ec2",
        region_name=told["AWS_REGION"],
        endpoint_url=region.endpoint_url,
        aws_access_key_id=told["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=told["AWS_SECRET_ACCESS_KEY"],
    )


def state_of(region: Region, instance: str) -> str:
    answer = ec2_of(region).describe_instances(InstanceIds=[instance])
    return str(answer["Reservations"][0]["Instances"][0]["State"]["Name"])


def test_an_instance_of_the_users_own_is_used_and_not_ended(account_of: Opens, own_machine: Any) -> None:
    account = account_of()
    instance, identity = own_machine(account.region)
    account.place.flags = ["--instance-id", instance, "--identity", str(identity)]
    told = account.run(code=0, name="own-otter")
    assert f"{instance} is yours and goes on running" in told and "from the instance's console output" in told
    assert state_of(account.region, instance) == "running"
    assert not account.region.calls("TerminateInstances") and not account.region.calls("StopInstances")
    assert not account.region.calls("CreateSecurityGroup") and len(account.region.calls("RunInstances")) == 1
    assert account.place.shown("own-otter")["state"] == "succeeded"
    # It was stopped: it is started, used, and stopped again.
    ec2_of(account.region).stop_instances(InstanceIds=[instance])
    account.place.wait_for(lambda: state_of(account.region, instance) == "stopped")
    told = account.run(code=0, name="woken-otter")
    assert f"{instance} stopped again; its disk is billed as before" in told
    assert state_of(account.region, instance) == "stopped"
    assert not account.region.calls("TerminateInstances")


def test_an_instance_that_there_is_not(account_of: Opens, own_machine: Any) -> None:
    account = account_of()
    account.place.flags = ["--instance-id", "i-0123456789abcdef0"]
    told = account.run(code=2)
    assert "there is no instance i-0123456789abcdef0 in us-east-1" in one_clear_error(told)
    assert not any(call["effect"] for call in account.region.calls())


def test_a_full_run_calls_nothing_that_the_policy_does_not_allow(account_of: Opens) -> None:
    account = account_of()
    told = account.run(code=0)
    assert policy.uncovered(account.region.calls()) == set()
    assert {"RunInstances", "TerminateInstances", "DeleteSecurityGroup"} <= {
        call["action"] for call in account.region.calls()
    }
    assert re.search(r"inventory: 0 instances, 0 volumes, 0 security groups of this run in us-east-1", told)

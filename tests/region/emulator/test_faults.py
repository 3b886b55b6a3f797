"""The fault language, and each fault where a client meets it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import boto3
import paramiko
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError
from botocore.parsers import ResponseParserError

from cloudtrain.core.errors import UsageError
from cloudtrain.emulator import faults
from cloudtrain.emulator.aws.core import Timing


def code(call: Callable[[], Any]) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


def until(holds: Callable[[], Any], limit: float = 20.0) -> None:
    deadline = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- the language ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "values", "action", "left"),
    [
        ("capacity:us-east-1a", "capacity", ("us-east-1a",), None, faults.FOREVER),
        ("capacity:*:g4dn.xlarge", "capacity", ("*", "g4dn.xlarge"), None, faults.FOREVER),
        ("RequestLimitExceeded:3@RunInstances", "error", ("RequestLimitExceeded", "3"), "RunInstances", 3),
        (
            "error:UnauthorizedOperation@TerminateInstances",
            "error",
            ("UnauthorizedOperation",),
            "TerminateInstances",
            faults.FOREVER,
        ),
        ("lost-response@RunInstances", "lost-response", (), "RunInstances", 1),
        ("html500@DescribeInstances:2", "html500", (), "DescribeInstances", 2),
        ("slow-boot:90s", "slow-boot", ("90s",), None, faults.FOREVER),
        ("dies-pending:*", "dies-pending", ("*",), None, faults.FOREVER),
        ("cut:10k:2", "cut", ("10k", "2"), None, 2),
    ],
)
def test_a_text_is_read_as_meant(text, kind, values, action, left):
    (fault,) = faults.parse([text])
    assert (fault.kind.name, fault.values, fault.action, fault.left) == (kind, values, action, left)


def test_numbers_have_units():
    assert [faults.parse([f"slow-boot:{t}"])[0].number(0, 0) for t in ("90", "90s", "2m", "500ms")] == [
        90,
        90,
        120,
        0.5,
    ]
    assert [faults.parse([f"cut:{t}"])[0].number(0, 0) for t in ("90", "10k", "1MiB")] == [90, 10_000, 1 << 20]
    assert len(faults.parse(["quota:0, no-banner", "wrong-host-key"])) == 3


@pytest.mark.parametrize(
    "text",
    ["bogus", "capacity", "slow-boot", "slow-boot:soon", "lost-response", "wrong-host-key:3", "quota:0@RunInstances",
     "html500@", "error:NoSuchCode@RunInstances", "RequestLimitExceeded", "RequestLimitExceeded:x@RunInstances",
     "html500@RunInstances:0", "cut::3"],
)  # fmt: skip
def test_a_text_that_is_no_fault_is_refused_with_what_exists(text):
    with pytest.raises(UsageError) as caught:
        faults.parse([text])
    assert caught.value.code == "bad_fault" and "one of: " in caught.value.hint
    assert text.split(":")[0].split("@")[0] in caught.value.message or "complete" in caught.value.message


def test_every_fault_is_described_once_and_its_description_is_readable():
    rows = faults.describe()
    assert len(rows) == len(faults.TABLE) == len({row[0] for row in rows}) == len({row[1] for row in rows})
    assert all(written.startswith(name) for (written, _, _), name in zip(rows, faults.TABLE, strict=True))
    played = {number for _, _, numbers in rows for number in numbers}
    assert played >= {1, 2, 3, 4, 5, 6, 7, 8, *range(10, 25), 33, 34, 35, 36, 37, 40, 45, 46, 48, 49, 50}


# -- in the API --------------------------------------------------------------------------------------------------------


def test_an_ordered_error_strikes_so_often_and_with_its_status(open_account):
    account = open_account("RequestLimitExceeded:2@RunInstances")
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            account.launch()
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    account.launch()
    assert [c["effect"] for c in account.region.calls("RunInstances")] == [False, False, True]
    assert account.region.calls("RunInstances")[0]["fault"] == "RequestLimitExceeded:2@RunInstances"


def test_a_lost_answer_ends_its_connection(open_account):
    account = open_account("lost-response@DescribeVpcs")
    with pytest.raises(ConnectionClosedError):
        account.ec2.describe_vpcs()


@pytest.mark.parametrize("script", ["lost-response@RunInstances", "internal-after-effect@RunInstances"])
def test_an_effect_without_an_answer_is_found_again_by_its_token(open_account, script):
    account = open_account(script)
    with pytest.raises((ClientError, BotoCoreError)):
        account.launch(ClientToken="t")
    (there,) = account.region.inventory()["instances"]
    assert account.launch(ClientToken="t") == there["id"]
    assert [c["effect"] for c in account.region.calls("RunInstances")] == [True, False]


def test_html_and_slowness(open_account):
    account = open_account("html500@DescribeVpcs", "slow-api:400ms@DescribeSubnets:1")
    with pytest.raises(ResponseParserError):
        account.ec2.describe_vpcs()
    assert account.ec2.describe_vpcs()["Vpcs"]
    account.ec2.describe_subnets()
    account.ec2.describe_subnets()
    first, second = (c["seconds"] for c in account.region.calls("DescribeSubnets"))
    assert first >= 0.4 and second < first


def test_quota_zero(open_account):
    account = open_account("quota:0")
    assert (
        account.aws("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode="L-DB2E81BA")["Quota"]["Value"]
        == 0
    )
    assert code(account.launch) == "VcpuLimitExceeded"
    assert code(lambda: account.launch(InstanceMarketOptions={"MarketType": "spot"})) == "MaxSpotInstanceCountExceeded"


def test_capacity_of_one_type_everywhere(open_account):
    account = open_account("capacity:*:g4dn.xlarge")
    assert code(account.launch) == "InsufficientInstanceCapacity"
    account.launch(InstanceType="g5.xlarge")


@pytest.mark.parametrize(
    ("script", "ec2", "sts"),
    [
        ("expired-token", "RequestExpired", "ExpiredTokenException"),
        ("clock-skew", "RequestExpired", "SignatureDoesNotMatch"),
        ("bad-credentials", "AuthFailure", "InvalidClientTokenId"),
    ],
)
def test_credentials_that_do_not_work(open_account, script, ec2, sts):
    account = open_account(script)
    assert code(account.ec2.describe_instances) == ec2
    assert code(account.aws("sts").get_caller_identity) == sts


def test_credentials_that_expire_later(open_account):
    account = open_account()
    account.ec2.describe_vpcs()
    account.region.inject("expired-token:1ms")
    assert code(account.ec2.describe_vpcs) == "RequestExpired"


def test_parameters_missing_or_denied(open_account):
    assert code(open_account("ssm-missing").image) == "ParameterNotFound"
    assert code(open_account("ssm-denied").image) == "AccessDeniedException"


def test_no_default_vpc_and_no_public_address(open_account):
    bare = open_account("no-default-vpc")
    assert not bare.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    assert code(lambda: bare.ec2.create_security_group(GroupName="x", Description="x")) == "VPCIdNotSpecified"
    assert code(lambda: bare.launch(SecurityGroupIds=[])) == "VPCIdNotSpecified"
    private = open_account("no-public-ip")
    assert not any(s["MapPublicIpOnLaunch"] for s in private.ec2.describe_subnets()["Subnets"])
    assert not private.wait(private.launch(), "running").get("PublicIpAddress")


def test_faults_can_be_ordered_while_the_region_runs(account):
    account.ec2.describe_vpcs()
    account.region.inject("error:UnauthorizedOperation@DescribeVpcs")
    assert code(account.ec2.describe_vpcs) == "UnauthorizedOperation"
    account.region.faults.replace([])
    account.ec2.describe_vpcs()


# -- of instances ------------------------------------------------------------------------------------------------------


def test_a_new_instance_is_not_found_for_a_while(open_account):
    account = open_account("not-found:1s")
    instance = account.launch()
    assert code(lambda: account.look(instance)) == "InvalidInstanceID.NotFound"
    assert not account.ec2.describe_instances()["Reservations"]
    until(lambda: account.ec2.describe_instances()["Reservations"])
    account.wait(instance, "running")


def test_dies_while_pending_once(open_account):
    account = open_account("dies-pending")
    first = account.wait(account.launch(), "terminated")
    assert first["StateReason"]["Code"] == "Server.InternalError"
    account.wait(account.launch(), "running")


def test_stays_pending_until_terminated(open_account):
    account = open_account("stays-pending")
    instance = account.launch()
    time.sleep(0.5)
    assert account.look(instance)["State"]["Name"] == "pending"
    account.ec2.terminate_instances(InstanceIds=[instance])
    account.wait(instance, "terminated")


def test_somebody_terminates_it(open_account):
    account = open_account("terminated:300ms")
    assert account.wait(account.launch(), "terminated")["StateReason"]["Code"] == "Client.UserInitiatedShutdown"


def test_a_spot_notice_is_readable_on_the_machine_and_then_kept(open_account):
    account = open_account("spot-notice:0s:4s")
    instance = account.launch(InstanceMarketOptions={"MarketType": "spot"})
    script = """
import json, os, urllib.request
url = os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"] + "/latest/meta-data/spot/instance-action"
print(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url).read().decode())
"""
    code_, out, err = account.run(instance, "python3 -", script.encode())
    assert code_ == 0, err
    assert json.loads(out)["action"] == "terminate"
    assert account.wait(instance, "terminated")["StateReason"]["Code"] == "Server.SpotInstanceTermination"


def test_reboots_by_itself_once(open_account):
    account = open_account("reboot:300ms")
    instance = account.launch()
    account.wait(instance, "running")
    until(lambda: "boot 2" in account.region.machines()[instance].console)
    account.login(instance).close()
    assert "boot 3" not in account.region.machines()[instance].console


# -- of the link and sshd ----------------------------------------------------------------------------------------------


def test_slow_boot_refuses_connections_first(open_account):
    account = open_account("slow-boot:2s")
    instance = account.launch()
    host, port = account.address(instance)
    import socket

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port), timeout=5).close()
    account.login(instance).close()


def test_no_banner_for_a_while(open_account):
    account = open_account("no-banner:1500ms")
    instance = account.launch()
    started = time.monotonic()
    with pytest.raises((paramiko.SSHException, OSError, EOFError)):
        _impatient(account, instance)
    time.sleep(max(0.0, 2.0 - (time.monotonic() - started)))
    account.login(instance).close()


def _impatient(account: Any, instance: str) -> None:
    import socket

    host, port = account.address(instance)
    deadline = time.monotonic() + 10
    while True:
        try:
            link = socket.create_connection((host, port), timeout=5)
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
    with contextlib.closing(paramiko.Transport(link)) as transport:
        transport.banner_timeout = 0.4
        transport.start_client(timeout=5)


def test_auth_is_refused_and_then_works(open_account):
    account = open_account("auth-refused:1s")
    instance = account.launch()
    with pytest.raises(paramiko.AuthenticationException):
        account.login(instance)
    time.sleep(1.1)
    account.login(instance).close()


def test_a_stranger_answers(open_account):
    account = open_account("wrong-host-key")
    with pytest.raises(paramiko.BadHostKeyException):
        account.login(account.launch())


def test_a_stranger_answers_the_second_time(open_account):
    account = open_account("host-key-changes-on-reconnect")
    instance = account.launch()
    account.login(instance).close()
    with pytest.raises(paramiko.BadHostKeyException):
        account.login(instance)


def test_the_caller_moves_and_authorises_its_new_address(open_account):
    account = open_account("caller-moves:0s")
    instance = account.launch()
    with pytest.raises((paramiko.SSHException, OSError, EOFError)):
        _impatient(account, instance)
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "203.0.113.7/32"}]}
    account.ec2.authorize_security_group_ingress(GroupId=account.group(), IpPermissions=[rule])
    account.login(instance).close()


def test_cut_once_after_so_many_bytes(open_account, run_on):
    account = open_account("cut:300000")
    instance = account.launch()
    got = b""
    with contextlib.closing(account.login(instance)) as client:
        channel = client.get_transport().open_session(timeout=20)
        channel.exec_command("head -c 2000000 /dev/zero; sleep 60")
        channel.settimeout(20)
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            while piece := channel.recv(1 << 16):
                got += piece
        until(lambda: not client.get_transport().is_active())
    # A reset also throws away what the receiver had not read yet.
    assert len(got) < 300_000
    assert len(account.run(instance, "head -c 2000000 /dev/zero")[1]) == 2_000_000


def test_reset_during_a_push_once(open_account):
    account = open_account("reset-push:200000")
    instance = account.launch()
    with contextlib.closing(account.login(instance)) as client:
        channel = client.get_transport().open_session(timeout=20)
        channel.exec_command("cat > pushed")
        with pytest.raises((OSError, EOFError, paramiko.SSHException)):
            for _ in range(400):
                channel.sendall(bytes(32_768))
    assert account.run(instance, "cat > pushed; wc -c < pushed", bytes(500_000))[1].strip() == b"500000"


def test_a_frozen_link_says_nothing_and_goes_on(open_account):
    account = open_account("freeze:1500ms:30000")
    instance = account.launch()
    with contextlib.closing(account.login(instance)) as client:
        channel = client.get_transport().open_session(timeout=20)
        channel.exec_command("head -c 400000 /dev/zero")
        channel.settimeout(0.7)
        with pytest.raises(TimeoutError):
            while channel.recv(1 << 16):
                pass
        # Another connection is not held up.
        assert account.run(instance, "echo alive")[1] == b"alive\n"
        channel.settimeout(20)
        while channel.recv(1 << 16):
            pass
        assert channel.recv_exit_status() == 0


def test_sshd_dies_and_comes_back_while_programs_go_on(open_account):
    account = open_account("sshd-dies:1s:1s")
    instance = account.launch()
    client = account.login(instance)
    with contextlib.closing(client):
        channel = client.get_transport().open_session(timeout=20)
        channel.exec_command("setsid sleep 600 >/dev/null 2>&1 & echo $!")
        pid = int(channel.recv(100))
        until(lambda: not client.get_transport().is_active())
    assert account.run(instance, f"kill -0 {pid} && echo goes on")[1] == b"goes on\n"


def test_a_full_disk_stops_a_file_from_growing(open_account):
    account = open_account("disk-full:100k")
    instance = account.launch()
    script = b"""
try:
    open("big", "wb").write(bytes(1000000))
except OSError as error:
    print(error.errno != 0)
"""
    assert account.run(instance, "python3 -; ls", script)[1].split() == [b"True", b"big"]


def test_adaptive_clients_see_one_launch_under_throttling(open_account):
    account = open_account("RequestLimitExceeded:2@RunInstances")
    instance_request = {"ImageId": account.image(), "InstanceType": "g4dn.xlarge", "MinCount": 1, "MaxCount": 1}
    client = boto3.client(
        "ec2", region_name="us-east-1", endpoint_url=account.region.endpoint_url,
        aws_access_key_id=account.region.access_key[0], aws_secret_access_key=account.region.access_key[1],
        config=Config(retries={"mode": "standard", "total_max_attempts": 4}),
    )  # fmt: skip
    with contextlib.closing(client):
        client.run_instances(**instance_request)
    assert len(account.region.inventory()["instances"]) == 1
    assert len({c["parameters"]["ClientToken"] for c in account.region.calls("RunInstances")}) == 1


def test_timing_is_free_to_choose():
    assert Timing(pending_s=0).pending_s == 0 and Timing().spot_lead_s == 120

"""Machines of the region: logged in to with paramiko and OpenSSH, running real programs, ended by their lease."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import paramiko
import pytest

from cloudtrain.emulator import processes

LEASE = """
set -eu
units="${CLOUDTRAIN_ROOT:-}/etc/systemd/system"
mkdir -p "$units"
printf '[Service]\\nType=oneshot\\nExecStart=systemctl --no-block poweroff\\n' > "$units/cloudtrain-lease.service"
printf '[Timer]\\nOnCalendar=%s\\nPersistent=true\\n[Install]\\nWantedBy=timers.target\\n' '{at}' > \\
  "$units/cloudtrain-lease.timer"
systemctl daemon-reload
systemctl enable cloudtrain-lease.timer
systemctl --no-block start cloudtrain-lease.timer
"""


def lease(seconds: float) -> str:
    return LEASE.replace("{at}", f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S} UTC")


def until(holds, limit: float = 60.0) -> None:
    deadline = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_session_runs_real_programs_in_a_home_of_its_own(account):
    instance = account.launch()
    code, out, err = account.run(instance, "pwd; env; echo oops >&2; cat; exit 7", b"in\x00put")
    lines = out.decode().splitlines()
    root = account.region.machines()[instance].root
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    assert code == 7 and err == b"oops\n" and out.endswith(b"in\x00put")
    assert lines[0] == found["HOME"] == str(root / "home" / "ubuntu") and found["CLOUDTRAIN_ROOT"] == str(root)
    assert found["PATH"].startswith(str(root)) and found["USER"] == "ubuntu"
    assert not [n for n in found if n.startswith("AWS_") and n != "AWS_EC2_METADATA_SERVICE_ENDPOINT"]
    code, out, _ = account.run(instance, "python3 -c 'import sys; print(sys.prefix)'; ls /opt/pytorch 2>/dev/null")
    assert out.decode().split() == [sys.prefix]


def test_only_the_launchs_key_and_user_get_in_and_the_host_key_is_the_one_sent(account, new_key):
    instance = account.launch()
    account.login(instance).close()
    assert account.region.machines()[instance].host_key.split()[:2] == account.host.public.split()[:2]
    with pytest.raises(paramiko.AuthenticationException):
        account.login(instance, key=new_key())
    with pytest.raises(paramiko.BadHostKeyException):
        account.login(instance, host_key=new_key().public)
    host, port = account.address(instance)
    for user, how in (("root", {"pkey": account.client.paramiko()}), ("ubuntu", {"password": "secret"})):
        transport = paramiko.Transport(socket.create_connection((host, port), timeout=20))
        with contextlib.closing(transport):
            transport.start_client(timeout=20)
            with pytest.raises((paramiko.AuthenticationException, paramiko.BadAuthenticationType)):
                if "pkey" in how:
                    transport.auth_publickey(user, how["pkey"])
                else:
                    transport.auth_password(user, how["password"])


@pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH's client is not here")
def test_openssh_is_let_in_as_well(account, tmp_path):
    instance = account.launch()
    account.login(instance).close()
    host, port = account.address(instance)
    identity, known = tmp_path / "id", tmp_path / "known"
    identity.write_text(account.client.private)
    identity.chmod(0o600)
    known.write_text(f"[{host}]:{port} {account.host.public}\n")
    settings = [
        "IdentitiesOnly=yes",
        f"UserKnownHostsFile={known}",
        "StrictHostKeyChecking=yes",
        "ServerAliveInterval=1",
    ]
    argv = ["ssh", "-F", "none", "-i", str(identity), "-p", str(port), f"ubuntu@{host}"]
    argv[1:1] = [word for setting in settings for word in ("-o", setting)]
    done = subprocess.run([*argv, "sleep 2.5; cat; exit 3"], input=b"hello", capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (3, b"hello")
    killed = subprocess.run([*argv, "kill -9 $$"], capture_output=True, timeout=60)
    assert killed.returncode != 0


def test_large_streams_pass_whole_both_ways_on_several_channels(account, run_on):
    instance = account.launch()
    data = os.urandom(6_000_000)
    with contextlib.closing(account.login(instance)) as client:
        slow = client.get_transport().open_session(timeout=20)
        slow.exec_command("head -c 50000000 /dev/zero | tee /dev/null; echo done >&2")
        code, out, _ = run_on(client, "cat", data)
        assert code == 0 and hashlib.sha256(out).digest() == hashlib.sha256(data).digest()
        code, out, _ = run_on(client, "wc -c", data)
        assert int(out) == len(data)
        # The first channel stood still meanwhile, for want of a reader; nothing of it is lost.
        assert sum(len(piece) for piece in iter(lambda: slow.recv(1 << 20), b"")) == 50_000_000
        assert slow.recv_exit_status() == 0
        slow.close()


def test_a_signal_reaches_the_program_and_comes_back(account):
    instance = account.launch()
    with contextlib.closing(account.login(instance)) as client:
        channel = client.get_transport().open_session(timeout=20)
        channel.exec_command("echo $$; exec sleep 600")
        pid = int(channel.recv(100))
        # The public way to send one; paramiko has no name for it.
        message = paramiko.Message()
        message.add_byte(bytes([98]))
        message.add_int(channel.remote_chanid)
        message.add_string("signal")
        message.add_boolean(False)
        message.add_string("TERM")
        client.get_transport()._send_user_message(message)
        until(lambda: not processes.alive(pid))
        until(lambda: channel.closed or channel.exit_status_ready())
        channel.close()


def test_a_program_outlives_its_connection_but_not_its_machine(account):
    instance = account.launch()
    code, out, _ = account.run(instance, "setsid sleep 600 >/dev/null 2>&1 </dev/null & echo $!")
    pid = int(out)
    assert code == 0 and processes.alive(pid)
    root = account.region.machines()[instance].root
    account.ec2.terminate_instances(InstanceIds=[instance])
    account.wait(instance, "terminated")
    assert not processes.alive(pid) and not root.exists()


def test_the_lease_is_armed_before_the_first_login_and_ends_the_instance(account):
    instance = account.launch(lease(600))
    assert account.run(instance, "systemctl is-active cloudtrain-lease.timer")[:2] == (0, b"active\n")
    assert list(account.region.machines()[instance].timers) == ["cloudtrain-lease.timer"]
    with contextlib.closing(account.login(instance)) as client:
        sooner = lease(1) + "systemctl restart cloudtrain-lease.timer\n"
        client.get_transport().open_session(timeout=20).exec_command(f"sudo sh -c {shlex.quote(sooner)}")
        ended = account.wait(instance, "terminated")
    assert ended["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert not account.region.inventory()["volumes"]


def test_a_lease_that_is_over_ends_the_instance_without_any_login(account):
    # It must lie ahead when the machine has booted: one that is past at its first start never comes.
    ended = account.wait(account.launch(lease(8)), "terminated")
    assert ended["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_poweroff_obeys_the_shutdown_behaviour_and_a_parked_disk_is_kept(account):
    instance = account.launch("date >> $CLOUDTRAIN_ROOT/boots", InstanceInitiatedShutdownBehavior="stop")
    assert account.run(instance, "echo kept > result; mkdir -p $TMPDIR")[0] == 0
    client = account.login(instance)
    with contextlib.closing(client):
        client.get_transport().open_session(timeout=20).exec_command("sudo systemctl poweroff")
        account.wait(instance, "stopped")
    account.ec2.start_instances(InstanceIds=[instance])
    assert account.run(instance, "cat result; wc -l < $CLOUDTRAIN_ROOT/boots")[1].split() == [b"kept", b"2"]


def test_no_program_of_a_machine_can_switch_this_computer_off(account):
    instance = account.launch()
    code, out, _ = account.run(instance, "for name in poweroff reboot shutdown halt; do command -v $name; done")
    root = account.region.machines()[instance].root
    assert code == 0 and [line.startswith(f"{root}/") for line in out.decode().splitlines()] == [True] * 4


def test_a_lease_survives_a_reboot_on_the_same_address(account):
    instance = account.launch(lease(600))
    account.run(instance, "touch here")
    before, address = account.region.machines()[instance], account.address(instance)
    account.ec2.reboot_instances(InstanceIds=[instance])
    until(lambda: "boot 2" in account.region.machines()[instance].console)
    assert account.run(instance, "ls")[1] == b"here\n"
    after = account.region.machines()[instance]
    assert account.address(instance) == address and after.timers == before.timers and after.state == "running"


def test_the_host_key_can_be_rotated_after_the_first_login(account, new_key):
    instance, fresh = account.launch(), new_key()
    command = "set -e; sudo sh -c 'cat > \"$CLOUDTRAIN_ROOT/etc/ssh/ssh_host_ed25519_key\"'; sudo systemctl reload ssh"
    assert account.run(instance, command, fresh.private.encode())[0] == 0
    with pytest.raises(paramiko.BadHostKeyException):
        account.login(instance)
    account.login(instance, host_key=fresh.public).close()


def test_the_console_shows_the_real_host_keys_after_the_user_scripts(account):
    instance = account.launch(UserData=account.user_data("echo from bootcmd", runcmd=["echo from runcmd"]))
    account.login(instance).close()
    until(
        lambda: (
            "END SSH HOST KEY KEYS"
            in account.ec2.get_console_output(InstanceId=instance, Latest=True).get("Output", "")
        )
    )
    text = account.ec2.get_console_output(InstanceId=instance, Latest=True)["Output"]
    keys = text.split("-----BEGIN SSH HOST KEY KEYS-----\r\n")[1].split("\r\n-----END")[0]
    assert keys.split()[:2] == account.host.public.split()[:2]
    assert (
        text.index("from bootcmd")
        < text.index("Started ssh.service")
        < text.index("from runcmd")
        < text.index("BEGIN SSH")
    )


def test_without_injected_keys_the_machine_makes_its_own(account):
    instance = account.launch(UserData=account.user_data(ssh_keys={}))
    account.wait(instance, "running")
    until(lambda: account.region.machines()[instance].host_key is not None)
    account.login(instance, host_key=account.region.machines()[instance].host_key).close()


def test_user_data_that_cannot_be_read_leaves_a_machine_that_nobody_gets_into(account):
    instance = account.launch(UserData="#cloud-config\n: [not yaml")
    until(lambda: "yaml" in account.ec2.get_console_output(InstanceId=instance).get("Output", ""))
    with pytest.raises((paramiko.SSHException, paramiko.AuthenticationException)):
        account.login(instance)


def test_metadata_wants_a_token(account):
    instance = account.launch(MetadataOptions={"HttpTokens": "required"})
    script = """
import os, urllib.request, urllib.error
base = os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"] + "/latest/"
open_ = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
try: open_(base + "meta-data/instance-id")
except urllib.error.HTTPError as e: print(e.code)
put = urllib.request.Request(base + "api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
token = open_(put).read().decode()
def get(page):
    asked = urllib.request.Request(base + page, headers={"X-aws-ec2-metadata-token": token})
    return open_(asked).read().decode()
print(get("meta-data/instance-id"), get("meta-data/placement/availability-zone"))
try: get("meta-data/spot/instance-action")
except urllib.error.HTTPError as e: print(e.code)
"""
    code, out, err = account.run(instance, "python3 -", script.encode())
    assert (code, out.decode().split()) == (
        0,
        ["401", instance, "us-east-1b" if b"us-east-1b" in out else "us-east-1a", "404"],
    ), err


def test_a_group_that_does_not_name_the_caller_keeps_port_22_shut(account):
    group = account.ec2.create_security_group(GroupName="other", Description="x")["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "198.51.100.7/32"}]}
    account.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    instance = account.launch(SecurityGroupIds=[group])
    host, port = account.address(instance)
    until(lambda: account.region.machines()[instance].console.count("Started ssh"))
    with socket.create_connection((host, port), timeout=20) as link:
        link.settimeout(1.0)
        with pytest.raises(TimeoutError):
            link.recv(1)
    account.ec2.authorize_security_group_ingress(
        GroupId=group, IpPermissions=[{**rule, "IpRanges": [{"CidrIp": "127.0.0.1/32"}]}]
    )
    account.login(instance).close()


def test_closing_a_region_ends_every_process_and_port(open_account, tmp_path):
    with contextlib.ExitStack() as stack:
        from cloudtrain.emulator.region import Region

        region = stack.enter_context(Region(tmp_path / "r"))
        account = type(open_account())(region, tmp_path)
        stack.callback(account.close)
        instance = account.launch()
        pid = int(account.run(instance, "setsid sleep 600 >/dev/null 2>&1 & echo $!")[1])
        address, mark = account.address(instance), region.core.mark
        assert processes.marked(mark) == [pid] and processes.alive(pid)
    assert not processes.marked(mark) and not processes.alive(pid)
    for host, port in (address, ("127.0.0.1", int(region.endpoint_url.rsplit(":", 1)[1]))):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port), timeout=5).close()
    assert not (tmp_path / "r" / "machines").exists()


@pytest.mark.skipif(os.name != "posix", reason="terminals are POSIX")
def test_a_terminal_session_is_a_real_terminal(account):
    instance = account.launch()
    with contextlib.closing(account.login(instance)) as client:
        channel = client.get_transport().open_session(timeout=20)
        channel.settimeout(20)
        channel.get_pty("xterm", width=101, height=33)
        channel.invoke_shell()
        channel.sendall(b"tty; stty size; echo $TERM; : < /dev/tty && echo it is $((6 * 7)); exit 5\n")
        shown = b"".join(iter(lambda: channel.recv(65536), b"")).decode()
        assert "/dev/" in shown and "33 101" in shown and "xterm" in shown and "it is 42" in shown
        assert channel.recv_exit_status() == 5
        held = client.get_transport().open_session(timeout=20)
        held.get_pty()
        held.exec_command("echo $$; sleep 600")
        pid = int(held.recv(100))
        held.close()
        until(lambda: not processes.alive(pid))


def test_machines_share_one_address_where_there_is_only_one(account, monkeypatch):
    """macOS has 127.0.0.1 alone on loopback: then the port tells machines apart."""
    monkeypatch.setattr("cloudtrain.emulator.machine.machine.own_address", lambda: "127.0.0.1")
    one, two = account.launch(), account.launch()
    (host, port), (other_host, other_port) = account.address(one), account.address(two)
    assert host == other_host == "127.0.0.1" and port != other_port
    homes = {account.run(instance, "pwd")[1].strip().decode() for instance in (one, two)}
    assert {home.split("/machines/")[1].split("/")[0] for home in homes} == {one, two}


def test_a_region_that_closes_while_instances_start_leaves_no_machine(tmp_path, open_account):
    from cloudtrain.emulator.aws.core import Timing
    from cloudtrain.emulator.region import Region

    for number in range(6):
        with contextlib.ExitStack() as stack:
            region = stack.enter_context(Region(tmp_path / f"r{number}", timing=Timing(pending_s=0.03, boot_s=0)))
            account = type(open_account())(region, tmp_path)
            stack.callback(account.close)
            for _ in range(3):
                account.launch("sleep 600 & sleep 0.05", SecurityGroupIds=[])
            mark = region.core.mark
        assert not processes.marked(mark) and not (region.folder / "machines").exists()


def test_a_parked_machine_boots_with_the_user_data_it_was_given_while_stopped(account):
    """Without that, a lease that has passed would end it again at once."""
    instance = account.launch("true", InstanceInitiatedShutdownBehavior="stop")
    account.login(instance).close()
    account.ec2.stop_instances(InstanceIds=[instance])
    account.wait(instance, "stopped")
    data = account.user_data("echo again > $CLOUDTRAIN_ROOT/mark", ssh_authorized_keys=[], ssh_keys={})
    account.ec2.modify_instance_attribute(InstanceId=instance, UserData={"Value": data.encode()})
    account.ec2.start_instances(InstanceIds=[instance])
    assert account.run(instance, "cat $CLOUDTRAIN_ROOT/mark")[1] == b"again\n", "the keys are those of the first boot"

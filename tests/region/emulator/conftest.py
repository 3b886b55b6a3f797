"""A region with an account of its own, and clients that reach it as a user's would: boto3 over HTTP, SSH over TCP."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import paramiko
import pytest
from botocore.config import Config
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloudtrain.emulator.aws.core import Timing
from cloudtrain.emulator.region import Region

QUICK = Timing(pending_s=0.05, boot_s=0.0, stopping_s=0.05, shutting_down_s=0.05, grace_s=1.0)


@dataclass(frozen=True)
class Key:
    """An ed25519 key pair in OpenSSH format."""

    private: str
    public: str

    @classmethod
    def new(cls) -> Key:
        key = Ed25519PrivateKey.generate()
        return cls(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            ).decode(),
            key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode(),
        )

    def paramiko(self) -> paramiko.Ed25519Key:
        import io

        return paramiko.Ed25519Key.from_private_key(io.StringIO(self.private))


@dataclass
class Account:
    """A user of the region: clients, keys, and the steps that every test needs."""

    region: Region
    tmp: Path
    host: Key = field(default_factory=Key.new)
    client: Key = field(default_factory=Key.new)
    _clients: dict[str, Any] = field(default_factory=dict)
    _group: str | None = None

    def aws(self, service: str, **config: Any) -> Any:
        """A boto3 client that does not retry, so that a test sees each answer."""
        if service not in self._clients:
            self._clients[service] = boto3.client(
                service,
                region_name="us-east-1",
                endpoint_url=self.region.endpoint_url,
                aws_access_key_id=self.region.access_key[0],
                aws_secret_access_key=self.region.access_key[1],
                config=Config(retries={"total_max_attempts": 1}, read_timeout=30, **config),
            )
        return self._clients[service]

    @property
    def ec2(self) -> Any:
        return self.aws("ec2")

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def image(self, arch: str = "x86_64", torch: str = "2.12-ubuntu-24.04") -> str:
        name = f"/aws/service/deeplearning/ami/{arch}/oss-nvidia-driver-gpu-pytorch-{torch}/latest/ami-id"
        value: str = self.aws("ssm").get_parameter(Name=name)["Parameter"]["Value"]
        return value

    def group(self) -> str:
        if self._group is None:
            self._group = self.ec2.create_security_group(GroupName="mine", Description="mine")["GroupId"]
            rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "127.0.0.1/32"}]}
            self.ec2.authorize_security_group_ingress(GroupId=self._group, IpPermissions=[rule])
        return self._group

    def user_data(self, script: str = "true", **more: Any) -> str:
        config = {
            "ssh_deletekeys": True,
            "ssh_keys": {"ed25519_private": self.host.private, "ed25519_public": self.host.public},
            "ssh_authorized_keys": [self.client.public],
            "bootcmd": [["sh", "-c", script]],
            **more,
        }
        return "#cloud-config\n" + json.dumps(config)

    def launch(self, script: str = "true", **more: Any) -> str:
        request = {
            "ImageId": self.image(),
            "InstanceType": "g4dn.xlarge",
            "MinCount": 1,
            "MaxCount": 1,
            "UserData": self.user_data(script),
            "SecurityGroupIds": [self.group()],
            "InstanceInitiatedShutdownBehavior": "terminate",
            **more,
        }
        found: str = self.ec2.run_instances(**request)["Instances"][0]["InstanceId"]
        return found

    def look(self, instance: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
        return found

    def wait(self, instance: str, state: str, limit: float = 30.0) -> dict[str, Any]:
        deadline = time.monotonic() + limit
        while (seen := self.look(instance))["State"]["Name"] != state:
            assert time.monotonic() < deadline, f"{instance} is {seen['State']['Name']}, not {state}"
            time.sleep(0.1)
        return seen

    def address(self, instance: str) -> tuple[str, int]:
        seen = self.wait(instance, "running")
        tags = {tag["Key"]: tag["Value"] for tag in seen["Tags"]}
        return seen["PublicIpAddress"], int(tags["emulator:ssh-port"])

    def login(
        self, instance: str, *, host_key: str | None = None, limit: float = 30.0, key: Key | None = None
    ) -> paramiko.SSHClient:
        """Log in once port 22 answers; anything but a refused connection is raised."""
        host, port = self.address(instance)
        link = connect(host, port, limit)
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        kind, blob = (host_key or self.host.public).split()[:2]
        client.get_host_keys().add(f"[{host}]:{port}", kind, paramiko.PKey.from_type_string(kind, _decode(blob)))
        try:
            client.connect(
                host, port, "ubuntu", pkey=(key or self.client).paramiko(), sock=link, allow_agent=False,
                look_for_keys=False, banner_timeout=20, auth_timeout=20, timeout=20,
            )  # fmt: skip
        except BaseException:
            client.close()
            link.close()
            raise
        return client

    def run(self, instance: str, command: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        with contextlib.closing(self.login(instance)) as client:
            return execute(client, command, stdin)


def _decode(blob: str) -> bytes:
    import base64

    return base64.b64decode(blob)


def connect(host: str, port: int, limit: float) -> socket.socket:
    deadline = time.monotonic() + limit
    while True:
        try:
            return socket.create_connection((host, port), timeout=limit)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "port 22 stays closed"
            time.sleep(0.02)


def execute(client: paramiko.SSHClient, command: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    transport = client.get_transport()
    assert transport is not None
    with contextlib.closing(transport.open_session(timeout=20)) as channel:
        channel.settimeout(60)
        channel.exec_command(command)
        if stdin:
            channel.sendall(stdin)
        channel.shutdown_write()
        out = b"".join(iter(lambda: channel.recv(1 << 16), b""))
        err = b"".join(iter(lambda: channel.recv_stderr(1 << 16), b""))
        return channel.recv_exit_status(), out, err


@pytest.fixture
def open_account(tmp_path: Path) -> Iterator[Callable[..., Account]]:
    """Opens regions; all are closed afterwards, and must then be gone."""
    with contextlib.ExitStack() as stack:

        def opened(*script: str, timing: Timing = QUICK, folder: Path | None = None, **more: Any) -> Account:
            folder = folder or tmp_path / f"region-{time.monotonic_ns()}"
            region = stack.enter_context(Region(folder, script=script, timing=timing, **more))
            account = Account(region, tmp_path)
            stack.callback(account.close)
            return account

        yield opened


@pytest.fixture
def account(open_account: Callable[..., Account]) -> Account:
    """One region where nothing goes wrong."""
    return open_account()


@pytest.fixture
def run_on() -> Callable[..., tuple[int, bytes, bytes]]:
    """Run a command on an open connection."""
    return execute


@pytest.fixture
def new_key() -> Callable[[], Key]:
    """Make a key pair."""
    return Key.new

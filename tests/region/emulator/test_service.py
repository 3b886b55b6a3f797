"""A region as a process of its own: it outlives who started it, is found again, ends by itself, and leaves nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import boto3
import pytest

from cloudtrain.core.errors import UsageError
from cloudtrain.emulator import processes, service

ROOT = Path(__file__).resolve().parents[3]


def until(holds, limit: float = 60.0) -> None:
    deadline = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def folder(tmp_path):
    """A region folder whose region is ended afterwards, whatever the test did."""
    place = tmp_path / "region"
    yield place
    service.stop(place)
    assert service.living(place) is None


@contextlib.contextmanager
def ec2(endpoint: service.Endpoint):
    client = boto3.client(
        "ec2", region_name=endpoint.environment["AWS_REGION"], endpoint_url=endpoint.url,
        aws_access_key_id=endpoint.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=endpoint.environment["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip
    with contextlib.closing(client):
        yield client


def launch(client) -> str:
    names = [{"Name": "name", "Values": ["Deep Learning OSS*(Ubuntu 24.04)*"]}]
    image = client.describe_images(Owners=["amazon"], Filters=names)["Images"][0]["ImageId"]
    script = "#!/bin/sh\nsleep 600 &\nsleep 600\n"
    answer = client.run_instances(ImageId=image, InstanceType="g4dn.xlarge", MinCount=1, MaxCount=1, UserData=script)
    return str(answer["Instances"][0]["InstanceId"])


def test_a_region_outlives_its_starter_is_reused_and_ends_on_request(folder):
    code = "import pathlib, sys\nfrom cloudtrain.emulator import service\n"
    code += "print(service.ensure(pathlib.Path(sys.argv[1])).url)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((folder / "region.json").read_bytes())
    assert told["endpoint_url"] == done.stdout.strip() and processes.alive(told["pid"])
    again = service.ensure(folder, faults=["no-banner"])
    assert again.url == told["endpoint_url"] and service.living(folder)["pid"] == told["pid"]
    assert service.ask(told, "faults")["faults"] == ["no-banner"]
    with ec2(again) as client:
        launch(client)
        until(lambda: len(processes.marked(told["mark"])) >= 2)
    assert len(service.inventory(folder)["instances"]) == 1
    assert [c["action"] for c in service.calls(folder)] == ["DescribeImages", "RunInstances"]
    assert service.stop(folder) is True
    assert not processes.alive(told["pid"]) and not processes.marked(told["mark"])
    assert service.stop(folder) is False and not (folder / "machines").exists()


def test_what_a_killed_region_leaves_is_told_and_swept(folder):
    with ec2(service.ensure(folder)) as client:
        instance = launch(client)
    told = service.living(folder)
    until(lambda: len(processes.marked(told["mark"])) >= 2)
    os.kill(told["pid"], signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    until(lambda: not processes.alive(told["pid"]))
    assert service.living(folder) is None
    assert [row["id"] for row in json.loads((folder / "inventory.json").read_bytes())["instances"]] == [instance]
    assert processes.marked(told["mark"])
    second = service.ensure(folder)
    assert not processes.marked(told["mark"]) and not list((folder / "machines").glob("*"))
    assert service.inventory(folder)["instances"] == [] and second.url


def test_an_idle_region_ends_by_itself_but_not_under_an_instance(folder):
    with ec2(service.ensure(folder, options=["--idle", "2"])) as client:
        instance = launch(client)
        told = service.living(folder)
        time.sleep(4)
        assert processes.alive(told["pid"]), "an instance lives in it"
        client.terminate_instances(InstanceIds=[instance])
    until(lambda: not processes.alive(told["pid"]))
    assert not processes.marked(told["mark"]) and not (folder / "region.json").exists()


def test_a_wrong_fault_is_refused_before_anything_starts(folder):
    with pytest.raises(UsageError):
        service.ensure(folder, faults=["nonsense"])
    assert not (folder / "region.json").exists()


def test_a_region_that_cannot_start_says_why(folder):
    with pytest.raises(service.RegionFailed) as caught:
        service.ensure(folder, options=["--no-such-option"])
    assert "--no-such-option" in caught.value.detail and str(folder) in caught.value.hint


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"not HTTP at all", b""])
def test_a_region_that_dies_while_it_answers_is_a_region_that_failed(answer):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            asker, _ = server.accept()
            with asker:
                asker.recv(4096)
                asker.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(service.RegionFailed, match="does not answer"):
            service.ask({"endpoint_url": f"http://127.0.0.1:{server.getsockname()[1]}", "token": ""}, "inventory")
        thread.join(30)


def test_the_service_module_is_light():
    heavy = ("moto", "asyncssh", "boto3", "flask")
    code = f"import sys, cloudtrain.emulator.service; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


def test_the_faults_are_listed(capsys):
    from cloudtrain.emulator.__main__ import main

    assert main(["faults"]) == 0
    assert "capacity:ZONE|*[:TYPE]" in capsys.readouterr().out

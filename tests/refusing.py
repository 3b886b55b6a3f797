"""Specs of EC2 runs, and clients whose calls fail as ordered, without any network."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import botocore.endpoint
import pytest
from botocore.awsrequest import AWSResponse

from cloudtrain.core.spec import Ec2Spec, JobSpec, RunSpec, Target, TrainSpec
from cloudtrain.provider.ec2.clients import Clients

if TYPE_CHECKING:
    from cloudtrain.emulator.region import Region


@pytest.fixture
def spec_of(tmp_path: Path) -> Callable[..., RunSpec]:
    """A spec with these EC2 settings."""

    def make(*types: str, **more: Any) -> RunSpec:
        ec2 = Ec2Spec(types=types or ("g4dn.xlarge",), **more)
        return RunSpec(
            name="brave-otter",
            target=Target.EC2,
            train=TrainSpec(),
            job=JobSpec(source=str(tmp_path)),
            runs_dir=str(tmp_path / "runs"),
            ec2=ec2,
        )

    return make


class Raw(io.BytesIO):
    """A body as botocore reads it."""

    def stream(self, **ignored: Any) -> Iterator[bytes]:
        yield self.getvalue()


def refusal(protocol: str, code: str, message: str, status: int, headers: dict[str, str]) -> AWSResponse:
    """What AWS answers when it refuses a call."""
    if protocol == "ec2":
        body = f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>"
    elif protocol == "query":
        body = f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    else:
        body = json.dumps({"__type": code, "message": message})
    return AWSResponse("https://aws.invalid", status, headers, Raw(body.encode()))


@pytest.fixture
def rejecting(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Clients]:
    """Clients of a region that refuses the named operations: `rejecting(GetProducts="AccessDeniedException")`. With a
    region they ask it everything else; without, nothing else may be asked."""
    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))

    def make(
        region: Region | None = None,
        message: str = "refused",
        status: int = 400,
        headers: dict[str, str] | None = None,
        **codes: str,
    ) -> Clients:
        url, key = (region.endpoint_url, region.access_key) if region else ("http://127.0.0.1:9", ("a", "b"))
        clients = Clients(None, "us-east-1", url, key)

        def answer(request: Any, event_name: str, **ignored: Any) -> AWSResponse | None:
            operation = event_name.rsplit(".", 1)[-1]
            code = codes.get(operation, codes.get("Everything"))
            if code is None:
                assert region is not None, f"{operation} was not expected"
                return None
            service = event_name.split(".")[1]
            protocol = {"ec2": "ec2", "sts": "query"}.get(service, "json")
            return refusal(protocol, code, message, status, headers or {})

        for name in ("ec2", "ec2_launch", "ssm", "sts", "quotas", "pricing", "freetier"):
            getattr(clients, name).meta.events.register("before-send.*.*", answer)
        return clients

    return make

"""From where a machine may be reached."""

from __future__ import annotations

from typing import Any

import pytest

from cloudtrain.core.errors import ConnectionFailed, UsageError
from cloudtrain.provider.ec2 import network
from cloudtrain.provider.ec2.clients import Clients


def remote() -> Clients:
    return Clients(region="us-east-1", endpoint_url="https://ec2.example.invalid", access_key=("a", "b"))


def test_the_callers_address_alone() -> None:
    assert network.caller_cidr(remote(), None, lambda: "203.0.113.7") == "203.0.113.7/32"
    assert network.caller_cidr(remote(), "198.51.100.9/24", lambda: "unused") == "198.51.100.0/24"


@pytest.mark.parametrize("answer", [OSError("no route"), "<html>captive portal</html>", "", "2001:db8::7"])
def test_an_address_that_cannot_be_found_names_the_flag(answer: Any) -> None:
    def ask() -> str:
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    with pytest.raises(ConnectionFailed) as caught:
        network.caller_cidr(remote(), None, ask)
    assert "--ssh-cidr" in str(caught.value.hint) and caught.value.consequence == "nothing was created"


@pytest.mark.parametrize("asked", ["me", "1.2.3.4/40", "0.0.0.0/0/0"])
def test_a_bad_range_is_refused(asked: str) -> None:
    with pytest.raises(UsageError) as caught:
        network.caller_cidr(remote(), asked)
    assert caught.value.code == "bad_cidr"

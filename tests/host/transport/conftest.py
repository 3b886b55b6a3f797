"""One OpenSSH server for the tests of a module, and connections to it that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.transport.ssh import SshTransport, connect
from tests.host.transport.relay import Relay
from tests.host.transport.sshd import Sshd, missing


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A running server; leave it running and its keys as they are."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes servers that the test may stop and change; they end with it. Arguments as `Sshd`, after the folder."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    made = []

    def make(**settings: Any) -> Any:
        server = Sshd(tmp_path / f"sshd-{len(made)}", **settings)
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def relay() -> Iterator[Callable[..., Any]]:
    """Makes relays to a port; they end with the test."""
    made = []

    def make(target: int, **settings: Any) -> Any:
        one = Relay(target, **settings)
        one.__enter__()
        made.append(one)
        return one

    yield make
    for one in made:
        one.__exit__()


@pytest.fixture
def dial(sshd: Any) -> Iterator[Callable[..., SshTransport]]:
    """Connects to the server, by `port` (a relay's) or straight; every connection ends with the test."""
    made: list[SshTransport] = []

    def make(server: Any = sshd, **changes: Any) -> SshTransport:
        given = {
            "address": "127.0.0.1",
            "port": server.port,
            "user": server.user,
            "key": server.identity,
            "host_key": server.host_key,
            "timeout": 20.0,
            **changes,
        }
        transport = connect(**given)
        made.append(transport)
        return transport

    yield make
    for transport in made:
        transport.close()

"""Connecting to a machine that is still booting: closed port, silent port, refused key; and a wrong key, at once."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from cloudtrain.core.errors import ConnectionFailed, HostKeyMismatch
from cloudtrain.core.events import StepProgress, discard
from cloudtrain.transport.ssh_boot import connect_booting, wait_for_banner
from cloudtrain.transport.ssh_keys import new_key


@contextlib.contextmanager
def later(seconds, call):
    """Calls it while the body runs; has done so, whatever becomes of the body, when the `with` is left."""
    timer = threading.Timer(seconds, call)
    timer.start()
    try:
        yield
    finally:
        timer.join()


@contextlib.contextmanager
def silent():
    """A port that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.sshd
def test_a_machine_whose_sshd_starts_late(own_sshd):
    server = own_sshd()
    server.stop()
    told: list[StepProgress] = []
    here = ("127.0.0.1", server.port, server.user, server.identity, server.host_key)
    with later(1.5, server.start), connect_booting(*here, limit_s=60, emit=told.append) as host:
        assert host.run(["echo", "up"]).stdout == b"up\n"
    assert {"waiting for its port"} <= {event.detail for event in told}
    assert all(event.title == "boot" and event.total == 60 for event in told)


@pytest.mark.sshd
def test_a_key_that_is_written_after_sshd_started(own_sshd, tmp_path):
    server = own_sshd()
    public = new_key(tmp_path / "client")
    told: list[StepProgress] = []
    here = ("127.0.0.1", server.port, server.user, tmp_path / "client", server.host_key)
    with later(1.5, lambda: server.trust(public)), connect_booting(*here, limit_s=60, emit=told.append) as host:
        assert host.run(["true"]).exit_code == 0
    assert "waiting to be let in" in {event.detail for event in told}


@pytest.mark.sshd
def test_a_key_that_is_refused_for_good(own_sshd, tmp_path):
    server = own_sshd()
    new_key(tmp_path / "client")
    began = time.monotonic()
    with pytest.raises(ConnectionFailed) as caught:
        connect_booting(
            "127.0.0.1",
            server.port,
            server.user,
            tmp_path / "client",
            server.host_key,
            limit_s=60,
            auth_limit_s=1.0,
            emit=discard,
        )
    assert caught.value.code == "auth_refused"
    assert 1.0 <= time.monotonic() - began < 30


@pytest.mark.sshd
def test_a_wrong_host_key_is_not_tried_again(own_sshd, relay, tmp_path):
    server = own_sshd()
    link = relay(server.port)
    with pytest.raises(HostKeyMismatch):
        connect_booting(
            "127.0.0.1", link.port, server.user, server.identity, new_key(tmp_path / "k"), limit_s=60, emit=discard
        )
    assert link.connections == 1
    assert b"userauth" not in server.log.read_bytes()


def test_a_port_that_never_opens(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(ConnectionFailed) as caught:
            wait_for_banner("127.0.0.1", port, limit_s=0.5, emit=discard)
        assert caught.value.code == "unreachable"


def test_a_port_that_opens_and_never_greets():
    with silent() as port:
        began = time.monotonic()
        with pytest.raises(ConnectionFailed) as caught:
            wait_for_banner("127.0.0.1", port, limit_s=1.0, emit=discard)
        assert caught.value.code == "no_banner"
        assert time.monotonic() - began < 15


@pytest.mark.sshd
def test_the_greeting_of_a_real_server(sshd):
    wait_for_banner("127.0.0.1", sshd.port, limit_s=10, emit=discard)

"""What the transport does when the host is the wrong one, the link breaks, or nobody is there."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from paramiko.packet import Packetizer

from cloudtrain.core.errors import ConnectionFailed, ExitCode, HostKeyMismatch, UsageError
from cloudtrain.transport import ssh_link
from cloudtrain.transport.ssh import connect, scan_host_key
from cloudtrain.transport.ssh_keys import fingerprint, new_key

pytestmark = pytest.mark.sshd

NOTICED_WITHIN_S = 15.0


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch gives a silent peer up within 3 s instead of 12."""
    monkeypatch.setattr(ssh_link, "PROBE_AFTER_S", 1.0)
    monkeypatch.setattr(ssh_link, "PROBE_LIMIT_S", 2.0)


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A loopback port where `serve` is called, in a thread, with each connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        done = threading.Event()

        def accept() -> None:
            held = []
            while not done.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = server.accept()
                    held.append(connection)
                    with contextlib.suppress(OSError):
                        serve(connection)
            for connection in held:
                connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            done.set()
            thread.join(10)


def test_the_trusted_key_lets_in_and_the_scan_shows_it(sshd, dial):
    assert scan_host_key("127.0.0.1", sshd.port) == sshd.host_key
    assert dial().run(["true"]).exit_code == 0


def assert_nothing_was_said(server, since: int, sent: int) -> None:
    """Key exchange takes about 1.5 kB; user name, key and commands come after it."""
    said = server.log.read_bytes()[since:]
    assert b"userauth" not in said
    assert server.user.encode() not in said
    assert b"Starting session" not in said
    assert 0 < sent < 4096


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_another_host_key_ends_it_before_anything_is_said(own_sshd, relay, tmp_path, kind):
    server = own_sshd(host_key_type=kind)
    link = relay(server.port)
    trusted = new_key(tmp_path / "expected")
    since = server.log.stat().st_size
    with pytest.raises(HostKeyMismatch) as caught:
        connect("127.0.0.1", link.port, server.user, server.identity, trusted)
    assert caught.value.exit_code is ExitCode.CONNECTION
    assert fingerprint(trusted) in caught.value.detail
    assert fingerprint(server.host_key) in caught.value.detail
    assert_nothing_was_said(server, since, link.carried["up"])
    assert link.connections == 1


def test_a_host_key_that_changes_between_two_connections(own_sshd, dial, relay):
    server = own_sshd()
    trusted = server.host_key
    dial(server).close()
    server.stop()
    server.new_host_key()
    server.start()
    link = relay(server.port)
    since = server.log.stat().st_size
    with pytest.raises(HostKeyMismatch) as caught:
        dial(server, host_key=trusted, port=link.port)
    assert fingerprint(trusted) in caught.value.detail and fingerprint(server.host_key) in caught.value.detail
    assert_nothing_was_said(server, since, link.carried["up"])
    assert link.connections == 1


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_hosts_with_other_kinds_of_keys_can_be_trusted(own_sshd, dial, kind):
    server = own_sshd(host_key_type=kind)
    assert scan_host_key("127.0.0.1", server.port) == server.host_key
    assert dial(server).run(["echo", kind]).stdout == f"{kind}\n".encode()


def test_a_client_key_that_the_host_does_not_know(dial, tmp_path):
    new_key(tmp_path / "stranger")
    with pytest.raises(ConnectionFailed) as caught:
        dial(key=tmp_path / "stranger")
    assert caught.value.code == "auth_refused"
    assert not isinstance(caught.value, HostKeyMismatch)


def test_a_host_that_wants_more_than_a_key(own_sshd, dial):
    server = own_sshd(
        settings=("AuthenticationMethods publickey,keyboard-interactive", "KbdInteractiveAuthentication yes")
    )
    with pytest.raises(ConnectionFailed) as caught:
        dial(server)
    assert caught.value.code == "auth_refused"


def test_no_other_key_and_no_agent_is_tried(own_sshd, dial, tmp_path, monkeypatch):
    """A home with a key that would open the door and an agent that listens: neither is asked."""
    server = own_sshd()
    home = tmp_path / "laptop"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_bytes(server.identity.read_bytes())
    (home / ".ssh" / "config").write_text(f"Host *\n  IdentityFile {server.identity}\n  StrictHostKeyChecking no\n")
    monkeypatch.setenv("HOME", str(home))
    asked = threading.Event()
    agent = tmp_path / "agent"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(agent))
        listener.listen()
        listener.settimeout(0.1)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
        new_key(tmp_path / "stranger")
        with pytest.raises(ConnectionFailed, match="refused the key"):
            dial(server, key=tmp_path / "stranger")
        with contextlib.suppress(TimeoutError):
            listener.accept()
            asked.set()
    assert not asked.is_set()
    # sshd's debug log names each offer once as it arrives and once as it fails.
    assert server.log.read_text().count("Failed publickey") <= 1


def test_nobody_listens(dial, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionFailed) as caught:
            dial(port=free.getsockname()[1])
    assert caught.value.code == "unreachable"


def test_no_such_host(dial):
    with pytest.raises(ConnectionFailed) as caught:
        dial(address="no-such-host.invalid")
    assert caught.value.code == "unknown_host"


def test_a_peer_that_never_greets(dial):
    began = time.monotonic()
    with listening(lambda connection: None) as port, pytest.raises(ConnectionFailed) as caught:
        dial(port=port, timeout=1.0)
    assert caught.value.code == "no_banner"
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\xff" * 40, b"SSH-1.5-old\r\n", b""])
def test_a_peer_that_is_no_ssh_server(dial, said):
    def serve(connection: socket.socket) -> None:
        connection.sendall(said)
        connection.close()

    with listening(serve) as port, pytest.raises(ConnectionFailed) as caught:
        dial(port=port, timeout=5.0)
    assert caught.value.code in ("no_banner", "handshake")
    assert not isinstance(caught.value, HostKeyMismatch)


def test_a_peer_that_stops_in_the_handshake(dial):
    began = time.monotonic()
    with listening(lambda c: c.sendall(b"SSH-2.0-slow\r\n")) as port, pytest.raises(ConnectionFailed) as caught:
        dial(port=port, timeout=1.0)
    assert caught.value.code == "handshake"
    assert time.monotonic() - began < 15


def test_a_failed_connection_does_not_keep_the_process_alive(sshd, tmp_path):
    """paramiko's handshake timer is no daemon thread: left running it would hold the process for its whole time."""
    program = (
        "import sys, pathlib\n"
        "from cloudtrain.core.errors import ConnectionFailed\n"
        "from cloudtrain.transport.ssh import connect\n"
        "try: connect('127.0.0.1', int(sys.argv[1]), 'x', pathlib.Path(sys.argv[2]), sys.argv[3], timeout=60)\n"
        "except ConnectionFailed as error: print(error.code)\n"
    )

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"SSH-2.0-short\r\n")
        connection.close()

    with listening(serve) as port:
        command = [sys.executable, "-c", program, str(port), str(sshd.identity), sshd.host_key]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "handshake\n", "")


@pytest.mark.parametrize("after", [0, 1, 1000, 100_000, 3_000_000])
def test_a_reset_while_reading(sshd, dial, relay, after):
    link = relay(sshd.port)
    host = dial(port=link.port)
    with host.stream(["head", "-c", "100000000", "/dev/zero"]) as stream:
        link.cut("down", after)
        got = 0
        with pytest.raises(ConnectionFailed):
            while data := stream.read(20):
                got += len(data)
        assert got < 100_000_000
    with pytest.raises(ConnectionFailed):
        host.run(["true"])


@pytest.mark.parametrize("after", [100_000, 3_000_000])
def test_a_reset_while_sending(sshd, dial, relay, after):
    link = relay(sshd.port)
    host = dial(port=link.port)
    link.cut("up", after)
    with pytest.raises(ConnectionFailed):
        host.run(["cat"], stdin=(b"x" * 65_536 for _ in range(200)), timeout=30)


def test_the_output_of_a_cut_program_is_never_taken_for_complete(own_sshd, dial):
    """The end of the output and the end of the link look the same to paramiko: an empty read."""
    for _ in range(5):
        server = own_sshd()
        with dial(server).stream(["sh", "-c", "echo begin; sleep 20"]) as stream:
            assert stream.read(20) == b"begin\n"
            threading.Timer(0.2, server.stop).start()
            with pytest.raises(ConnectionFailed):
                stream.read(20)


@pytest.mark.parametrize("waiting", ["reading", "running", "sending", "opening"])
def test_a_peer_that_falls_silent_is_noticed(sshd, dial, relay, waiting, request):
    """Once as long as users wait for it, else by the shorter limits."""
    if waiting != "sending":
        request.getfixturevalue("impatient")
    within_s = ssh_link.PROBE_AFTER_S + ssh_link.PROBE_LIMIT_S + 3
    assert within_s <= NOTICED_WITHIN_S
    link = relay(sshd.port)
    host = dial(port=link.port)
    stream = host.stream(["sleep", "60"])
    endless = (b"x" * 65_536 for _ in iter(int, 1))
    call = {
        "reading": lambda: stream.read(60),
        "running": lambda: host.run(["sleep", "60"]),
        "sending": lambda: host.run(["sh", "-c", "cat >/dev/null"], stdin=endless),
        "opening": lambda: host.run(["true"]),
    }[waiting]
    if waiting == "opening":
        link.freeze()
    else:
        timer = threading.Timer(0.5, link.freeze)
        timer.start()
    began = time.monotonic()
    with pytest.raises(ConnectionFailed, match="silent"):
        call()
    assert time.monotonic() - began < within_s + 0.5
    with pytest.raises(ConnectionFailed):
        stream.read(1)
    stream.close()
    host.close()
    link.thaw()


def test_a_quiet_link_and_a_slow_one_are_left_alone(sshd, dial, relay, impatient):
    """Longer than it takes to give a silent peer up: first nothing at all, then a link that is always full."""
    link = relay(sshd.port, rtt=0.2, rate=100_000)
    host = dial(port=link.port)
    with host.stream(["sh", "-c", "sleep 4; echo still here"]) as stream:
        assert stream.read(30) == b"still here\n"
    assert host.run(["sh", "-c", "wc -c"], stdin=b"x" * 400_000, timeout=30).stdout.strip() == b"400000"


def test_new_keys_in_the_middle_of_everything(own_sshd, dial):
    """The server asks for new keys after each megabyte, while data flows both ways and programs begin and end."""
    host = dial(own_sshd(settings=("RekeyLimit 1M",)))
    block = bytes(range(256)) * 4096
    for _ in range(3):
        assert host.run(["cat"], stdin=(block for _ in range(10)), timeout=30).stdout == block * 10
        assert host.run(["head", "-c", "3000000", "/dev/zero"], timeout=30).stdout == bytes(3_000_000)


def test_the_client_leaves_new_keys_to_the_server(dial, monkeypatch):
    """paramiko's own limit, 512 MiB, here less, lets a program's end meet the exchange, and the two then wait for each
    other."""
    monkeypatch.setattr(Packetizer, "REKEY_BYTES", 16 * 1024 * 1024)
    host = dial()
    for _ in range(6):
        with host.stream(["head", "-c", str(8 * 1024 * 1024), "/dev/zero"]) as stream:
            while stream.read(60):
                pass
    assert host.run(["echo", "on"], timeout=20).stdout == b"on\n"


def test_identities_that_cannot_be_used(sshd, dial, tmp_path):
    protected = tmp_path / "protected"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "passphrase", "-f", str(protected)], check=True)
    (tmp_path / "text").write_text("no key\n")
    cases = {
        protected: "identity_protected",
        tmp_path / "missing": "bad_identity",
        tmp_path / "text": "bad_identity",
        protected.with_suffix(".pub"): "bad_identity",
    }
    for path, code in cases.items():
        with pytest.raises(UsageError) as caught:
            dial(key=path)
        assert (caught.value.code, caught.value.hint is not None) == (code, True)


def test_a_host_that_runs_no_programs_for_this_user(own_sshd, dial):
    server = own_sshd(settings=("MaxSessions 0",))
    host = dial(server)
    with pytest.raises(ConnectionFailed) as caught:
        host.run(["true"])
    assert caught.value.code == "exec_refused"

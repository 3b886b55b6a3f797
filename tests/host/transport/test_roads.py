"""Roads to a host: names of the user's SSH configuration, jump hosts, agents, passphrases, dead addresses, slow links.

The real ssh reads a configuration of the test's own: a program of that name, first in PATH, hands it over.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloudtrain.core import questions
from cloudtrain.core.errors import ConnectionFailed, HostKeyMismatch, UsageError
from cloudtrain.core.events import discard
from cloudtrain.core.instance import Instance, Login
from cloudtrain.core.plan import CodeSummary, make_plan
from cloudtrain.core.spec import JobSpec, RunSpec, Target, TrainSpec
from cloudtrain.lifecycle import openssh
from cloudtrain.lifecycle.openssh import Way
from cloudtrain.provider.host import HostMachine, HostProvider
from cloudtrain.provider.host_address import parse_host
from cloudtrain.transport import ssh_dial, ssh_keys, ssh_link
from cloudtrain.transport.ssh_trust import PinnedHosts
from tests import plans

pytestmark = [
    pytest.mark.sshd,
    pytest.mark.skipif(shutil.which("ssh") is None or os.name == "nt", reason="no OpenSSH client that can be wrapped"),
]


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Sets what the user's SSH configuration says; gives the home in which `~` of it lies."""
    real, config, home = shutil.which("ssh"), tmp_path / "ssh_config", tmp_path / "home"
    for folder in (tmp_path / "bin", home):
        folder.mkdir()
    wrapper = tmp_path / "bin" / "ssh"
    wrapper.write_text(f'#!/bin/sh\ncase " $* " in *" -F "*) exec {real} "$@";; esac\nexec {real} -F {config} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SHELL", "/bin/sh")

    def say(text: str) -> Path:
        config.write_text(text)
        return home

    return say


def spec_of(host: str, **given: Any) -> RunSpec:
    return RunSpec(
        name="brave-otter",
        target=Target.HOST,
        train=TrainSpec(),
        job=JobSpec(source="job"),
        runs_dir="runs",
        host=parse_host(host, **given),
    )


def acquired(host: str, **given: Any) -> tuple[Instance, list[str], str]:
    """The machine as after the first contact, the questions that were put, and what the plan says of the place."""
    asked: list[str] = []
    provider, spec = HostProvider(lambda question: bool(asked.append(question)) or True), spec_of(host, **given)
    plan = make_plan(spec, provider.survey(spec), CodeSummary(files=1, bytes=1))
    return provider.acquire(plan, plans.Memory(), discard), asked, plan.offer.where


def greeted(instance: Instance) -> bytes:
    with HostMachine(instance).open() as transport:
        return transport.run(["echo", "hello"]).stdout


def test_a_name_of_the_configuration_is_a_host(own_sshd: Any, configured: Any, tmp_path: Path) -> None:
    """Address, port, user and key come from there, and trust does not."""
    server = own_sshd()
    home = configured(
        "Host gpubox\n  HostName 127.0.0.1\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n"
        f'  Port {server.port}\n  User {server.user}\n  IdentityFile "~/a key of 100%%"\n  IdentitiesOnly yes\n'
    )
    shutil.copy(server.identity, home / "a key of 100%")
    instance, asked, where = acquired("gpubox")
    assert (instance.address, instance.port, instance.user) == ("127.0.0.1", server.port, server.user)
    assert len(asked) == 1, "the host's key is agreed to here"
    assert "(gpubox of the SSH configuration: 127.0.0.1, " in where and f"port {server.port}" in where
    assert greeted(instance) == b"hello\n"
    assert acquired(f"{server.user}@gpubox")[0] == instance
    server.stop()
    server.new_host_key()
    server.start()
    with pytest.raises(HostKeyMismatch):
        greeted(instance)
    assert PinnedHosts().get("127.0.0.1", server.port) == instance.host_key


def test_flags_come_before_the_configuration(own_sshd: Any, configured: Any, tmp_path: Path) -> None:
    server = own_sshd()
    configured("Host gpubox\n  HostName 127.0.0.1\n  Port 9\n  User nobody\n  HostKeyAlias box\n  ConnectTimeout 7\n")
    instance, _, _ = acquired(f"{server.user}@gpubox:{server.port}", identity=str(server.identity))
    assert greeted(instance) == b"hello\n"
    assert PinnedHosts().get("box", 22) == server.host_key


def test_what_a_configuration_does_not_say_is_asked_for(configured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    configured("Host other\n  HostName 127.0.0.1\n")
    with pytest.raises(UsageError, match="names no user, and the SSH configuration names none"):
        parse_host("gpubox")
    with pytest.raises(UsageError) as caught:
        HostProvider(None).survey(spec_of("me@other"))
    assert caught.value.code == "no_identity" and "no agent holds one" in caught.value.message
    configured("Host other\n  Nonsense yes\n")
    with pytest.raises(UsageError, match="ssh cannot read its configuration") as odd:
        parse_host("me@other")
    assert "Nonsense" in str(odd.value.detail) or "nonsense" in str(odd.value.detail)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="no OpenSSH client here"):
        parse_host("gpubox")
    assert parse_host("me@gpubox").name is None


def test_a_jump_host_leads_there(own_sshd: Any, configured: Any, tmp_path: Path) -> None:
    """Its own key is checked by ssh, as the user's configuration has it; what it says when it fails is quoted."""
    server, bastion = own_sshd(), own_sshd()
    known = tmp_path / "known"
    text = (
        f"Host gpubox\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.user}\n"
        f"  IdentityFile {server.identity}\n  ProxyJump bastion\n"
        f"Host bastion\n  HostName 127.0.0.1\n  Port {bastion.port}\n  User {bastion.user}\n"
        f"  IdentityFile {bastion.identity}\n  UserKnownHostsFile {known}\n"
    )
    configured(text)
    with pytest.raises(ConnectionFailed) as caught:
        acquired("gpubox")
    assert caught.value.code == "unreachable" and "Host key verification failed" in str(caught.value.detail)
    known.write_text(f"[127.0.0.1]:{bastion.port} {bastion.host_key}\n")
    instance, _, where = acquired("gpubox")
    assert "by way of bastion" in where
    assert greeted(instance) == b"hello\n"
    assert instance.host_key == server.host_key
    deadline = time.monotonic() + 5
    while bastion.sessions() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not bastion.sessions(), "the program that led there has ended"
    login = HostMachine(instance).login()
    assert login is not None
    assert by_ssh(way_to(instance, login, tmp_path)) == "hello\n"


@pytest.mark.parametrize("how", ["ends", "waits"])
def test_a_proxy_command_that_leads_nowhere_is_quoted(
    configured: Any, sshd: Any, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudtrain.provider.host.CONNECT_S", 0.5)
    then = {"ends": "exit 3", "waits": "exec sleep 600"}[how]
    configured(f"Host gpubox\n  HostName 192.0.2.7\n  ProxyCommand sh -c 'echo no way to %h 100%% >&2; {then}'\n")
    with pytest.raises(ConnectionFailed) as caught:
        acquired("me@gpubox", identity=str(sshd.identity))
    assert (caught.value.code, caught.value.detail) == ("unreachable", "no way to 192.0.2.7 100%")
    for text in ("ProxyCommand nc %Z", "ProxyCommand nc %h %p\n  HostName a;b"):
        configured(f"Host gpubox\n  {text}\n")
        with pytest.raises(UsageError) as odd:
            parse_host("me@gpubox")
        assert odd.value.code == "bad_host"


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An agent of the session, empty."""
    place = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.DEVNULL)
    while not place.exists():
        time.sleep(0.01)
    yield place
    process.terminate()
    process.wait()


@pytest.mark.parametrize("named", ["by the session", "by the configuration"])
def test_a_key_that_an_agent_holds_opens(
    own_sshd: Any, configured: Any, agent: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    server = own_sshd()
    text = f"Host gpubox\n  HostName 127.0.0.1\n  Port {server.port}\n"
    if named == "by the session":
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    else:
        text += f"  IdentityAgent {agent}\n  IdentitiesOnly yes\n  IdentityFile {server.identity}\n"
    configured(text)
    environment = {**os.environ, "SSH_AUTH_SOCK": str(agent)}
    subprocess.run(["ssh-add", "-q", str(server.identity)], env=environment, check=True, stderr=subprocess.DEVNULL)
    server.identity.unlink()
    instance, _, _ = acquired(f"{server.user}@gpubox")
    assert greeted(instance) == b"hello\n"


@pytest.mark.parametrize("form", ["RFC4716", "PEM"])
def test_a_passphrase_is_asked_for_once_and_before_the_plan(
    own_sshd: Any, configured: Any, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, key = own_sshd(), tmp_path / "locked"
    configured("")
    kind = ["-t", "rsa", "-m", form, "-N", "a word", "-C", "", "-f", str(key)]
    subprocess.run(["ssh-keygen", "-q", *kind], check=True)
    server.trust(key.with_suffix(".pub").read_text())
    host = f"{server.user}@127.0.0.1:{server.port}"
    spec = spec_of(host, identity=str(key))
    with pytest.raises(UsageError) as caught:
        HostProvider(None).survey(spec)
    assert caught.value.code == "identity_protected" and f"ssh-add {key}" in str(caught.value.hint)
    answers, asked = ["wrong\n", "a word\n"], []

    def answer(question: str, *, hidden: bool = False) -> str:
        asked.append((question, hidden))
        return answers[len(asked) - 1]

    monkeypatch.setattr(questions, "ask", answer)
    monkeypatch.setattr(ssh_keys, "_OPENED", {})
    assert greeted(acquired(host, identity=str(key))[0]) == b"hello\n"
    assert asked == [(f"Passphrase of {key}:", True)] * 2


def way_to(instance: Instance, login: Login, folder: Path) -> Way:
    known = folder / "known_hosts"
    known.write_text(f"ct-box {login.host_key}\n")
    return Way(str(instance.address), instance.port, str(instance.user), login, "ct-box", known)


def by_ssh(way: Way) -> str:
    """What ssh prints by the options of `cloudtrain ssh`, and by the entry that `--setup` writes."""
    line = ["ssh", "-F", "none", "-p", str(way.port), "-l", way.user]
    for name, value in way.options():
        line += ["-o", f"{name}={value}"]
    openssh.write({"box": way})
    said = [
        subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
        for command in (
            [*line, way.address, "echo hello"],
            ["ssh", "-F", str(openssh.our_file()), "ct-box", "echo hello"],
        )
    ]
    assert said[0] == said[1]
    return said[0]


@pytest.mark.parametrize("name", ["a b", "100%h", "it's", 'a "b" c', "back\\slash", "#1", "ünï"])
def test_ssh_finds_files_in_any_folder(own_sshd: Any, configured: Any, tmp_path: Path, name: str) -> None:
    server, folder = own_sshd(), tmp_path / name
    configured("")
    folder.mkdir()
    shutil.copy(server.identity, folder / "key")
    place = Instance(
        id="x", provider=Target.HOST, owned=False, workdir="w", address="127.0.0.1", port=server.port, user=server.user
    )
    assert by_ssh(way_to(place, Login((folder / "key",), server.host_key, None), folder)) == "hello\n"


def test_a_port_of_the_machine_is_reached_from_here(own_sshd: Any, configured: Any, tmp_path: Path) -> None:
    server = own_sshd()
    configured("")
    place = Instance(
        id="x", provider=Target.HOST, owned=False, workdir="w", address="127.0.0.1", port=server.port, user=server.user
    )
    way = way_to(place, Login((server.identity,), server.host_key, None), tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as there, socket.create_server(("127.0.0.1", 0)) as free:
        ports = f"{free.getsockname()[1]}:{there.getsockname()[1]}"
        options, [told] = openssh.forwarding([ports])
        line = ["ssh", "-F", "none", "-p", str(way.port), "-l", way.user, *options]
        line += [word for name, value in way.options() for word in ("-o", f"{name}={value}")]
        # A port that is taken here is an error, and no shell without it.
        taken = subprocess.run([*line, way.address, "echo hello"], capture_output=True, text=True, timeout=30)
        assert taken.returncode == 255 and "hello" not in taken.stdout
        free.close()
        with subprocess.Popen([*line, way.address, "echo hello; read -r end"], stdin=-1, stdout=-1) as ssh:
            assert ssh.stdout is not None and ssh.stdout.readline() == b"hello\n"
            with socket.create_connection(("127.0.0.1", int(ports.split(":")[0])), 10) as here:
                there.settimeout(10)
                with there.accept()[0] as arrived:
                    arrived.sendall(b"figures")
                    assert here.recv(7) == b"figures"
            ssh.communicate(b"\n", timeout=20)
    assert told.startswith(f"port {ports.split(':')[1]} of the machine is http://localhost:")


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives the name gpubox.test addresses, of IPv4."""
    real = socket.getaddrinfo

    def give(*addresses: str) -> None:
        def look(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
            if host != "gpubox.test":
                return real(host, port, *args, **kwargs)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, int(port))) for ip in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", look)

    return give


@pytest.fixture
def hole(sshd: Any) -> Iterator[str]:
    """An address that swallows connections to the server's port: its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.2", sshd.port))
        listener.listen(0)
        kept = [socket.socket() for _ in range(4)]
        for one in kept:
            one.setblocking(False)
            one.connect_ex(("127.0.0.2", sshd.port))
        yield "127.0.0.2"
        for one in kept:
            one.close()


@pytest.mark.skipif(sys.platform != "linux", reason="all of 127.0.0.0/8 is this computer on Linux alone")
def test_a_dead_address_is_not_waited_for(sshd: Any, dial: Any, named: Any, hole: str) -> None:
    named(hole, "127.0.0.1")
    began = time.monotonic()
    assert dial(address="gpubox.test").run(["true"]).exit_code == 0
    assert time.monotonic() - began < 2


@pytest.mark.skipif(sys.platform != "linux", reason="all of 127.0.0.0/8 is this computer on Linux alone")
def test_each_address_and_each_step_that_failed_is_named(
    sshd: Any, dial: Any, named: Any, hole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(hole, "127.0.0.3")
    with pytest.raises(ConnectionFailed) as caught:
        dial(address="gpubox.test", timeout=0.3)
    place = f"gpubox.test:{sshd.port}"
    assert caught.value.message.startswith(f"cannot reach {place} at any of its addresses: ")
    assert "127.0.0.2 did not answer within 0 s" in caught.value.message
    assert "127.0.0.3 connection refused" in caught.value.message
    with socket.create_server(("127.0.0.4", 0)) as silent:
        named("127.0.0.4")
        port = silent.getsockname()[1]
        with pytest.raises(ConnectionFailed, match=rf"gpubox\.test:{port} \(127\.0\.0\.4\) .*no SSH greeting"):
            dial(address="gpubox.test", port=port, timeout=0.3)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: time.sleep(1) or [])
    with pytest.raises(ConnectionFailed, match=r"looking up gpubox\.test took more than") as late:
        ssh_dial.dial("gpubox.test", 22, 0.1)
    assert late.value.code == "unknown_host"


def test_slow_is_not_silent(sshd: Any, dial: Any, relay: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on its way to the host has the time that it needs, however much the link itself takes in."""
    monkeypatch.setattr(ssh_link, "PROBE_AFTER_S", 0.1)
    monkeypatch.setattr(ssh_link, "PROBE_LIMIT_S", 0.2)
    link = relay(sshd.port, rtt=0.02, rate=300_000)
    host = dial(port=link.port)
    assert host.run(["sh", "-c", "wc -c"], stdin=os.urandom(400_000), timeout=1.0).stdout.strip() == b"400000"
    link.freeze()
    began = time.monotonic()
    with pytest.raises(ConnectionFailed, match="silent"):
        host.run(["true"])
    assert time.monotonic() - began < 2
    link.thaw()


def test_what_arrived_long_ago_does_not_make_a_slow_link_a_fast_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 kB went in small parts, over 20 s; the answer to the question behind them comes at once."""
    now = [0.0]
    monkeypatch.setattr(ssh_link, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def answered_after(seconds: float) -> Any:
        return SimpleNamespace(
            is_active=lambda: False, global_request=lambda *_, **__: now.__setitem__(0, now[0] + seconds)
        )

    wire: Any = SimpleNamespace(sent=0, heard=0.0)
    watch = ssh_link.Watch(answered_after(0.3), wire)
    now[0], wire.sent = 20.0, 64 * 1024
    watch._probe()
    assert watch._allowed == ssh_link._LEAST_AHEAD
    for _ in range(8):  # a fast link is known for one soon
        wire.sent += watch._allowed
        watch._probe()
    assert watch._allowed > 10_000_000

"""`--host`: what is typed, the first contact, the pin, and that the machine is left alone."""

from __future__ import annotations

import importlib.util
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core.disk import state_dir
from cloudtrain.core.errors import ConfirmationNeeded, HostKeyMismatch, UsageError
from cloudtrain.core.events import Noted, discard
from cloudtrain.core.plan import CodeSummary, Plan, make_plan
from cloudtrain.core.spec import HostSpec, JobSpec, RunSpec, Target, TrainSpec
from cloudtrain.core.states import InstanceLife
from cloudtrain.provider.host import HostMachine, HostProvider
from cloudtrain.transport.ssh_keys import fingerprint
from cloudtrain.transport.ssh_trust import PinnedHosts
from tests import plans

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3n1uGfzZpI0v1PqkPNm4mGJbX3nV0o6rZ6z2v8gqkT"


@pytest.fixture
def server(tmp_path: Path):
    path = Path(__file__).resolve().parent.parent / "transport" / "sshd.py"
    spec = importlib.util.spec_from_file_location("cloudtrain_tests_sshd", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules.setdefault("cloudtrain_tests_sshd", importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    reason = module.missing()
    if reason:
        pytest.skip(reason)
    with module.Sshd(tmp_path / "sshd") as running:
        yield running


def run_spec(server: Any, *, identity: Path | str | None = "own", key: str | None = None) -> RunSpec:
    given = server.identity if identity == "own" else identity
    host = HostSpec(
        user=server.user,
        address="127.0.0.1",
        port=server.port,
        identity=str(given) if given else None,
        fingerprint=key,
    )
    return RunSpec(
        name="brave-otter", target=Target.HOST, train=TrainSpec(), job=JobSpec(source="job"), runs_dir="runs", host=host
    )


def plan_of(spec: RunSpec, provider: HostProvider) -> Plan:
    return make_plan(spec, provider.survey(spec), CodeSummary(files=1, bytes=1))


def never(question: str) -> bool:
    raise AssertionError(f"asked: {question}")


@pytest.mark.sshd
def test_the_first_contact_shows_the_key_and_asks_and_the_next_does_not(server):
    asked: list[str] = []
    notes, told = plans.Memory(), []
    provider = HostProvider(lambda question: bool(asked.append(question)) or True)
    instance = provider.acquire(plan_of(run_spec(server), provider), notes, told.append)
    assert len(asked) == 1 and fingerprint(server.host_key) in asked[0]
    assert instance.host_key == server.host_key
    assert (instance.owned, instance.life, instance.price_per_hour) == (False, InstanceLife.NONE, None)
    assert (instance.workdir, instance.python) == (".cloudtrain", "python3")
    assert instance.id == f"{server.user}@127.0.0.1:{server.port}"
    assert any(isinstance(event, Noted) for event in told)
    # A later command: nobody is asked, the note of the run is enough.
    again = HostProvider(never)
    assert again.acquire(plan_of(run_spec(server), again), plans.Memory(), discard) == instance
    found = again.find("brave-otter", notes)
    assert found == instance
    with again.machine(found, notes, discard).open() as transport:
        assert transport.run(["echo", "hello"]).stdout == b"hello\n"


@pytest.mark.sshd
def test_a_no_sends_and_keeps_nothing(server):
    provider = HostProvider(lambda question: False)
    with pytest.raises(UsageError) as caught:
        provider.acquire(plan_of(run_spec(server), provider), plans.Memory(), discard)
    assert caught.value.code == "host_not_trusted"
    assert PinnedHosts().get("127.0.0.1", server.port) is None
    assert b"userauth" not in server.log.read_bytes()


def no_terminal(question: str) -> bool:
    raise ConfirmationNeeded("cannot ask for confirmation without a terminal")


@pytest.mark.sshd
@pytest.mark.parametrize("ask", [None, no_terminal])
def test_without_a_terminal_the_flag_to_use_is_named(server, ask):
    provider = HostProvider(ask)
    with pytest.raises(ConfirmationNeeded) as caught:
        provider.acquire(plan_of(run_spec(server), provider), plans.Memory(), discard)
    shown = fingerprint(server.host_key)
    assert f"--host-key {shown}" in caught.value.hint
    assert PinnedHosts().get("127.0.0.1", server.port) is None
    # And with it, it works.
    instance = provider.acquire(plan_of(run_spec(server, key=shown), provider), plans.Memory(), discard)
    assert instance.host_key == server.host_key


@pytest.mark.sshd
def test_another_key_than_the_one_given_is_refused(server):
    provider = HostProvider(never)
    with pytest.raises(HostKeyMismatch) as caught:
        provider.acquire(plan_of(run_spec(server, key=fingerprint(KEY)), provider), plans.Memory(), discard)
    assert fingerprint(KEY) in caught.value.detail and fingerprint(server.host_key) in caught.value.detail
    assert PinnedHosts().get("127.0.0.1", server.port) is None
    assert b"userauth" not in server.log.read_bytes()


@pytest.mark.sshd
def test_a_machine_that_was_replaced_is_refused_until_its_entry_is_deleted(server):
    provider, notes = HostProvider(lambda question: True), plans.Memory()
    instance = provider.acquire(plan_of(run_spec(server), provider), notes, discard)
    old = server.host_key
    server.stop()
    server.new_host_key()
    server.start()
    said = len(server.log.read_bytes())
    with pytest.raises(HostKeyMismatch) as caught:
        HostMachine(instance).open()
    assert fingerprint(old) in caught.value.detail and fingerprint(server.host_key) in caught.value.detail
    assert str(state_dir() / "hosts.json") in caught.value.hint
    assert f"[127.0.0.1]:{server.port}" in caught.value.hint
    assert b"userauth" not in server.log.read_bytes()[said:]
    with pytest.raises(HostKeyMismatch):
        given = run_spec(server, key=fingerprint(server.host_key))
        provider.acquire(plan_of(given, provider), plans.Memory(), discard)
    # As the hint says: forget it, look at the new key, go on. The run that began before goes on too.
    (state_dir() / "hosts.json").unlink()
    fresh = provider.acquire(plan_of(run_spec(server), provider), plans.Memory(), discard)
    assert fresh.host_key == server.host_key
    HostMachine(instance).open().close()


@pytest.mark.sshd
def test_release_leaves_the_machine_alone(server):
    provider, notes = HostProvider(lambda question: True), plans.Memory()
    instance = provider.acquire(plan_of(run_spec(server), provider), notes, discard)
    for _ in range(2):
        released = HostMachine(instance).release()
        assert (released.life, released.leftovers) == (InstanceLife.NONE, ())
    HostMachine(instance).open().close()


@pytest.mark.sshd
def test_no_key_is_looked_for(server, monkeypatch, tmp_path):
    home = tmp_path / "laptop"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_bytes(server.identity.read_bytes())
    monkeypatch.setenv("HOME", str(home))
    provider = HostProvider(never)
    with pytest.raises(UsageError) as caught:
        provider.survey(run_spec(server, identity=None))
    assert caught.value.code == "no_identity" and "--identity" in caught.value.hint


@pytest.mark.sshd
def test_an_identity_that_is_not_there_is_told_before_anything_starts(server, tmp_path):
    with pytest.raises(UsageError) as caught:
        HostProvider(never).survey(run_spec(server, identity=tmp_path / "nothing"))
    assert caught.value.code == "bad_identity"


def test_many_pins_at_once_are_all_kept():
    threads = [threading.Thread(target=PinnedHosts().pin, args=("example.org", port, KEY)) for port in range(1, 21)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(PinnedHosts().get("example.org", port) == KEY for port in range(1, 21))

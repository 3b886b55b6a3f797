"""Tier 1: nobody is sent to a machine that has ended; OpenSSH would only say that it does not answer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloudtrain.core.errors import GONE, ConnectionFailed, ExitCode, SignInError, UsageError
from cloudtrain.core.instance import Instance
from cloudtrain.core.notes import Journal
from cloudtrain.lifecycle import openssh
from cloudtrain.lifecycle.session import Context, Session
from cloudtrain.provider.local import LocalProvider
from cloudtrain.store import Store
from tests import plans
from tests.unit.lifecycle.test_machine_end import kept


class Account(LocalProvider):
    """Knows what AWS would say of the run's machine."""

    def __init__(self, says: Instance | SignInError | None) -> None:
        super().__init__()
        self.says = says

    def find(self, run: str, journal: Journal) -> Instance | None:
        if isinstance(self.says, SignInError):
            raise self.says
        return self.says


@pytest.mark.parametrize("for_s", [-60.0, 600.0])
def test_a_machine_that_has_ended_is_no_place_to_log_in_to(tmp_path: Path, for_s: float) -> None:
    store = Store(tmp_path / "registry.sqlite")
    run = kept(store, tmp_path, for_s)
    with (
        Session(run, Context(store=store, provider=lambda spec: Account(None))) as session,
        pytest.raises(ConnectionFailed, match="the machine of brave-otter has ended") as caught,
    ):
        openssh.check_there(run, session)
    assert caught.value.code == GONE and caught.value.exit_code is ExitCode.CONNECTION
    assert "nothing of it is billed any more" in (caught.value.consequence or "")
    assert "cloudtrain show brave-otter" in (caught.value.hint or "")


@pytest.mark.parametrize("says", [plans.machine(), SignInError("the credentials have expired")])
def test_a_machine_that_may_be_up_is(tmp_path: Path, says: Instance | SignInError) -> None:
    store = Store(tmp_path / "registry.sqlite")
    run = kept(store, tmp_path, 600.0)
    with Session(run, Context(store=store, provider=lambda spec: Account(says))) as session:
        openssh.check_there(run, session)


@pytest.mark.parametrize(
    ("argv", "typed"),
    [
        (("cd out; ls -l | head",), "cd out; ls -l | head"),
        (("nvidia-smi",), "nvidia-smi"),
        (("echo", "it's $HOME", "&& false"), """echo 'it'"'"'s $HOME' '&& false'"""),
    ],
)
def test_one_word_is_a_line_of_the_shell_there(argv: tuple[str, ...], typed: str) -> None:
    assert openssh.typed_there(argv) == typed


@pytest.mark.skipif(os.name == "nt", reason="programs have another name there")
def test_no_ssh_of_the_project_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "ssh").touch(mode=0o755)
    monkeypatch.chdir(project)
    monkeypatch.setenv("PATH", os.pathsep.join((".", "", str(project))))
    store = Store(tmp_path / "registry.sqlite")
    run = kept(store, tmp_path, 600.0)
    with (
        Session(run, Context(store=store, provider=lambda spec: LocalProvider())) as session,
        pytest.raises(UsageError, match="no OpenSSH client"),
    ):
        openssh.command(run, session)


def test_ports_of_the_machine_are_ports_here() -> None:
    options, told = openssh.forwarding(["6006", "8888:80"])
    assert options[2:] == ["-L", "127.0.0.1:6006:localhost:6006", "-L", "127.0.0.1:8888:localhost:80"]
    assert told[1] == "port 80 of the machine is http://localhost:8888 here"
    assert openssh.forwarding([]) == ([], [])
    for wrong in ("0", "65536", "a", "1:2:3", "-1", " 80", "\u0663", ":80"):
        with pytest.raises(UsageError, match="is no port"):
            openssh.forwarding([wrong])

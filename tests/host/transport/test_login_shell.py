"""Logins whose start-up file prints or runs something of its own, at a real OpenSSH server."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core.errors import ConnectionFailed, UsageError
from cloudtrain.core.events import discard
from cloudtrain.source import tree
from cloudtrain.transfer.frames import End, LogFrame
from cloudtrain.transfer.push import push
from cloudtrain.transfer.supervisor import Supervisor
from cloudtrain.transport import ssh_program
from cloudtrain.transport.ssh import SshTransport

pytestmark = pytest.mark.sshd

JOB = """\
import os
print("trained")
with open(os.environ["CLOUDTRAIN_OUT"] + "/weights.bin", "wb") as file:
    file.write(bytes(range(256)) * 1000)
"""
# A word, a window's title without a line end, and an answer of another program's.
GREETING = """\
echo "Welcome to the lab machine"
echo '{"ok": false, "code": "disk_full", "message": "of somebody else"}'
echo noise >&2
printf '\\033]0;gpubox\\007'
"""
# Stands for a shell that takes what comes for commands: it keeps it.
OTHER_SHELL = 'exec sh -c \'cat >> "$HOME/fed"; printf "\\033[1mwhat is\\nthis?"\'\n'


class Login:
    """A server whose logins read a `.bashrc`, as bash does for sshd on Debian, Ubuntu, Fedora and their kin."""

    def __init__(self, folder: Path, own_sshd: Callable[..., Any], dial: Callable[..., SshTransport]) -> None:
        self.folder = folder
        self.home = folder / "sshd-0" / "home"  # where the server's own home will be
        self.home.mkdir(parents=True)
        path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
        self.server = own_sshd(settings=(f'SetEnv "HOME={self.home}" SHLVL=0 "PATH={path}"',))
        self.dial = dial
        self.source = folder / "job"
        self.source.mkdir()
        (self.source / "train.py").write_text(JOB)

    def starts_with(self, text: str) -> None:
        (self.home / ".bashrc").write_text(text)

    def supervisor(self, transport: SshTransport) -> Supervisor:
        return Supervisor(transport, "python3", f"{self.folder}/work/runs/otter", f"{self.folder}/work", "its-id")

    def push(self, transport: SshTransport) -> str:
        where = {"workdir": f"{self.folder}/work", "run_dir": f"{self.folder}/work/runs/otter", "key": "job-1"}
        files = tree.scan(self.source, cache=None)
        return push(transport, files, python="python3", target_id=str(self.folder), emit=discard, **where).digest


@pytest.fixture
def login(
    tmp_path: Path, own_sshd: Callable[..., Any], dial: Callable[..., SshTransport], monkeypatch: pytest.MonkeyPatch
) -> Login:
    monkeypatch.setenv("CLOUDTRAIN_HOME", str(tmp_path / "state"))
    made = Login(tmp_path, own_sshd, dial)
    made.starts_with("echo it is read\n")
    if b"it is read" not in made.dial(made.server).run(["true"]).stdout:
        pytest.skip("bash here reads no .bashrc for a login by SSH")
    return made


def test_what_a_login_prints_is_no_part_of_any_answer(login: Login) -> None:
    login.starts_with(GREETING)
    transport = login.dial(login.server)
    supervisor = login.supervisor(transport)
    assert supervisor.probe().cpus
    spec = {
        "v": 1,
        "run": "otter",
        "tree": "job-1",
        "digest": login.push(transport),
        "argv": ["python3", "job/train.py"],
    }
    assert supervisor.start(spec).started
    with supervisor.follow() as frames:
        came = list(frames)
    assert b"".join(frame.data for frame in came if isinstance(frame, LogFrame)) == b"trained\n"
    end = came[-1]
    assert isinstance(end, End) and end.exit is not None and end.exit.code == 0
    assert supervisor.poll().log == b"trained\n"
    [weights] = supervisor.manifest().files
    with supervisor.read(f"out/{weights.name}", 256) as stream:
        data = b"".join(iter(lambda: stream.read(30.0), b""))
        assert stream.finish(30.0).exit_code == 0
    assert data == bytes(range(256)) * 999
    with supervisor.read("out/nothing") as stream:
        assert stream.read(30.0) == b"" and stream.finish(30.0).stderr == b"the run has no out/nothing"


def test_nothing_is_sent_to_a_shell_that_took_the_programs_place(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_program, "FIRST_WORD_S", 1.0)
    transport = login.dial(login.server)
    login.starts_with(OTHER_SHELL)
    supervisor = login.supervisor(transport)
    spec = {"v": 1, "run": "otter", "tree": "job-1", "digest": "0" * 64, "argv": ["true"]}
    acts: list[Callable[[], object]] = [
        supervisor.probe,
        lambda: login.push(transport),
        lambda: supervisor.start(spec),
        supervisor.poll,
        supervisor.manifest,
        lambda: list(supervisor.follow()),
    ]
    for act in acts:
        with pytest.raises(ConnectionFailed) as caught:
            act()
        assert caught.value.code == "login_shell"
        assert 'it said "what is this?"' in caught.value.message and "~/.bashrc" in str(caught.value.hint)
        assert caught.value.consequence
    assert (login.home / "fed").read_bytes() == b""
    assert not (login.folder / "work").exists()


@pytest.mark.parametrize("shell", ["dash", "zsh", "fish"])
def test_another_shell_ends_at_once_when_nothing_comes(
    login: Login, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    monkeypatch.setattr(ssh_program, "FIRST_WORD_S", 1.0)
    login.starts_with(f"exec {shutil.which(shell)}\n")
    with pytest.raises(ConnectionFailed, match="it said nothing") as caught:
        login.supervisor(login.dial(login.server)).probe()
    assert caught.value.code == "login_shell"


def test_a_flood_is_not_read_to_its_end(login: Login) -> None:
    login.starts_with("exec yes spam\n")
    supervisor = login.supervisor(login.dial(login.server))
    for act in (supervisor.probe, lambda: list(supervisor.follow())):
        with pytest.raises(ConnectionFailed) as caught:
            act()
        assert caught.value.code == "login_shell" and len(caught.value.message) < 400


def test_a_host_without_python_is_still_said_to_need_one(login: Login) -> None:
    login.starts_with("PATH=/nowhere\n")
    with pytest.raises(ConnectionFailed) as caught:
        login.supervisor(login.dial(login.server)).probe()
    assert caught.value.code == "no_answer" and "Python 3.8" in str(caught.value.hint)


def test_an_interpreter_of_any_path_comes_through_the_shell_whole(login: Login) -> None:
    name = 'it\'s "100%" $HOME `x` \\ ~'
    python = login.home / name / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    with login.dial(login.server) as transport:
        facts = login.supervisor(transport).probe(f"~/{name}/python")
        assert (facts.python, facts.why) == (str(python), "given")
        with pytest.raises(UsageError, match=r"no\\such: 100% cannot be run there") as caught:
            login.supervisor(transport).probe("/no\\such: 100%")
    assert caught.value.code == "bad_python" and caught.value.consequence == "nothing was sent"

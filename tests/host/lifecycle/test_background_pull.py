"""Results come down beside the story: verified, paced, and never in anybody's way."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core.disk import sha256
from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.events import Event, Noted, discard
from cloudtrain.core.notes import FileEntry
from cloudtrain.lifecycle import background_pull, checkpoints
from cloudtrain.lifecycle.background_pull import Trickle
from cloudtrain.onhost.locks import take
from cloudtrain.store import Run, Store
from cloudtrain.transfer import pull
from cloudtrain.transfer.answers import Manifest
from cloudtrain.transfer.supervisor import Supervisor
from cloudtrain.transport.base import Stream
from cloudtrain.transport.local import LocalTransport
from tests import plans
from tests.program import put_program

CHECKPOINT = {"kind": "checkpoint", "epoch": 1, "name": "checkpoints/last.pt"}


class Host:
    """A run directory on this computer, and the way to it."""

    def __init__(self, folder: Path) -> None:
        self.run = folder / "runs" / "brave-otter"
        (self.run / "out").mkdir(parents=True)
        put_program(self.run)
        self.transport = LocalTransport(folder)
        self.supervisor: Supervisor | None = Supervisor(self.transport, sys.executable, str(self.run), str(folder))
        self.looked = 0

    def living(self) -> Supervisor | None:
        self.looked += 1
        return self.supervisor

    def put(self, name: str, data: bytes) -> str:
        path = self.run / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + ".part")
        aside.write_bytes(data)
        aside.replace(path)
        return str(sha256(path))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path / "host")
    yield made
    made.transport.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "registry.sqlite")


@pytest.fixture
def run(store: Store, tmp_path: Path) -> Run:
    row = store.add(plans.plan(tmp_path / "results"))
    row.folder.mkdir(parents=True)
    return row


def beside(host: Host, run: Run, store: Store, told: list[Event], **options: Any) -> Trickle:
    options = {"mib_s": 1000.0, "spacing_s": 0.0, **options}
    return Trickle(host, run.folder, ("**",), store.journal(run.name), told.append, **options)


def until(what: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_a_checkpoint_and_all_that_is_finished_come_when_the_job_tells_of_it(
    host: Host, run: Run, store: Store
) -> None:
    digest = host.put("checkpoints/last.pt", b"weights" * 1000)
    host.put("metrics.csv", b"1,2,3\n")
    (host.run / "out" / "half.bin.part").write_bytes(b"half")
    told: list[Event] = []
    with beside(host, run, store, told) as going:
        going.heard({"kind": "step", "step": 1})
        going.heard({**CHECKPOINT, "step": 7})
        until(lambda: store.read_journal(run.name).checkpoint)
    assert (run.folder / "checkpoints" / "last.pt").read_bytes() == b"weights" * 1000
    assert (run.folder / "metrics.csv").exists() and not list(run.folder.rglob("half*"))
    known = checkpoints.latest(run, store.read_journal(run.name))
    assert known is not None and (known.sha256, known.epoch, known.step) == (digest, 1, 7)
    assert known.where() == "in epoch 2, after 7 steps"
    (run.folder / ".pull").mkdir(exist_ok=True)
    (run.folder / ".pull" / "half.part").write_bytes(b"half")
    background_pull.keep(run.folder, store.journal(run.name))
    assert not (run.folder / ".pull").exists()
    kept = list(store.read_journal(run.name).pulled or ())
    assert {entry.name for entry in kept} == {"checkpoints/last.pt", "metrics.csv"} and not told


def test_a_job_that_tells_nothing_is_looked_at_now_and_then(host: Host, run: Run, store: Store) -> None:
    host.put("weights.bin", b"w")
    with beside(host, run, store, [], every_s=0.1):
        until(lambda: (run.folder / "weights.bin").exists())
        host.put("weights.bin", b"new")
        until(lambda: (run.folder / "weights.bin").read_bytes() == b"new")
    assert background_pull.EVERY_S <= 60
    assert checkpoints.latest(run, store.read_journal(run.name)) is None


def test_event_files_that_are_still_written_are_read_on_and_no_file_is_made_of_them(
    host: Host, run: Run, store: Store
) -> None:
    (host.run / "spec.json").write_text('{"results": "mine"}')
    file = host.run / "code" / "mine" / "tb" / "events.out.tfevents.1"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"one")
    pieces: list[tuple[str, int, bytes]] = []
    lock = take(str(host.run / "lock"))  # as its supervisor has it
    assert lock is not None
    try:
        with beside(host, run, store, [], every_s=0.1) as going:
            until(lambda: pieces.extend(going.grown()) or pieces)
            with file.open("ab") as more:
                more.write(b"two")
            until(lambda: pieces.extend(going.grown()) or len(pieces) > 1)
    finally:
        os.close(lock)
    name = "tb/events.out.tfevents.1"
    assert pieces == [(name, 0, b"one"), (name, 3, b"two")] and not list(run.folder.rglob("*tfevents*"))


def test_nothing_comes_at_a_rate_of_zero(host: Host, run: Run, store: Store) -> None:
    host.put("checkpoints/last.pt", b"w")
    with beside(host, run, store, [], mib_s=0.0, every_s=0.05) as going:
        going.heard(CHECKPOINT)
        time.sleep(0.3)
    assert not host.looked and not list(run.folder.iterdir())


def test_it_lets_go_at_once_and_the_final_pull_goes_on_where_it_stopped(host: Host, run: Run, store: Store) -> None:
    data = os.urandom(24 * 2**20)
    host.put("checkpoints/last.pt", data)
    with beside(host, run, store, [], mib_s=1.0) as going:
        going.heard(CHECKPOINT)
        until(lambda: any(part.stat().st_size for part in (run.folder / ".pull").glob("*.part")))
        began = time.monotonic()
    assert time.monotonic() - began < 8, "24 s would be left at this rate"
    [part] = (run.folder / ".pull").glob("*.part")
    have = part.stat().st_size
    assert 0 < have < len(data) and not (run.folder / "checkpoints").exists()
    assert host.supervisor is not None
    report = pull.pull(host.supervisor, host.supervisor.manifest().files, run.folder, emit=discard)
    assert report.bytes == len(data) - have
    assert (run.folder / "checkpoints" / "last.pt").read_bytes() == data


def test_a_file_that_is_replaced_while_it_comes_is_the_old_one_or_the_new_one(
    host: Host, run: Run, store: Store
) -> None:
    old = os.urandom(3 * 2**20)
    host.put("checkpoints/last.pt", old)
    with beside(host, run, store, [], mib_s=3.0) as going:
        going.heard(CHECKPOINT)
        until(lambda: any(part.stat().st_size for part in (run.folder / ".pull").glob("*.part")))
        newer = host.put("checkpoints/last.pt", os.urandom(3 * 2**20))
        until(lambda: "trickled" in store.read_journal(run.name).given)
        assert checkpoints.latest(run, store.read_journal(run.name)) is not None
        going.heard({**CHECKPOINT, "epoch": 2})
        until(lambda: getattr(store.read_journal(run.name).checkpoint, "sha256", None) == newer)
    known = checkpoints.latest(run, store.read_journal(run.name))
    assert known is not None and (known.sha256, known.epoch) == (newer, 2)


class Frozen(Supervisor):
    """A host that has stopped to answer, without a word."""

    def __init__(self, host: Host, *, manifest: bool) -> None:
        super().__init__(host.transport, sys.executable, str(host.run), str(host.run))
        self._host = host
        self._manifest = manifest
        self.asked = False

    def manifest(self, most: float | None = None) -> Manifest:
        if not self._manifest:
            return super().manifest(most)
        self.asked = True
        with self._silence() as stream:
            for _ in range(100):
                try:
                    stream.read(0.1)
                except TimeoutError:
                    continue
        raise ConnectionFailed("it fell silent")

    def read(self, name: str, offset: int = 0) -> Stream:
        self.asked = True
        return self._silence()

    def send(self, asked: Sequence[tuple[str, int, int]]) -> Stream:
        return self.read("")

    def _silence(self) -> Stream:
        return self._host.transport.stream([sys.executable, "-c", "import time; time.sleep(60)"])


@pytest.mark.parametrize("manifest", [True, False])
def test_a_frozen_link_holds_nobody_up(host: Host, run: Run, store: Store, manifest: bool) -> None:
    host.put("weights.bin", b"w")
    frozen = Frozen(host, manifest=manifest)
    host.supervisor = frozen
    with beside(host, run, store, []) as going:
        going.heard(CHECKPOINT)
        until(lambda: frozen.asked)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert not (run.folder / "weights.bin").exists()
    # Whatever the thread still waits for: the folder is the final pull's alone.
    entry = FileEntry("weights.bin", 1, str(sha256(host.run / "out" / "weights.bin")))
    whole = Supervisor(host.transport, sys.executable, str(host.run), str(host.run))
    assert pull.pull(whole, [entry], run.folder, emit=discard).files == (entry,)


def test_a_failure_is_noted_once_and_tried_again(host: Host, run: Run, store: Store) -> None:
    class Broken(Supervisor):
        def manifest(self, most: float | None = None) -> Manifest:
            raise ConnectionFailed("the link broke")

    host.put("weights.bin", b"w")
    whole, told = host.supervisor, list[Event]()
    host.supervisor = Broken(host.transport, sys.executable, str(host.run), str(host.run))
    with beside(host, run, store, told) as going:
        for _ in range(3):
            before = host.looked
            going.heard(CHECKPOINT)
            until(lambda: host.looked > before)  # noqa: B023
        until(lambda: going.heard({"kind": "step"}) or told)
        host.supervisor = None  # the story is about to connect again: nothing to look at, and nothing to say
        going.heard(CHECKPOINT)
        host.supervisor = whole
        going.heard(CHECKPOINT)
        until(lambda: (run.folder / "weights.bin").exists())
    [note] = told
    assert isinstance(note, Noted) and "the link broke" in note.message


def test_of_checkpoints_that_a_program_rotates_the_latest_stay_here(host: Host, run: Run, store: Store) -> None:
    names = [f"checkpoints/{number}.pt" for number in range(5)]
    with beside(host, run, store, [], every_s=0.05, keeps=2500):
        for number, name in enumerate(names):
            host.put(name, bytes([number]) * 1000)
            until(lambda: name in {one.name for one in store.read_journal(run.name).trickled})  # noqa: B023
            if number == 3:
                (run.folder / names[1]).write_bytes(b"the user's own by now")
            (host.run / "out" / name).unlink()
        until(lambda: not (run.folder / names[2]).exists())
    assert [name for name in names if (run.folder / name).exists()] == [names[1], *names[3:]]
    # A program that goes on elsewhere may look for them.
    assert [one.name for one in store.read_journal(run.name).trickled] == names[3:]
    assert (run.folder / names[1]).read_bytes() == b"the user's own by now"


REWRITES = """
import sys, time
with open(sys.argv[1], "wb") as file:
    for version in (1, 2):
        file.seek(0)
        for pause in (0.05, 0.4, 0.05, 0.4):
            file.write(bytes([version]) * 2500)
            file.flush()
            time.sleep(pause)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a lock there is its process's alone")
def test_a_file_that_is_written_in_place_never_comes_torn(host: Host, run: Run, store: Store) -> None:
    code = host.run / "code" / "p"
    code.mkdir(parents=True)
    (host.run / "spec.json").write_text('{"results": "p"}')
    program = host.run / "onhost" / "results.py"
    program.write_text(program.read_text().replace("SETTLES_S = 10.0", "SETTLES_S = 1.0"))
    (code / "done.txt").write_bytes(b"done")
    lock = take(str(host.run / "lock"))  # as its supervisor has it
    assert lock is not None
    here, seen = run.folder / "model.pt", set[bytes]()
    try:
        with beside(host, run, store, [], every_s=0.05):
            with subprocess.Popen([sys.executable, "-c", REWRITES, str(code / "model.pt")]) as writes:
                while writes.poll() is None:
                    seen |= {here.read_bytes()} if here.exists() else set()
                    time.sleep(0.02)
            until(here.exists)
            until((run.folder / "done.txt").exists)
    finally:
        os.close(lock)
    assert here.read_bytes() == b"\2" * 10_000
    assert all(len(set(body)) == 1 and len(body) == 10_000 for body in seen), "it came while it was written"

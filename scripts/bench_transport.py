"""What the SSH transport costs, against OpenSSH's own programs: python3 scripts/bench_transport.py [--quick] [--write]

One run over a real sshd on loopback, straight and behind a relay with 30 ms round trip time and 50 Mbit/s each way,
with everything in rotation. `--write` puts the tables into docs/benchmarks.md. The exit code is 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import _require_python  # noqa: F401  first: under an old Python it ends here, with a clear message
from _benchmarks import circumstances, table, write_section
from _terminal import Stop, entry, say
from _transport_rig import RATE, RTT_S, Rig, Way, data_tree, median, rig, rotate, source_tree

MIB = 1024 * 1024
LINES = 200
CUTS = 20


class Goals:
    """Goals with what was found, in the order of measuring."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self.missed = 0

    def check(self, what: str, found: float, goal: float, *, at_least: bool = False, unit: str = "") -> None:
        """Note whether `found` keeps `goal`."""
        met = found >= goal if at_least else found <= goal
        self.missed += not met
        sign = ">=" if at_least else "<="
        self.rows.append([what, f"{sign} {goal:g}{unit}", f"{found:.2f}{unit}", "met" if met else "missed"])


def chunks(path: Path, size: int = 31 * 1024) -> Iterator[bytes]:
    """A file in pieces."""
    with path.open("rb") as file:
        while chunk := file.read(size):
            yield chunk


def push_of(kit: Rig, host: Any, folder: Path, *, key: str, target: str) -> Callable[[], float]:
    """A call that pushes `folder` as `cloudtrain run` does, and gives its seconds without the scan."""
    from cloudtrain.core.disk import cache_dir
    from cloudtrain.core.events import discard
    from cloudtrain.source.tree import scan
    from cloudtrain.transfer.push import push

    def call() -> float:
        tree = scan(folder, cache=cache_dir())
        workdir = kit.folder / "cloud"
        began = time.perf_counter()
        push(
            host,
            tree,
            python="python3",
            workdir=str(workdir),
            run_dir=str(workdir / "runs" / target),
            key=key,
            target_id=target,
            emit=discard,
        )
        return time.perf_counter() - began

    return call


def small_tree(kit: Rig, rounds: int, goals: Goals) -> str:
    """A source tree of 200 files to a host that has nothing of it."""
    folder = kit.folder / "local" / "source"
    size = source_tree(folder)
    rows = []
    for way in kit.ways:
        with kit.connect(way) as host:
            ssh = way.ssh

            def ours(host: Any = host) -> float:
                name = f"t{next(kit.counter)}"
                return push_of(kit, host, folder, key=name, target=name)()

            def tar(ssh: Any = ssh) -> None:
                to = kit.fresh("tar")
                ssh.shell(f"tar cf - -C {folder} . | {ssh.ssh(f'mkdir {to} && tar xf - -C {to}')}")

            def rsync(ssh: Any = ssh) -> None:
                ssh.rsync("-a", f"{folder}/", f"{ssh.place}:{kit.fresh('rsync')}/")

            def scp(ssh: Any = ssh) -> None:
                ssh.scp("-r", "-q", str(folder), f"{ssh.place}:{kit.fresh('scp')}")

            methods: dict[str, Callable[[], float | None]] = {"cloudtrain": ours, "tar": tar, "rsync": rsync}
            found = rotate(f"small tree, {way.name}", methods, rounds)
            # One file costs scp several round trips, so once is enough.
            began = time.perf_counter()
            scp()
            found["scp"] = [time.perf_counter() - began]
        best = {name: median(seconds) for name, seconds in found.items()}
        rows.append([way.name, *(f"{best[n]:.2f}" for n in best), f"{best['cloudtrain'] / best['tar']:.2f}"])
        if way.far:
            goals.check("small tree behind the relay: time / (tar over ssh)", best["cloudtrain"] / best["tar"], 0.6)
    head = ["", "cloudtrain push", "tar over ssh", "rsync -a", "scp -r", "cloudtrain / tar"]
    return f"First push of a source tree, 200 files, {size / 1e6:.1f} MB, seconds:\n\n{table(head, rows)}"


def one_of_many(kit: Rig, rounds: int, goals: Goals, files: int) -> str:
    """One changed file of a tree that the host has."""
    folder = kit.folder / "local" / "many"
    say(f"  making a tree of {files} files, 100 kB each")
    data_tree(folder, files, 100_000)
    rows, times = [], {}
    rsynced = kit.fresh("many")
    for way in kit.ways:
        with kit.connect(way) as host:
            ours = push_of(kit, host, folder, key="many", target="many")

            def change() -> None:
                with (folder / "part7" / "00007.bin").open("r+b") as file:
                    file.write(os.urandom(64))

            def rsync(ssh: Any = way.ssh) -> None:
                change()
                ssh.rsync("-a", f"{folder}/", f"{ssh.place}:{rsynced}/")

            def timed_rsync(rsync: Callable[[], None] = rsync) -> float:
                began = time.perf_counter()
                rsync()
                return time.perf_counter() - began

            def timed_ours(ours: Callable[[], float] = ours) -> float:
                change()
                return ours()

            found = rotate(f"re-push, {way.name}", {"cloudtrain": timed_ours, "rsync": timed_rsync}, rounds)
        best = times[way.name] = {name: median(seconds) for name, seconds in found.items()}
        ratio = best["cloudtrain"] / best["rsync"]
        rows.append([way.name, f"{best['cloudtrain']:.3f}", f"{best['rsync']:.3f}", f"{ratio:.2f}"])
        if way.far:
            goals.check("re-push of 1 in 2,000 files behind the relay: time / (rsync -a)", ratio, 0.7)
    near, far = (times[way.name]["cloudtrain"] for way in kit.ways)
    goals.check("re-push of 1 in 2,000 files: round trips (far less near, by the RTT)", (far - near) / RTT_S, 7)
    head = ["", "cloudtrain push", "rsync -a", "cloudtrain / rsync"]
    return (
        f"One changed file of {files} (100 kB each), seconds; all of it behind the relay is "
        f"{far / RTT_S:.1f} round trip times:\n\n{table(head, rows)}"
    )


def big_file(kit: Rig, rounds: int, goals: Goals, near_mib: int, far_mib: int) -> str:
    """One incompressible file, there and back."""
    from cloudtrain.core.events import discard
    from cloudtrain.run_folder.artifacts import FileEntry
    from cloudtrain.transfer.pull import pull
    from cloudtrain.transfer.supervisor import Supervisor

    parts = []
    workdir, here = kit.folder / "cloud", kit.folder / "local" / "here"
    here.mkdir()
    for way in kit.ways:
        size = (far_mib if way.far else near_mib) * MIB
        folder = kit.folder / "local" / f"big{way.port}"
        folder.mkdir()
        big = folder / "big.bin"
        big.write_bytes(os.urandom(size))
        digest = hashlib.sha256(big.read_bytes()).hexdigest()
        with kit.connect(way) as host:
            ssh = way.ssh

            def push(host: Any = host, folder: Path = folder) -> float:
                name = f"b{next(kit.counter)}"
                seconds = push_of(kit, host, folder, key=name, target=name)()
                for old in (workdir / "trees" / name).rglob("*.bin"):
                    old.unlink()
                return seconds

            def stream(host: Any = host, big: Path = big) -> None:
                done = host.run(["sh", "-c", f"cat > {kit.folder}/host/up"], stdin=chunks(big), timeout=60)
                assert done.exit_code == 0

            def cat(ssh: Any = ssh, big: Path = big) -> None:
                ssh.shell(f"cat {big} | {ssh.ssh(f'cat > {kit.folder}/host/up')}")

            def scp(ssh: Any = ssh, big: Path = big) -> None:
                ssh.scp("-q", str(big), f"{ssh.place}:{kit.folder}/host/scp")

            def rsync(ssh: Any = ssh, big: Path = big) -> None:
                ssh.rsync("-aW", "--ignore-times", str(big), f"{ssh.place}:{kit.folder}/host/rsync")

            up = rotate(
                f"big push, {way.name}",
                {"push, verified": push, "one channel": stream, "ssh cat": cat, "scp": scp, "rsync -aW": rsync},
                rounds,
            )
            # A run directory as a push leaves it, with one result in it.
            source = kit.folder / "local" / "source"
            push_of(kit, host, source, key="pull", target=f"pull{way.port}")()
            run_dir = workdir / "runs" / f"pull{way.port}"
            (run_dir / "out").mkdir()
            theirs = run_dir / "out" / "big.bin"
            theirs.write_bytes(big.read_bytes())
            supervisor = Supervisor(host, "python3", str(run_dir), str(workdir))

            def take(supervisor: Any = supervisor, size: int = size, digest: str = digest) -> None:
                to = kit.folder / "local" / f"pull{next(kit.counter)}"
                pull(supervisor.read, [FileEntry("big.bin", size, digest)], to, emit=discard)
                (to / "big.bin").unlink()

            def stream_back(host: Any = host, theirs: Path = theirs, size: int = size) -> None:
                with host.stream(["cat", str(theirs)]) as stream, (here / "down").open("wb") as file:
                    while data := stream.read(60):
                        file.write(data)
                assert (here / "down").stat().st_size == size

            def cat_back(ssh: Any = ssh, theirs: Path = theirs) -> None:
                ssh.shell(f"{ssh.ssh(f'cat {theirs}')} > {here}/down")

            def scp_back(ssh: Any = ssh, theirs: Path = theirs) -> None:
                ssh.scp("-q", f"{ssh.place}:{theirs}", f"{here}/scp")

            def rsync_back(ssh: Any = ssh, theirs: Path = theirs) -> None:
                ssh.rsync("-aW", "--ignore-times", f"{ssh.place}:{theirs}", f"{here}/rsync")

            down = rotate(
                f"big pull, {way.name}",
                {
                    "pull, verified": take,
                    "one channel": stream_back,
                    "ssh cat": cat_back,
                    "scp": scp_back,
                    "rsync -aW": rsync_back,
                },
                rounds,
            )
        parts.append(_rates(way, size, up, down, goals))
        for path in (big, theirs):
            path.unlink()
    return "\n\n".join(parts)


def _rates(way: Way, size: int, up: dict[str, list[float]], down: dict[str, list[float]], goals: Goals) -> str:
    rows = []
    for title, found in (("push", up), ("pull", down)):
        rates = {name: size / median(seconds) for name, seconds in found.items()}
        against = RATE if way.far else rates["ssh cat"]
        rows.append([title, *(f"{rate / 1e6:.1f} ({rate / against:.2f})" for rate in rates.values())])
        ours, channel = (list(rates.values())[i] / against for i in (0, 1))
        what = "of the link" if way.far else "x ssh cat"
        goal = 0.95 if way.far else 0.85
        goals.check(f"big {title}, {way.name}: one channel, {what}", channel, goal, at_least=True)
        goals.check(f"big {title}, {way.name}: verified, {what}", ours, goal, at_least=True)
    head = ["", "cloudtrain, verified and durable", "cloudtrain, one channel", "ssh cat", "scp", "rsync -aW"]
    unit = "share of the link" if way.far else "x `ssh cat`"
    return f"One incompressible file of {size // MIB} MiB, {way.name}, MB/s ({unit}):\n\n{table(head, rows)}"


def connecting(kit: Rig, rounds: int, goals: Goals) -> str:
    """A new connection and its first program."""
    rows = []
    for way in kit.ways:

        def ours(way: Way = way) -> None:
            with kit.connect(way) as host:
                host.run(["true"])

        def openssh(way: Way = way) -> None:
            subprocess.run(["ssh", *way.ssh.alone, way.ssh.place, "true"], check=True, timeout=60)

        with kit.connect(way) as open_host:
            again = lambda host=open_host: host.run(["true"]) and None  # noqa: E731
            methods: dict[str, Callable[[], float | None]] = {"new": ours, "ssh": openssh, "next": again}
            found = rotate(f"connecting, {way.name}", methods, rounds)
        best = {name: median(seconds) for name, seconds in found.items()}
        trips = f"{best['new'] / RTT_S:.1f}" if way.far else ""
        rows.append([way.name, *(f"{best[n] * 1000:.0f}" for n in ("new", "ssh", "next")), trips])
        if way.far:
            goals.check("connect and first program, round trips", best["new"] / RTT_S, 10)
    head = ["", "cloudtrain: connect, run `true`", "ssh, new process", "cloudtrain: next program", "round trips"]
    return f"Connecting, ms:\n\n{table(head, rows)}"


class FarLink:
    """The follower's way to the host, reconnecting at once."""

    def __init__(self, kit: Rig, way: Way, run_dir: Path) -> None:
        self._kit, self._way, self._run_dir = kit, way, run_dir
        self._host: Any = None

    def supervisor(self) -> Any:
        from cloudtrain.transfer.supervisor import Supervisor

        if self._host is None:
            self._host = self._kit.connect(self._way)
        return Supervisor(self._host, "python3", str(self._run_dir), str(self._kit.folder / "cloud"))

    def drop(self) -> None:
        if self._host is not None:
            self._host.close()
            self._host = None


@contextlib.contextmanager
def running(kit: Rig, way: Way, name: str, program: str) -> Iterator[Path]:
    """A job of one file, started through the supervisor; its run directory. It is stopped afterwards."""
    from cloudtrain.core.disk import cache_dir
    from cloudtrain.source.tree import scan
    from cloudtrain.transfer.supervisor import Supervisor

    folder = kit.folder / "local" / name
    folder.mkdir()
    (folder / "job.py").write_text(program)
    run_dir = kit.folder / "cloud" / "runs" / name
    near = kit.ways[0]
    with kit.connect(near) as host:
        push_of(kit, host, folder, key=name, target=name)()
        supervisor = Supervisor(host, "python3", str(run_dir), str(kit.folder / "cloud"))
        digest = scan(folder, cache=cache_dir()).digest
        argv = ["python3", f"{name}/job.py"]
        spec = {"v": 1, "run": name, "tree": name, "digest": digest, "argv": argv, "env": {}}
        supervisor.start({**spec, "deadline": None, "grace": 5.0})
        try:
            yield run_dir
        finally:
            supervisor.stop(grace=2.0)


def log_delay(kit: Rig, goals: Goals) -> str:
    """From the job's write to the line's arrival here."""
    from cloudtrain.transfer.supervisor import LogFrame

    program = (
        f"import time\ntime.sleep(2)\nfor i in range({LINES}):\n    print(repr(time.time()))\n    time.sleep(0.03)\n"
    )
    rows = []
    for number, way in enumerate(kit.ways):
        say(f"  log lines, {way.name}")
        delays: list[float] = []
        with running(kit, way, f"lines{number}", program) as run_dir:
            link = FarLink(kit, way, run_dir)
            held = b""
            with link.supervisor().follow() as frames:
                for frame in frames:
                    now = time.time()
                    if isinstance(frame, LogFrame):
                        *lines, held = (held + frame.data).split(b"\n")
                        delays += [now - float(line) for line in lines if line]
            link.drop()
        assert len(delays) == LINES, f"{len(delays)} of {LINES} lines came"
        p50, p95 = (statistics.quantiles(delays, n=100)[i] * 1000 for i in (49, 94))
        above = p95 - (RTT_S / 2 * 1000 if way.far else 0)
        rows.append([way.name, f"{p50:.1f}", f"{p95:.1f}", f"{above:.1f}"])
        if way.far:
            goals.check("log line written to seen behind the relay, p95 above the one-way delay", above, 5, unit=" ms")
    head = ["", "p50", "p95", "p95 above the one-way delay"]
    return f"Log lines, written by the job to received here, {LINES} lines at 33 a second, ms:\n\n{table(head, rows)}"


def frozen(kit: Rig, goals: Goals) -> str:
    """A peer that falls silent without a word, while a log is followed."""
    from cloudtrain.core.errors import ConnectionFailed

    say("  a peer that falls silent (up to 15 s)")
    way = kit.ways[1]
    with kit.connect(way) as host, host.stream(["sleep", "60"]) as stream:
        time.sleep(1)
        kit.relay.tell("freeze")
        began = time.perf_counter()
        try:
            with contextlib.suppress(ConnectionFailed):
                stream.read(60)
            seconds = time.perf_counter() - began
        finally:
            kit.relay.tell("thaw")
    goals.check("a peer that falls silent is noticed after", seconds, 15, unit=" s")
    return f"A peer that falls silent (no FIN, no RST) was noticed after {seconds:.1f} s."


def cuts(kit: Rig, goals: Goals) -> str:
    """Connections that break all the time while a log is followed."""
    from cloudtrain.transfer.follow import Follower

    say(f"  {CUTS} forced cuts")
    way = kit.ways[1]
    # Lines in two pieces and of all lengths, for as long as cuts are made; then an end.
    program = (
        "import os, sys, time, pathlib\nstop = pathlib.Path(sys.argv[0]).parent / 'stop'\n"
        "out = sys.stdout.buffer\ni = 0\nwhile not os.path.exists(os.environ['CLOUDTRAIN_RUN'] + '/enough'):\n"
        "    i += 1\n    out.write(b'line %d ' % i)\n    out.flush()\n"
        "    out.write(b'x' * (i * 7919 % 400) + b'\\n')\n    out.flush()\n    time.sleep(0.002)\n"
    )
    chance = random.Random(7)
    made = 0
    with running(kit, way, "cuts", program) as run_dir:
        folder = kit.folder / "local" / "followed"
        link = FarLink(kit, way, run_dir)
        follower = Follower(folder, link, lambda event: None, sleep=lambda seconds: time.sleep(0.05))
        thread = threading.Thread(target=follower.run, daemon=True)
        thread.start()
        log = folder / "console.log"
        deadline = time.monotonic() + 120
        while made < CUTS and time.monotonic() < deadline:
            size = log.stat().st_size if log.exists() else 0
            kit.relay.tell(f"cut down {chance.randrange(1, 20_000)}")
            made += 1
            # The next one comes when bytes flow again, so that each of them cuts a live stream.
            while time.monotonic() < deadline and (not log.exists() or log.stat().st_size <= size + 20_000):
                time.sleep(0.02)
        (run_dir / "enough").touch()
        thread.join(60)
        link.drop()
        theirs, ours = (run_dir / "console.log").read_bytes(), log.read_bytes()
    same = theirs == ours
    wrong = 0 if same else max(1, abs(len(theirs) - len(ours)))
    goals.check(f"bytes lost or doubled over {made} forced cuts", wrong, 0)
    if made < CUTS or thread.is_alive():
        raise Stop(f"only {made} cuts could be made", hint="try again on a quieter machine")
    return f"{made} forced cuts of a followed log of {len(theirs):,} bytes; the copy is byte for byte the same: {same}."


def main(arguments: list[str]) -> int:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller files")
    parser.add_argument("--only", help="comma-separated parts: tree, change, big, connect, log, frozen, cuts")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    quick, goals = options.quick, Goals()
    rounds = 3 if quick else 5
    parts: dict[str, Callable[[Rig], str]] = {
        "connect": lambda kit: connecting(kit, 5 if quick else 11, goals),
        "tree": lambda kit: small_tree(kit, rounds, goals),
        "change": lambda kit: one_of_many(kit, 2 * rounds, goals, 500 if quick else 2000),
        "big": lambda kit: big_file(kit, 2 if quick else 3, goals, 64 if quick else 256, 12 if quick else 25),
        "log": lambda kit: log_delay(kit, goals),
        "frozen": lambda kit: frozen(kit, goals),
        "cuts": lambda kit: cuts(kit, goals),
    }
    wanted = options.only.split(",") if options.only else list(parts)
    if unknown := set(wanted) - set(parts):
        raise Stop(f"there is no part {', '.join(sorted(unknown))}", hint=f"parts: {', '.join(parts)}")
    with tempfile.TemporaryDirectory(prefix="ct", dir=_in_memory()) as folder, rig(Path(folder)) as kit:
        if "big" in wanted and "tree" not in wanted:
            source_tree(kit.folder / "local" / "source")
        found = []
        for name in wanted:
            say(f"{name}:")
            found.append(parts[name](kit))
    import paramiko

    version = subprocess.run(["ssh", "-V"], capture_output=True, text=True, timeout=20).stderr.split(",")[0]
    said = circumstances(paramiko=paramiko.__version__, OpenSSH=version.removeprefix("OpenSSH_"))
    said += f"\nLoad {os.getloadavg()[0]:.1f} at the end. Medians, all methods in rotation; OpenSSH's programs over a"
    said += "\nshared, open connection, cloudtrain on its own open connection; files in memory where there is /dev/shm."
    goal_table = table(["goal", "", "found", ""], goals.rows)
    body = "\n\n".join([said, goal_table, *found])
    print(body)
    if options.write:
        write_section("transport", body)
    return 1 if goals.missed else 0


def _in_memory() -> str | None:
    return "/dev/shm" if sys.platform == "linux" and os.access("/dev/shm", os.W_OK) else None


if __name__ == "__main__":
    entry(main)

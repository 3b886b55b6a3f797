"""Typed client of the on-host verbs (docs/protocol.md, "Verbs") over any transport."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from cloudtrain.core.decode import Odd, made
from cloudtrain.core.errors import ArtifactRefused, Busy, CloudtrainError, ConnectionFailed, RunLost, UsageError
from cloudtrain.core.host import HostFacts
from cloudtrain.core.text import shortened
from cloudtrain.transfer.answers import (
    HostEnvironment,
    HostFolders,
    Manifest,
    RunStatus,
    Started,
    host_facts,
    host_folders,
    last_object,
    manifest,
    run_status,
)
from cloudtrain.transfer.first_line import FirstLine, OurStream
from cloudtrain.transfer.frames import End, Frame, FrameParser, packed_names
from cloudtrain.transfer.program import BOOT, IMPORTED, LOADER, PASSING_LOADER, packed
from cloudtrain.transport.base import BUSY, Closing, Completed, Stream, Transport

T = TypeVar("T")

BEAT_S = 4.0
"""Seconds between heartbeats of a quiet host. Three missed ones mean a dead link: noticed within 12 s."""

# A cold host takes its time to start Python: the first heartbeat may be this late.
FIRST_BEAT_S = 60.0
# Characters of a refusal's words that are shown.
_MOST_WORDS = 500
# Of a heartbeat that waits behind other bytes on a slow link, times as long.
_TURNS = 50


class Following(Closing):
    """An open `follow`: iterate it for frames, the last one is `End`. Close it (or leave the `with`) at any time."""

    def __init__(self, stream: Stream, beat: float) -> None:
        self._stream = stream
        self._beat = beat

    def close(self) -> None:
        """End the stream; the run goes on."""
        self._stream.close()

    def __iter__(self) -> Iterator[Frame]:
        """The frames as they come.

        Raises:
            ConnectionFailed: the link broke, or neither data nor heartbeat came for three beats.
            RunLost: the host has no such run directory.
        """
        parser = FrameParser()
        patience, waited = max(FIRST_BEAT_S, 3 * self._beat), 0
        while True:
            came = self._stream.link_came()
            try:
                data = self._stream.read(patience)
            except TimeoutError as error:
                waited += 1
                if self._stream.link_came() - came > BUSY and waited < _TURNS:
                    continue
                raise ConnectionFailed(
                    f"the host has been silent for {patience:.0f} s",
                    consequence="the run goes on, its log and results stay on the host",
                    code="silent",
                ) from error
            if not data:
                # Half a frame that is left in the parser is dropped: the next follow asks from the last whole one on.
                raise _no_answer(self._stream.finish(10.0), "follow")
            patience, waited = 3 * self._beat, 0
            for frame in parser.feed(data):
                yield frame
                if isinstance(frame, End):
                    return


class _Refusable(Stream):
    """A stream whose refusal, a JSON line on stderr, is given on as its message alone."""

    def __init__(self, inner: Stream) -> None:
        self._inner = inner

    def read(self, timeout: float) -> bytes:
        return self._inner.read(timeout)

    def finish(self, timeout: float) -> Completed:
        done = self._inner.finish(timeout)
        answer = last_object(done.stderr)
        if done.exit_code == 0 or answer is None:
            return done
        return Completed(done.exit_code, b"", str(answer.get("message")).encode())

    def close(self) -> None:
        self._inner.close()


class Supervisor:
    """The supervisor of one run on its host.

    Args:
        python: interpreter on the host, Python >= 3.8.
        run_dir: the run directory there, absolute or relative to the login directory. `push` puts the supervisor into
            it; `probe` alone needs none.
        workdir: the folder there below which everything lies.
        run_id: what the run is known by; None: by its run directory alone, as runs of the last release are.
    """

    def __init__(
        self, transport: Transport, python: str, run_dir: str, workdir: str, run_id: str | None = None
    ) -> None:
        self._transport = transport
        self._python = python
        self._workdir = workdir
        self._run = ("--run", run_dir) if run_id is None else ("--run", run_dir, "--id", run_id)

    def probe(self, only: str | None = None) -> HostFacts:
        """What the host has.

        Args:
            only: the interpreter that the job is to have; None: one with torch is looked for.

        Raises:
            ConnectionFailed: the link broke, no usable Python is there, or the login runs something else (code
                `login_shell`).
            UsageError: `only` is not there, or no Python (code `bad_python`).
        """
        argv = [self._python, "-I", "-S", "-c", BOOT, "probe", "--workdir", self._workdir]
        argv += ["--python", self._python] if only is None else ["--only", only]
        return self._answer("probe", host_facts, argv, packed(PASSING_LOADER), 150.0)

    def environment(self, request: Mapping[str, Any], tool: bytes = b"") -> HostEnvironment:
        """Where an environment lies (docs/protocol.md, "Environments"); with a lock in the request, what `build` is to
        make. Puts this program into the run directory.

        Args:
            tool: uv itself, for a host that cannot fetch it.
        """
        argv = [self._python, "-I", "-S", "-c", BOOT, self._workdir, self._run[1], "environment", *self._run]
        stdin = packed(LOADER) + json.dumps(request).encode() + b"\n" + tool
        return self._answer("environment", partial(made, HostEnvironment), argv, stdin, 120.0)

    def build(self) -> Stream:
        """Make what `environment` was told last: an object a line, of which the one with "ok" is the end."""
        return self._stream("build")

    def start(self, spec: Mapping[str, Any]) -> Started:
        """Start the job detached; safe to call again, a run starts once.

        Raises:
            ConnectionFailed: the link broke, or the host refused (`tree_changed`, `disk_full`, ...).
            UsageError: another run, or this one with other files, is in the run directory (code `another_run`).
        """
        return self._ask("start", partial(made, Started), stdin=json.dumps(spec).encode(), timeout=600.0)

    def poll(self, log: int = 0, events: int = 0) -> RunStatus:
        """How the run stands, with what is new from two offsets on."""
        return self._ask("poll", run_status, "--log", str(log), "--events", str(events))

    def follow(self, log: int = 0, events: int = 0, *, beat: float = BEAT_S) -> Following:
        """Log and events from two offsets on, as they are written, until the run has ended.

        Args:
            beat: seconds between heartbeats while nothing is written.
        """
        return Following(self._stream("follow", "--log", str(log), "--events", str(events), "--beat", str(beat)), beat)

    def stop(self, reason: str = "user", grace: float = 20.0) -> RunStatus:
        """End the run: SIGTERM, after `grace` seconds SIGKILL. Returns once every process of it has ended.

        A run that ended before keeps the end it had. The first reason given for a run stands.
        """
        return self._ask(
            "stop", partial(made, RunStatus), "--reason", reason, "--grace", str(grace), timeout=grace + 120.0
        )

    def lease(self, *, lasts: float | None = None, grace: float | None = None) -> RunStatus:
        """Move the run's deadline to `lasts` seconds from now, or have its machine power itself off `grace` seconds
        after the job's end, counted anew whenever a client looks at the run. None leaves the one or the other as it is.

        Raises:
            ConnectionFailed: the link broke, or nothing was ever started there.
        """
        given = {"lasts": lasts, "grace": grace}
        if lasts is not None and "--id" not in self._run:
            given = {"deadline": time.time() + lasts, "grace": grace}  # a run of the last release, by its host's clock
        options = [f"--{name}={value}" for name, value in given.items() if value is not None]
        return self._ask("lease", partial(made, RunStatus), *options)

    def clean(
        self, remove: Mapping[str, tuple[str | None, Mapping[str, str] | None]], *, trees: bool = True
    ) -> HostFolders:
        """What lies below the work folder, once those runs in `remove` that have ended are gone.

        Args:
            remove: by folder, the run's id and its results (name -> sha256). A run that holds others stays; None: it
                goes whatever it holds.
            trees: with a removal go pushed trees that have long not been pushed, too, whoever's they are.
        """
        argv = [self._python, "-I", "-S", "-c", BOOT, "clean", "--workdir", self._workdir]
        wanted = {name: {"id": run_id, "files": files} for name, (run_id, files) in remove.items()}
        stdin = packed(PASSING_LOADER) + json.dumps({"remove": wanted, "trees": trees}).encode()
        return self._answer("clean", host_folders, argv, stdin, 600.0)

    def manifest(self, most: float | None = None) -> Manifest:
        """The results as they are now.

        Args:
            most: bytes; what is beyond them, the largest files first, need not be read there. None: everything is.
        """
        options = () if most is None or "--id" not in self._run else (f"--most={most:.0f}",)
        return self._ask("manifest", manifest, *options, timeout=600.0)

    def read(self, name: str, offset: int = 0) -> Stream:
        """The bytes of a file of the run directory ("console.log", "out/metrics.csv") from `offset` on.

        After its end `finish` tells: exit code 0, or a refusal whose message is in `stderr`.
        """
        return _Refusable(self._stream("read", "--name", name, "--offset", str(offset)))

    def send(self, asked: Sequence[tuple[str, int, int]]) -> Stream:
        """Many files of the run directory in one stream of frames: of each `FileFrame`s, the last of them empty, or
        `Withheld`; where the program there is of the last release, something else.

        Args:
            asked: of each file its name, the offset from which on, and how many bytes at most.
        """
        return _Refusable(self._stream("send", f"--files={packed_names(asked)}"))

    def _argv(self, verb: str, *options: str) -> list[str]:
        # Isolated, and without site-packages: nothing on the host can get in its way, and it starts twice as fast.
        return [self._python, "-I", "-S", "-c", IMPORTED, verb, *self._run, *options]

    def _stream(self, verb: str, *options: str) -> Stream:
        first = FirstLine()
        stream = self._transport.stream([*self._argv(verb, *options), first.argument])
        return OurStream(stream, first, _CONSEQUENCES.get(verb, _STAYS))

    def _ask(
        self,
        verb: str,
        read: Callable[[Mapping[str, Any]], T],
        *options: str,
        stdin: bytes = b"",
        timeout: float = 60.0,
    ) -> T:
        return self._answer(verb, read, self._argv(verb, *options), stdin, timeout)

    def _answer(
        self, verb: str, read: Callable[[Mapping[str, Any]], T], argv: Sequence[str], stdin: bytes, timeout: float
    ) -> T:
        first = FirstLine()
        # A verb without a payload need not wait: the line comes with its answer.
        awaits = first.line if stdin else b""
        done = self._transport.run([*argv, first.argument], stdin=stdin, timeout=timeout, awaits=awaits)
        return _typed(first.answer(done, _CONSEQUENCES.get(verb, _STAYS)), verb, read)


def _typed(done: Completed, verb: str, read: Callable[[Mapping[str, Any]], T]) -> T:
    """The answer of `verb` as what `read` makes of it.

    Raises:
        CloudtrainError: the host refused, or there is no such answer.
    """
    answer = last_object(done.stdout)
    if answer is None or answer.get("ok") is not True:
        raise _no_answer(done, verb)
    try:
        return read(answer)
    except Odd as error:
        raise _no_answer(done, verb) from error


_CONSEQUENCES = {
    "probe": "nothing was sent but the question",
    "environment": "nothing has trained",
    "build": "nothing has trained",
    "start": "training has not started",
    "stop": "the run may still be going on",
    "manifest": "the results stay on the host",
    "clean": "run it again to see what is left",
}
_STAYS = "the run goes on, its log and results stay on the host"
_SAYS_MORE = "the end of supervisor.log in the run's folder on the host says more"


def _no_answer(done: Completed, verb: str) -> CloudtrainError:
    """What went wrong when a verb ended without its answer."""
    consequence = _CONSEQUENCES.get(verb, _STAYS)
    refusal = last_object(done.stdout) or last_object(done.stderr)
    if refusal is not None and refusal.get("ok") is False:
        return _refused(str(refusal.get("code")), shortened(str(refusal.get("message")), _MOST_WORDS), consequence)
    said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
    if "No module named 'supervise'" in said:
        return RunLost(
            "the host no longer has a folder of this run",
            hint="cloudtrain show (what was pulled before is in the run's folder here)",
            consequence="what was only on that host is gone",
            detail=said.splitlines()[-1],
        )
    return ConnectionFailed(
        f"the host ended {verb!r} without an answer (exit code {done.exit_code})",
        hint="cloudtrain needs Python 3.8 or newer there" if verb in ("probe", "start") else "run the command again",
        consequence=consequence,
        code="no_answer",
        detail=said[-2000:] or None,
    )


def _refused(code: str, message: str, consequence: str) -> CloudtrainError:
    if code == "tree_busy":
        return Busy(message, hint="let the other push end, then run again", consequence=consequence)
    if code in ("refused", "no_such_file", "shrunk", "bad_name"):
        return ArtifactRefused(message, hint="look at the file on the host", consequence=consequence)
    if code == "another_run":
        return UsageError(message, hint="start it under another --name", consequence=consequence, code="another_run")
    if code == "bad_python":
        hint = "--python PATH of an interpreter there; without it the usual places are looked at"
        return UsageError(message, hint=hint, consequence="nothing was sent", code="bad_python")
    rows = (
        ("disk_full", "free space on the host, then run again"),
        ("not_writable", "make the folder on the host writable"),
        ("tree_changed", "run the same command again: the files are sent afresh"),
        ("no_python", "install Python 3.8 or newer there"),
        ("bad_spec", _SAYS_MORE),
        ("start_failed", _SAYS_MORE),
        ("host_error", _SAYS_MORE),
    )
    for ours, hint in rows:
        if code == ours:
            return ConnectionFailed(message, hint=hint, consequence=consequence, code=ours)
    # Whatever else it says, now or in another version: one code of ours.
    return ConnectionFailed(message, hint=_SAYS_MORE, consequence=consequence, code="host_refused")

"""The contract of transport/base.py over a real OpenSSH server: argv, bytes, ends, time limits."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.transport import base
from cloudtrain.transport.base import MOST_STDERR
from cloudtrain.transport.ssh import SshTransport

pytestmark = pytest.mark.sshd

SHOW_ARGV = "import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"
NASTY = [
    "",
    " ",
    "a b",
    "$HOME",
    "`id`",
    "$(id)",
    "a'b\"c",
    "line\nbreak",
    "\n",
    "tab\there",
    "back\\slash\\",
    "*?[x]{a,b}",
    "; rm -rf nothing &",
    "--",
    "-n",
    "!history",
    "~",
    "#",
    "über 数 🦦",
    "\x07\x1b[31m",
    "not-utf8-\udcff",
]


@pytest.fixture
def host(dial) -> SshTransport:
    return dial()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that has ended and that nobody has asked about yet.
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def wait_gone(pid: int, limit: float = 20.0) -> bool:
    deadline = time.monotonic() + limit
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_output_error_and_exit_code_are_kept_apart(host):
    done = host.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.exit_code, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_a_program_that_does_not_exist_is_an_exit_code(host):
    assert host.run(["no-such-program-here"]).exit_code == 127


@pytest.mark.parametrize("name", ["TERM", "KILL", "INT", "USR1"])
def test_an_end_by_signal_is_negative(host, name):
    assert host.run(["sh", "-c", f"kill -{name} $$; sleep 5"]).exit_code == -signal.Signals[f"SIG{name}"]


def test_an_exit_code_above_128_stays_itself(host):
    assert host.run(["sh", "-c", "exit 143"]).exit_code == 143


def test_arguments_arrive_unchanged(host):
    done = host.run([sys.executable, "-c", SHOW_ARGV, *NASTY])
    assert done.exit_code == 0, done.stderr
    assert done.stdout == b"\0".join(map(os.fsencode, NASTY))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=4))
def test_any_text_is_an_argument(host, words):
    # The shell's own printf: starting Python for every example would be the slow part.
    done = host.run(["printf", "%s\\000", "first", *words])
    assert done.stdout == b"".join(word.encode() + b"\0" for word in ["first", *words])


@pytest.mark.parametrize("argv", [[], ["a\0b"]])
def test_an_argv_that_cannot_be_is_refused_here(host, argv):
    with pytest.raises(ValueError):
        host.run(argv)


def test_stdin_of_bytes_reaches_the_program(host):
    assert host.run(["cat"], stdin=b"\x00\xff\r\n" * 3).stdout == b"\x00\xff\r\n" * 3


def test_a_program_without_stdin_sees_its_end(host):
    assert host.run(["cat"], timeout=10).stdout == b""


def test_chunks_of_stdin_are_sent_as_they_are_made(host):
    """A chunk is answered while the next one is still to be made."""
    seen: list[bytes] = []
    echo = "import sys\nfor line in sys.stdin.buffer: sys.stderr.write('.'); open(sys.argv[1], 'ab').write(line)"

    def chunks(path: Path) -> Iterator[bytes]:
        yield b"one\n"
        deadline = time.monotonic() + 20
        while not (path.exists() and path.read_bytes()) and time.monotonic() < deadline:
            time.sleep(0.02)
        seen.append(path.read_bytes())
        yield b"two\n"

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seen"
        # Unbuffered: a block-buffered file would hide when the line came.
        program = echo.replace("'ab')", "'ab', 0)")
        done = host.run([sys.executable, "-u", "-c", program, str(path)], stdin=chunks(path))
        assert done.exit_code == 0, done.stderr
        assert seen == [b"one\n"]
        assert path.read_bytes() == b"one\ntwo\n"


def test_much_both_ways_at_once_does_not_lock_up(host):
    block = hashlib.sha256(b"seed").digest() * 32_768  # 1 MiB
    done = host.run(["tee", "/dev/stderr"], stdin=(block for _ in range(20)), timeout=30)
    assert done.exit_code == 0
    assert done.stdout == block * 20
    assert done.stderr == (block * 20)[-MOST_STDERR:]


def test_a_program_that_writes_much_before_it_reads(host):
    """More than every window and pipe in between: a transport that sends first and reads later stops here."""
    program = (
        "import sys; sys.stdout.buffer.write(b'x' * 40_000_000); print(len(sys.stdin.buffer.read()), file=sys.stderr)"
    )
    done = host.run([sys.executable, "-c", program], stdin=b"y" * 40_000_000, timeout=30)
    assert (done.exit_code, len(done.stdout), done.stderr) == (0, 40_000_000, b"40000000\n")


def test_a_program_that_ends_before_its_stdin_does(host):
    done = host.run(["sh", "-c", "head -c 10; exit 3"], stdin=(b"z" * 100_000 for _ in range(200)), timeout=30)
    assert (done.exit_code, done.stdout) == (3, b"z" * 10)


def test_a_failing_source_of_stdin_ends_the_program(host):
    def chunks() -> Iterator[bytes]:
        yield b"begin"
        raise LookupError("the file is gone")

    with pytest.raises(LookupError):
        host.run(["cat"], stdin=chunks())
    assert host.run(["echo", "on"]).stdout == b"on\n"


def test_time_without_progress_ends_a_call_but_not_the_connection(host):
    began = time.monotonic()
    with pytest.raises(ConnectionFailed) as caught:
        host.run(["sleep", "600"], timeout=1.0)
    assert caught.value.code == "stalled"
    assert time.monotonic() - began < 20
    assert host.run(["echo", "on"]).stdout == b"on\n"


def test_slow_but_steady_progress_is_no_timeout(host):
    done = host.run(["sh", "-c", "for i in 1 2 3 4 5 6; do echo $i; sleep 0.5; done"], timeout=2.0)
    assert done.stdout == b"1\n2\n3\n4\n5\n6\n"


def test_an_answer_without_an_end_is_given_up(host, monkeypatch):
    monkeypatch.setattr(base, "MOST_ANSWER", 5_000_000)
    for script in ("exec cat /dev/zero", "while :; do printf x; sleep 0.05; done"):
        began = time.monotonic()
        with pytest.raises(ConnectionFailed) as raised:
            host.run(["sh", "-c", script], timeout=0.3)
        assert raised.value.code == "stalled" and time.monotonic() - began < 20
    assert host.run(["true"]).exit_code == 0


def test_nothing_of_stdin_is_on_the_command_line(host):
    done = host.run(
        ["sh", "-c", "cat >/dev/null; tr '\\0' ' ' </proc/$$/cmdline; ps -o args= -p $PPID"], stdin=b"secret-7"
    )
    assert done.stdout and b"secret-7" not in done.stdout


def test_a_stream_gives_bytes_as_they_come(host):
    with host.stream(["sh", "-c", "echo one; sleep 1; echo two; echo e >&2; exit 4"]) as stream:
        assert stream.read(20) == b"one\n"
        with pytest.raises(TimeoutError):
            stream.read(0.05)
        assert stream.read(20) == b"two\n"
        assert stream.read(20) == b""
        assert stream.read(20) == b""
        end = stream.finish(20)
    assert (end.exit_code, end.stdout, end.stderr) == (4, b"", b"e\n")


def test_a_stream_reads_at_most_a_mebibyte(host):
    with host.stream(["head", "-c", "30000000", "/dev/zero"]) as stream:
        time.sleep(0.5)
        total = 0
        while data := stream.read(20):
            assert len(data) <= 1024 * 1024
            total += len(data)
        assert total == 30_000_000
        assert stream.finish(20).exit_code == 0


def test_much_stderr_does_not_stop_a_stream(host):
    with host.stream(["sh", "-c", "head -c 40000000 /dev/zero >&2; echo done"]) as stream:
        assert stream.read(60) == b"done\n"
        assert stream.read(20) == b""
        assert len(stream.finish(20).stderr) == MOST_STDERR


def test_many_programs_share_a_connection(host):
    answers: dict[int, bytes] = {}

    def ask(i: int) -> None:
        answers[i] = host.run(["sh", "-c", f"sleep 0.2; echo {i}"]).stdout

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == {i: f"{i}\n".encode() for i in range(8)}


# OpenSSH passes a client's signals on only from its unprivileged half, which a login as root does not have.
not_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="sshd sends no signals for root")


@not_root
def test_closing_a_stream_ends_its_program(host):
    with host.stream(["sh", "-c", "echo $$; exec sleep 600"]) as stream:
        pid = int(stream.read(20))
        assert alive(pid)
    assert wait_gone(pid)


@not_root
def test_closing_a_stream_ends_its_program_with_its_children(host):
    with host.stream(["sh", "-c", "sleep 600 & echo $!; wait"]) as stream:
        child = int(stream.read(20))
    assert wait_gone(child)


def test_a_program_that_gets_no_signal_ends_at_its_next_write(host):
    with host.stream(["sh", "-c", "trap '' TERM; echo $$; while sleep 0.2 && echo on; do :; done"]) as stream:
        pid = int(stream.read(20).split()[0])
    assert wait_gone(pid)


def test_closing_the_connection_ends_what_still_writes(dial):
    host = dial()
    stream = host.stream(["sh", "-c", "echo $$; while sleep 0.2 && echo on; do :; done"])
    pid = int(stream.read(20).split()[0])
    host.close()
    assert wait_gone(pid)


def test_after_close_every_call_says_so_and_close_may_be_repeated(dial):
    host = dial()
    stream = host.stream(["sleep", "600"])
    host.close()
    host.close()
    with pytest.raises(ConnectionFailed):
        stream.read(20)
    with pytest.raises(ConnectionFailed):
        stream.finish(1)
    stream.close()
    stream.close()
    with pytest.raises(ConnectionFailed):
        host.run(["true"])
    with pytest.raises(ConnectionFailed):
        host.stream(["true"])


def test_nothing_of_the_client_stays_behind(dial):
    before = set(threading.enumerate())
    host = dial()
    for _ in range(3):
        host.run(["cat"], stdin=b"x" * 100_000)
    host.close()
    deadline = time.monotonic() + 20
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set(threading.enumerate()) <= before

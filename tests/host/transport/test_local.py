"""Programs of this computer: what the transport boundary promises, with real processes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.transport import base
from cloudtrain.transport.base import Stream
from cloudtrain.transport.local import LocalTransport


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalTransport]:
    with LocalTransport(tmp_path) as transport:
        yield transport


def python(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", script, *arguments]


def drain(stream: Stream) -> bytes:
    data = b""
    while chunk := stream.read(30):
        assert len(chunk) <= 1024 * 1024
        data += chunk
    return data


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_arguments_streams_and_code_pass_unchanged(local: LocalTransport, tmp_path: Path) -> None:
    arguments = ["two words", "it's", '"', "$HOME", "`x`", "a\nb", "żó", "", "*"]
    script = (
        "import os, sys\nsys.stdout.buffer.write(repr((sys.argv[1:], os.getcwd())).encode())\n"
        "sys.stdout.buffer.write(sys.stdin.buffer.read())\n"
        "sys.stderr.buffer.write(b'err\\r\\n')\nsys.exit(3)"
    )
    done = local.run(python(script, *arguments), stdin=b"\r\n\x00\xff")
    assert done.exit_code == 3
    assert done.stdout == repr((arguments, str(tmp_path))).encode() + b"\r\n\x00\xff"
    assert done.stderr == b"err\r\n"


def test_large_streams_in_both_directions(local: LocalTransport) -> None:
    script = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"
    chunks = [os.urandom(300_000) for _ in range(40)]
    done = local.run(python(script), stdin=iter(chunks))
    assert done.exit_code == 0
    assert done.stdout == b"".join(chunks)


def test_a_program_that_reads_nothing_still_answers(local: LocalTransport) -> None:
    taken = []

    def chunks() -> Iterator[bytes]:
        for number in range(10_000):
            taken.append(number)
            yield b"x" * 100_000

    done = local.run(python("print('need_full')"), stdin=chunks())
    assert (done.exit_code, done.stdout.strip()) == (0, b"need_full")
    assert len(taken) < 100


def test_a_program_that_is_not_there(local: LocalTransport) -> None:
    done = local.run(["/no/such/program", "x"])
    assert done.exit_code == 127
    assert b"/no/such/program" in done.stderr
    with local.stream(["/no/such/program"]) as stream:
        assert stream.read(1) == b""
        assert stream.finish(1).exit_code == 127


def test_silence_ends_the_program_and_is_an_error(local: LocalTransport, tmp_path: Path) -> None:
    script = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
    pid = tmp_path / "pid"
    with pytest.raises(ConnectionFailed) as caught:
        local.run(python(script, str(pid)), timeout=2)
    assert caught.value.code == "silent"
    assert not alive(int(pid.read_text()))


def test_slow_is_not_silent(local: LocalTransport) -> None:
    script = "import time\nfor i in range(8):\n    print(i, flush=True)\n    time.sleep(0.5)"
    assert local.run(python(script), timeout=3).stdout.split() == [b"%d" % i for i in range(8)]


def test_the_error_of_the_senders_own_chunks_comes_out(local: LocalTransport, tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"first"
        raise FileNotFoundError("a file that went away")

    script = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); sys.stdin.read()"
    with pytest.raises(FileNotFoundError):
        local.run(python(script, str(tmp_path / "pid")), stdin=chunks())
    time.sleep(0.1)
    if (tmp_path / "pid").exists() and (text := (tmp_path / "pid").read_text()):
        assert not alive(int(text))


def test_a_stream_comes_as_it_is_written(local: LocalTransport) -> None:
    script = "import sys, time\nprint('one', flush=True)\ntime.sleep(3)\nprint('two', flush=True)\nsys.exit(7)"
    with local.stream(python(script)) as stream:
        assert stream.read(30).strip() == b"one"
        with pytest.raises(TimeoutError):
            stream.read(0.05)
        assert stream.read(30).strip() == b"two"
        assert stream.read(30) == b""
        assert stream.read(30) == b""
        done = stream.finish(30)
    assert (done.exit_code, done.stdout, done.stderr) == (7, b"", b"")


def test_a_large_stream_with_its_stderr(local: LocalTransport) -> None:
    script = "import sys\nsys.stderr.write('e' * 1000000 + 'last')\n"
    script += "for _ in range(200):\n    sys.stdout.buffer.write(bytes(99999))"
    with local.stream(python(script)) as stream:
        assert drain(stream) == bytes(99999 * 200)
        done = stream.finish(30)
    assert done.exit_code == 0
    assert done.stderr.endswith(b"last")
    assert len(done.stderr) <= 256 * 1024


def test_closing_ends_the_program(local: LocalTransport) -> None:
    script = "import os, time\nprint(os.getpid(), flush=True)\nwhile True:\n    print('x' * 100000, flush=True)"
    stream = local.stream(python(script))
    pid = int(stream.read(30).split()[0])
    stream.close()
    stream.close()
    assert not alive(pid)
    assert stream.read(1) == b""


def test_closing_ends_one_that_ignores_sigterm(local: LocalTransport) -> None:
    script = "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    script += "print(os.getpid(), flush=True)\ntime.sleep(600)"
    with local.stream(python(script)) as stream:
        pid = int(stream.read(30))
    assert not alive(pid)


def test_closing_the_transport_ends_its_streams(local: LocalTransport) -> None:
    streams = [
        local.stream(python("import os, time; print(os.getpid(), flush=True); time.sleep(600)")) for _ in range(3)
    ]
    pids = [int(stream.read(30)) for stream in streams]
    local.close()
    local.close()
    assert not any(alive(pid) for pid in pids)
    with pytest.raises(ConnectionFailed):
        local.run(python("pass"))
    with pytest.raises(ConnectionFailed):
        local.stream(python("pass"))


def test_no_exit_status_in_time(local: LocalTransport) -> None:
    with local.stream(python("import os, time; os.close(1); time.sleep(600)")) as stream:
        assert stream.read(30) == b""
        with pytest.raises(ConnectionFailed):
            stream.finish(0.2)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_is_a_negative_code(local: LocalTransport) -> None:
    assert local.run(python("import os; os.kill(os.getpid(), 9)")).exit_code == -9


@pytest.mark.parametrize(
    "script", ["while True: print('x' * 9999)", "while True: print(end='x', flush=True); time.sleep(0.05)"]
)
def test_an_answer_without_an_end_is_given_up(
    local: LocalTransport, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "MOST_ANSWER", 5_000_000)
    began = time.monotonic()
    with pytest.raises(ConnectionFailed) as raised:
        local.run(python(f"import time\n{script}"), timeout=0.3)
    assert raised.value.code == "stalled" and time.monotonic() - began < 20

"""The verbs over the life of a run: what they answer, and what is in the run directory at the end."""

from __future__ import annotations

import ast
import base64
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.transfer.program import sources

JOB = """\
import json, os, sys, time
print("first line", sys.argv[1:], flush=True)
print("on stderr", file=sys.stderr)
with open(os.environ["CLOUDTRAIN_EVENTS"], "a") as events:
    events.write(json.dumps({"v": 1, "kind": "start"}) + "\\n")
out = os.environ["CLOUDTRAIN_OUT"]
os.makedirs(out + "/weights")
for name in ("metrics.csv", "weights/best.pt", "weights/last.pt.part"):
    with open(os.path.join(out, name), "wb") as file:
        file.write(name.encode() * 1000)
assert os.environ["CLOUDTRAIN_RUN"] == os.path.dirname(os.getcwd())
assert os.environ["PYTHONUNBUFFERED"] == "1" and os.environ["COLOUR"] == "blue"
sys.exit(int(sys.argv[1]))
"""


@functools.cache
def pythons() -> list[str]:
    """The interpreters on this computer that the supervisor supports, the oldest first. Asks each for its version."""
    found: dict[tuple[int, int], str] = {}
    pyenv = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin/python3"))
    for minor in range(8, 20):
        candidates = [shutil.which(f"python3.{minor}"), *(str(p) for p in pyenv if f"/3.{minor}." in str(p))]
        for path in filter(None, candidates):
            told = subprocess.run([path, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True)
            if told.returncode == 0 and told.stdout.split() == [b"3", str(minor).encode()]:
                found[(3, minor)] = path
    return [found[version] for version in sorted(found)]


def test_the_source_is_python_3_8() -> None:
    trees = [ast.parse(source, feature_version=(3, 8)) for source in sources().values()]
    # What 3.8 parses and then fails on at run time: new methods, and `X | Y` of types outside annotations.
    nodes = [node for tree in trees for node in ast.walk(tree)]
    for node in nodes:
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("removeprefix", "removesuffix", "pairwise", "readinto1_all")
    imported = {alias.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    imported |= {str(n.module).split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom) and not n.level}
    assert imported <= {*sys.stdlib_module_names, "onhost"}


@pytest.mark.parametrize("which", [0, -1], ids=["oldest", "newest"])
@pytest.mark.parametrize("code", [0, 3])
def test_a_run_from_start_to_end(make_host: Callable[..., Any], which: int, code: int) -> None:
    host = make_host(python=pythons()[which])
    assert host.poll()["state"] == "absent"
    answer = host.start(JOB, str(code), "it's", 'a "b"\n', env={"COLOUR": "blue"})
    assert answer["started"] is True
    assert answer["state"] == "running"
    record = host.finished()
    log = host.log()
    assert (record["code"], record["signal"], record["stop"], record["v"]) == (code, None, None, 1)
    assert log.startswith(b"first line") and b"on stderr" in log
    assert record["log_bytes"] == len(log)
    assert record["log_sha256"] == hashlib.sha256(log).hexdigest()
    assert abs(record["at"] - time.time()) < 60

    status = host.poll()
    assert (status["state"], status["exit"], status["log_size"]) == ("exited", record, len(log))
    assert base64.b64decode(status["log"]) == log
    assert json.loads(base64.b64decode(status["events"])) == {"v": 1, "kind": "start"}

    files = host.ask("manifest")["files"]
    assert [file["name"] for file in files] == ["metrics.csv", "weights/best.pt"]
    for file in files:
        body = (host.run_dir() / "out" / file["name"]).read_bytes()
        assert (file["size"], file["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert json.loads((host.run_dir() / "out" / "MANIFEST.json").read_bytes()) == {"v": 1, "files": files}
    assert host.call("read", "--name", "out/weights/best.pt", "--offset", "5").stdout == (b"weights/best.pt" * 1000)[5:]

    again = host.ask("start", stdin=host.spec(JOB, "0"))
    assert (again["state"], again["started"]) == ("exited", False)
    stopped = host.ask("stop")
    assert (stopped["state"], stopped["exit"]) == ("exited", record)
    host.nothing_left()


@pytest.mark.parametrize("name", ["two words", "it's", 'a "quoted" one', "line\nbreak", "żółw 亀", "$HOME `x`; #&*"])
def test_any_folder_name_works(make_host: Callable[..., Any], name: str) -> None:
    host = make_host(name)
    host.start("import os; print(os.environ['CLOUDTRAIN_RUN'])")
    assert host.finished()["code"] == 0
    assert host.log().decode() == f"{host.run_dir()}\n"
    end = host.call("follow").stdout.splitlines()[-1]
    assert json.loads(end)["state"] == "exited"


def test_relative_paths_are_of_the_login_directory(host: Any) -> None:
    spec = host.spec("print('here')")
    argv = [host.python, str(host.program), "start", "--run", "runs/brave-otter"]
    done = subprocess.run(argv, input=spec, capture_output=True, cwd=host.workdir, timeout=60)
    assert json.loads(done.stdout)["started"] is True
    assert host.finished()["code"] == 0


def test_two_starts_at_once_make_one_job(host: Any) -> None:
    spec = host.spec("import os, time\nopen(os.environ['CLOUDTRAIN_OUT'] + f'/{os.getpid()}', 'w')\ntime.sleep(3)")
    answers: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: answers.append(host.ask("start", stdin=spec))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer["started"] for answer in answers) == [False, False, False, True]
    assert {answer["state"] for answer in answers} == {"running"}
    assert len({answer["pid"] for answer in answers}) == 1
    host.finished()
    assert len([path for path in (host.run_dir() / "out").iterdir() if path.name.isdigit()]) == 1


@pytest.mark.parametrize("argv", [["/no/such/program"], ["no-such-program-anywhere"], ["/"]])
def test_a_program_that_cannot_run_is_an_exit_of_127(host: Any, argv: list[str]) -> None:
    answer = host.start("", argv=argv)
    assert (answer["started"], answer["state"]) == (True, "exited")
    assert host.finished()["code"] == 127
    assert argv[0].encode() in host.log()
    assert host.log().startswith(b"cloudtrain: cannot run")
    host.nothing_left()


@pytest.mark.parametrize(
    "changes",
    [{"v": 2}, {"argv": []}, {"argv": "ls"}, {"env": {"A": 1}}, {"lasts": "soon"}, {"tree": "../x"}, {"tree": ""}],
)
def test_a_spec_that_is_not_one_is_refused(host: Any, changes: dict[str, Any]) -> None:
    answer = host.ask("start", stdin=host.spec("", **changes))
    assert answer["code"] in ("bad_spec", "bad_name")
    assert host.poll()["state"] == "absent"


def test_a_tree_that_changed_is_refused_and_sent_anew(host: Any) -> None:
    spec = host.spec("print('as sent')")
    sent = host.workdir / "trees" / "tree-1" / "files" / "job.py"
    sent.write_text("print('something else')")
    assert host.ask("start", stdin=spec)["code"] == "tree_changed"
    assert host.poll()["state"] == "absent"
    assert not (host.workdir / "trees" / "tree-1" / "tree.json").exists()
    assert host.ask("start", stdin=host.spec("print('as sent')"))["started"] is True
    assert host.finished()["code"] == 0
    assert host.log() == b"as sent\n"


def test_a_tree_pushed_later_does_not_touch_the_run(host: Any) -> None:
    host.start("import time; time.sleep(1); print(open('job.py').read()[-6:])\n#first")
    host.push({"job.py": b"#second"})
    host.finished()
    assert host.log() == b"#first\n"


def test_a_start_cut_short_before_anything_ran_begins_anew(host: Any) -> None:
    spec = host.spec("print('ran')")
    host.run_dir().mkdir(parents=True)
    (host.run_dir() / "spec.json").write_bytes(spec)
    (host.run_dir() / "code.part").mkdir()
    assert host.poll()["state"] == "lost"
    assert host.ask("start", stdin=spec)["started"] is True
    assert host.finished()["code"] == 0


def test_start_answers_at_once_and_leaves_no_stream_open(host: Any) -> None:
    # An SSH channel closes when the last holder of its streams does: reading to the end must not wait for the job.
    began = time.monotonic()
    host.start("import time; time.sleep(50)")
    assert time.monotonic() - began < 30
    host.ask("stop", "--grace", "0")


def test_the_record_fits_on_a_disk_that_the_job_filled(host: Any, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    argv = ["unshare", "--mount", "--", sys.executable, "-c", FULL_DISK, str(small), str(host.program), sys.executable]
    done = subprocess.run(argv, capture_output=True, timeout=120)
    if b"cannot mount" in done.stderr or b"unshare" in done.stderr:
        pytest.skip("no right to mount a small disk")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout.splitlines()[-1])
    assert record["code"] == 1
    assert record["log_bytes"] >= len("began\n")


FULL_DISK = """
import hashlib, io, json, os, subprocess, sys, tarfile, time
small, supervise, python = sys.argv[1:]
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", small]).returncode:
    sys.exit("cannot mount")
body = b"import os\\nprint('began', flush=True)\\nwith open(os.environ['CLOUDTRAIN_OUT'] + '/big', 'wb', 0) as f:\\n"
body += b" while True: f.write(bytes(65536))"
entry = [len(body), hashlib.sha256(body).hexdigest(), 420]
digest = hashlib.sha256(b"job.py\\0%d\\0%s\\0%d\\n" % (entry[0], entry[1].encode(), 420)).hexdigest()
os.makedirs(small + "/trees/t/files")
open(small + "/trees/t/files/job.py", "wb").write(body)
json.dump({"v": 1, "digest": digest, "files": {"job.py": entry}}, open(small + "/trees/t/tree.json", "w"))
def ask(verb, spec=b""):
    done = subprocess.run([python, supervise, verb, "--run", small + "/runs/r"], input=spec, stdout=subprocess.PIPE)
    return json.loads(done.stdout)
spec = {"v": 1, "run": "r", "tree": "t", "digest": digest, "argv": [python, "job.py"], "env": {}, "lasts": None}
assert ask("start", json.dumps(spec).encode())["started"]
for _ in range(600):
    answer = ask("poll")
    if answer["state"] != "running":
        break
    time.sleep(0.1)
print(json.dumps(answer["exit"]))
"""


@pytest.mark.parametrize(
    "argv", [[], ["dance"], ["poll"], ["poll", "--run", "x", "--log", "-1"], ["read", "--run", "x"]]
)
def test_a_wrong_call_is_one_line(host: Any, argv: list[str]) -> None:
    done = subprocess.run([sys.executable, str(host.program), *argv], capture_output=True, cwd=host.workdir, timeout=60)
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == "usage"
    assert done.stderr == b""

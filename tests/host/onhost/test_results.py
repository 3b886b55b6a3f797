"""The files of a run's code that count as its results: what the job has made there, once it is finished."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.onhost.base import uptime
from cloudtrain.onhost.files import Run
from cloudtrain.onhost.results import SETTLES_S, Results
from tests.host.onhost.conftest import Host, entry, pack, wait_until

SENT = {"p/job.py": b"", "p/same.txt": b"same", "p/touched.txt": b"touched", "p/rewritten.txt": b"old!", "p/gone": b"g"}
DONE = "open('done', 'w').close()\n"


def start(host: Host, script: str, cwd: str = "p", **changes: Any) -> None:
    """A job of the project `p`, started in `cwd`."""
    files = {**SENT, "p/job.py": script.encode()}
    answer = host.receive({name: entry(body) for name, body in files.items()}, pack(list(files.items())))
    spec = json.loads(host.spec(""))
    argv = [sys.executable, str(host.run_dir() / "code/p/job.py")]
    spec |= {"digest": answer["digest"], "argv": argv, "cwd": cwd, "results": "p", **changes}
    host.receive({name: entry(body) for name, body in files.items()}, pack(list(files.items())))
    told = host.ask("start", stdin=json.dumps(spec).encode())
    assert told["ok"], told


def names(host: Host) -> list[str]:
    return [file["name"] for file in host.ask("manifest")["files"]]


def test_what_is_new_or_changed_in_the_project_is_a_result(host: Host) -> None:
    script = """
import os, socket, subprocess, time
def put(name, text="x"):
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    with open(name, "w") as file:
        file.write(text)
time.sleep(0.05)
put("checkpoints/model.pt", "weights")
put("rewritten.txt", "new!")
put("touched.txt", "touched")
os.utime("same.txt")
os.unlink("gone")
os.rename("same.txt", "moved.txt")
put(os.environ["CLOUDTRAIN_OUT"] + "/plot.png")
put(os.environ["CLOUDTRAIN_OUT"] + "/metrics.csv", "of out")
put("metrics.csv", "of the project")
put("half.part")
for cache in ("__pycache__", ".git", ".ipynb_checkpoints", ".pytest_cache", ".ruff_cache", ".mypy_cache"):
    put(cache + "/x")
    put("src/" + cache + "/x")
put("node_modules/x")
put("venv/pyvenv.cfg")
put("venv/lib/x.py")
put("wandb/run-1/tmp/x")
put("wandb/run-1/files/config.yaml")
put("fast.pyc")
put("../data/a/1.bin", "y" * 1000)
put("../data/2.bin", "y" * 500)
put("../note.txt", "n")
os.mkfifo("fifo")
with socket.socket(socket.AF_UNIX) as one:
    one.bind("sock")
os.symlink("checkpoints/model.pt", "last.ckpt")
os.symlink(os.environ["CLOUDTRAIN_OUT"] + "/metrics.csv", "best.csv")
os.symlink("metrics.csv", "mine.csv")
os.symlink("a", "b")
os.symlink("b", "a")
os.symlink("/etc/hostname", "foreign")
"""
    start(host, script)
    assert host.finished()["code"] == 0, host.log()
    told = host.ask("manifest")
    files = {file["name"]: file for file in told["files"]}
    assert sorted(files) == [
        *("checkpoints/model.pt", "code/p/metrics.csv", "half.part", "metrics.csv", "moved.txt"),
        *("plot.png", "rewritten.txt", "wandb/run-1/files/config.yaml"),
    ]
    for name, body in (("checkpoints/model.pt", b"weights"), ("metrics.csv", b"of out"), ("moved.txt", b"same")):
        assert files[name]["sha256"] == hashlib.sha256(body).hexdigest()
        assert host.call("read", "--name", f"out/{name}").stdout == body
    assert host.call("read", "--name", "out/code/p/metrics.csv").stdout == b"of the project"
    links = {link["name"]: link["to"] for link in told["links"]}
    assert (links["last.ckpt"], links["best.csv"]) == ("checkpoints/model.pt", "metrics.csv")
    assert links["mine.csv"] == "code/p/metrics.csv" and links["foreign"] == "/etc/hostname"
    assert {"a", "b"} <= set(links)
    assert told["growing"] == []
    assert told["beside"] == [
        {"name": "../data", "size": 1500, "files": 2},
        {"name": "../note.txt", "size": 1, "files": 1},
    ]
    manifest = json.loads((host.run_dir() / "out/MANIFEST.json").read_bytes())
    assert manifest["files"] == told["files"]
    for name in ("out/fifo", "out/last.ckpt", "out/checkpoints", "out/../p/job.py"):
        done = host.call("read", "--name", name)
        assert done.returncode == 1 and done.stdout == b"", name


def test_without_such_a_folder_the_code_holds_no_results(host: Host) -> None:
    start(host, "open('new.txt', 'w').close()", results="")
    host.finished()
    assert host.ask("manifest") == {"ok": True, "files": [], "links": []}
    assert host.call("read", "--name", "out/new.txt").returncode == 1


@pytest.mark.parametrize("folder", ["../p", "/p", "p/..", 3])
def test_such_a_folder_lies_below_the_code(host: Host, folder: Any) -> None:
    for name in ("results", "imports"):
        answer = host.ask("start", stdin=host.spec("", **{name: folder}))
        assert answer["code"] in ("bad_name", "bad_spec")


def test_the_projects_packages_are_found_wherever_python_is_started(host: Host) -> None:
    """As those of a src/ layout by a script that has gone elsewhere."""
    start(
        host,
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import sys; print(sys.path[1])'], cwd='/')",
        imports="p/src",
    )
    host.finished()
    assert host.log().decode().strip() == str(host.run_dir() / "code" / "p" / "src")


@pytest.mark.parametrize(
    ("script", "left"),
    [
        ("import os, shutil; shutil.rmtree(os.getcwd())", []),
        ("import os, shutil; shutil.rmtree(os.path.dirname(os.getcwd())); print('after')", []),
        ("import os, shutil; open(os.environ['CLOUDTRAIN_OUT'] + '/x', 'w'); shutil.rmtree('../../code')", ["x"]),
        ("import os, shutil; shutil.rmtree(os.environ['CLOUDTRAIN_OUT']); open('x', 'w')", ["x"]),
    ],
)
def test_a_job_that_removes_its_own_folders_has_its_end_told(host: Host, script: str, left: list[str]) -> None:
    start(host, script)
    assert host.finished()["code"] == 0
    assert names(host) == left
    assert host.poll()["state"] == "exited"


def test_what_a_lost_run_has_made_counts(host: Host) -> None:
    start(host, "import os, time; open('x', 'w').close(); print('made', flush=True); time.sleep(60)")
    host.wait_for_log(b"made")
    assert names(host) == []
    os.kill(host.supervisor(), 9)
    wait_until(lambda: host.poll()["state"] == "lost", "lost")
    assert names(host) == ["x"]


def test_a_spec_that_its_job_has_rewritten_leads_nowhere_else(host: Host) -> None:
    spec = "os.environ['CLOUDTRAIN_RUN'] + '/spec.json'"
    start(
        host,
        f"import json, os\nwith open({spec}, 'r+') as file: file.write(json.dumps({{'results': '../..'}}) + ' ' * 999)",
    )
    assert host.finished()["code"] == 0
    assert host.ask("manifest")["code"] == "bad_name"
    assert host.call("read", "--name", "out/looked.json").returncode == 1


class Looks:
    """A project that this process writes, and looks at it as `manifest` does, at times of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run = folder / "w/runs/r"
        self.code, self.out = self.run / "code/p", self.run / "out"
        self.code.mkdir(parents=True)
        self.out.mkdir()
        (self.run / "spec.json").write_text('{"results": "p"}')
        self.now = uptime()
        self.hashed: list[str] = []
        from cloudtrain.onhost import results

        def hash_file(path: str) -> tuple[int, str]:
            self.hashed.append(Path(path).name)
            return real(path)

        real = results.hash_file
        monkeypatch.setattr(results, "hash_file", hash_file)
        monkeypatch.setattr(results, "uptime", lambda: self.now)

    def __call__(self, after: float = 0.0, over: bool = False) -> list[str]:
        """The results `after` so many seconds."""
        self.now += after
        self.hashed.clear()
        look = Results(Run(str(self.run)), over)
        found = [str(entry["name"]) for entry in look.files()]
        self.growing = look.growing
        return found


@pytest.fixture
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(tmp_path, monkeypatch)


def test_a_file_counts_once_two_looks_saw_it_the_same(looks: Looks) -> None:
    file = looks.code / "model.pt"
    file.write_bytes(b"one")
    (looks.out / "renamed.pt").write_bytes(b"r")
    assert looks() == ["renamed.pt"] and looks.growing == ["model.pt"]
    assert looks(SETTLES_S - 0.1) == ["renamed.pt"]
    assert looks(0.2) == ["model.pt", "renamed.pt"] and looks.growing == []
    file.write_bytes(b"two")
    assert looks(100) == ["renamed.pt"]
    # Another file by the same name, size and time.
    os.utime(file, ns=(10**18, 10**18))
    assert looks(100) == ["renamed.pt"]
    assert looks(100) == ["model.pt", "renamed.pt"]
    other = file.with_name("other")
    other.write_bytes(b"six")
    os.utime(other, ns=(10**18, 10**18))
    other.replace(file)
    assert looks(100) == ["renamed.pt"] and looks.growing == ["model.pt"]
    # A machine that was started anew counts from nothing.
    looks.now = 5.0
    assert looks() == ["renamed.pt"]
    assert looks(over=True) == ["model.pt", "renamed.pt"]


def test_a_hash_is_remembered_and_not_believed_after_the_end(looks: Looks) -> None:
    for name in ("a", "b"):
        (looks.code / name).write_bytes(b"x")
    old = looks.out / "old"
    old.write_bytes(b"x")
    os.utime(old, (1, 1))
    looks()
    assert looks(SETTLES_S) == ["a", "b", "old"] and sorted(looks.hashed) == ["a", "b"]
    assert looks(1) == ["a", "b", "old"] and looks.hashed == []
    # What writes through memory changes no time: the job's last word is its end.
    assert looks(1, over=True) == ["a", "b", "old"] and sorted(looks.hashed) == ["a", "b", "old"]
    assert looks(over=True) == ["a", "b", "old"] and looks.hashed == []
    (looks.code / "a").write_bytes(b"y")
    assert looks(over=True) == ["a", "b", "old"] and looks.hashed == ["a"]
    (looks.run / "looked.json").write_text("[]")
    assert looks(over=True) == ["a", "b", "old"]


def test_a_file_in_out_that_has_just_changed_is_hashed_again(looks: Looks) -> None:
    (looks.out / "new").write_bytes(b"x")
    looks()
    assert looks() == ["new"] and looks.hashed == ["new"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user who is refused something")
def test_what_its_user_must_not_read_is_told(looks: Looks) -> None:
    (looks.code / "shut").mkdir()
    (looks.code / "shut" / "x").write_bytes(b"x")
    (looks.code / "locked").write_bytes(b"x")
    (looks.code / "locked").chmod(0)
    (looks.code / "shut").chmod(0)
    found = list(Results(Run(str(looks.run)), True).files())
    assert [(one["name"], one["sha256"]) for one in found] == [("locked", ""), ("shut", "")]
    (looks.code / "shut").chmod(0o700)


def test_what_lies_too_deep_to_be_read_is_told(looks: Looks) -> None:
    handle = os.open(looks.code, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=handle)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(os.open("model.pt", os.O_WRONLY | os.O_CREAT, dir_fd=handle))
    os.close(handle)
    [told] = Results(Run(str(looks.run)), True).files()
    assert told["name"].startswith("d" * 250 + "/") and (told["size"], told["sha256"]) == (0, "")
    shutil.rmtree(looks.code)


def test_many_files_in_little_time_and_memory(looks: Looks) -> None:
    for number in range(16):
        folder = looks.code / f"{number:03d}"
        folder.mkdir()
        for inner in range(250):
            (folder / f"{inner:04d}").touch()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    assert looks() == [] and len(looks.growing) == 4_000
    assert len(looks(SETTLES_S)) == 4_000
    assert time.monotonic() - began < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_a_name_that_is_no_text_is_found_by_what_it_is_told_as(host: Host) -> None:
    start(host, "import os\nfor name in (b'caf\\xe9.txt', 'what\\ufffd.txt'.encode()): open(name, 'wb').write(b'here')")
    host.finished()
    found = names(host)
    assert found == ["caf\\udce9.txt", "what\\ufffd.txt"]
    for name in found:
        assert host.call("read", f"--name=out/{name}").stdout == b"here"


def test_a_host_lets_a_run_go_whose_new_files_are_elsewhere(make_host: Callable[..., Host]) -> None:
    from tests.host.onhost.test_clean import clean, row

    host = make_host()
    start(host, "import os\nopen('m.pt', 'w').write('m'); os.mkdir('.mypy_cache'); open('.mypy_cache/x', 'w')", id="a1")
    host.finished()
    files = {"m.pt": hashlib.sha256(b"m").hexdigest()}
    told = row(clean(host, {"brave-otter": {"id": "a1", "files": {}}}))
    assert (told["removed"], told["kept"]) == (False, "it holds code/p/m.pt, which is not here")
    assert row(clean(host, {"brave-otter": {"id": "a1", "files": files}}))["removed"] is True


RESTORED = {"a/x.pt": b"weights", "here.txt": b"changed", "was_file/y": b"y"}


def restored(host: Host, **changes: Any) -> dict[str, Any]:
    """The start of a job on whose host other files are put back than its code has."""
    told = host.receive(
        {name: entry(body) for name, body in RESTORED.items()}, pack(list(RESTORED.items())), tree="back-1"
    )
    back = {
        "tree": "back-1",
        "digest": told["digest"],
        "names": {"here.txt": "rewritten.txt"},
        "links": {"last": "a/x.pt"},
    }
    files = {**SENT, "p/was_file": b"a file", "p/a": b"a file, too", "p/job.py": DONE.encode()}
    answer = host.receive({name: entry(body) for name, body in files.items()}, pack(list(files.items())))
    spec = json.loads(host.spec(""))
    host.receive({name: entry(body) for name, body in files.items()}, pack(list(files.items())))
    spec |= {"digest": answer["digest"], "argv": [sys.executable, "job.py"], "cwd": "p", "results": "p"}
    return host.ask("start", stdin=json.dumps({**spec, "restore": {**back, **changes}}).encode())


def test_what_is_put_back_lies_where_it_was_and_is_a_result_again(host: Host) -> None:
    assert restored(host)["ok"]
    host.finished()
    code = host.run_dir() / "code/p"
    assert (code / "rewritten.txt").read_bytes() == b"changed" and (code / "last").read_bytes() == b"weights"
    assert (code / "was_file/y").read_bytes() == b"y" and (code / "same.txt").read_bytes() == b"same"
    assert set(names(host)) == {"a/x.pt", "rewritten.txt", "was_file/y", "done"}
    assert host.ask("manifest")["links"] == [{"name": "last", "to": "a/x.pt"}]


ELSEWHERE: list[dict[str, Any]] = [
    *({"names": {"here.txt": "../../x"}}, {"links": {"/etc/x": "y"}}, {"links": {"x": "../../y"}}),
    *({"names": None}, {"tree": "../x"}, {"links": 3}),
]


@pytest.mark.parametrize("changes", ELSEWHERE)
def test_nothing_is_put_back_outside_the_project(host: Host, changes: dict[str, Any]) -> None:
    told = restored(host, **changes)
    assert told["code"] in ("bad_name", "bad_spec")
    assert not (host.run_dir() / "code").exists()

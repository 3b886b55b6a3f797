"""A user's own command: its project, what of it is refused before anything starts, and how a host runs it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cloudtrain.core.errors import UsageError
from cloudtrain.core.spec import JobSpec
from cloudtrain.source import command, tree


def lay(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_what_an_image_has_is_not_known_here(tmp_path: Path) -> None:
    root = lay(tmp_path, train_dot_py="")
    job = JobSpec(source=str(root), command=("nosuch-trainer", "-x"))
    with pytest.raises(UsageError):
        command.check(job, tree.scan(root, cache=None))
    command.check(replace(job, environment="image x/y"), tree.scan(root, cache=None))


def refused(root: Path, *words: str, cwd: str = "", packages: tuple[str, ...] = ()) -> UsageError | None:
    job = JobSpec(source=str(root), command=words, cwd=cwd, packages=packages)
    try:
        command.check(job, tree.scan(root, cache=None))
    except UsageError as error:
        assert error.code == "no_program" and error.hint and error.consequence == "nothing was started"
        return error
    return None


@pytest.mark.parametrize("mark", ["cloudtrain.toml", "pyproject.toml", ".git/HEAD"])
def test_the_project_is_the_nearest_marked_folder_upwards(tmp_path: Path, mark: str) -> None:
    top = tmp_path / "project"
    (top / mark).parent.mkdir(parents=True)
    (top / mark).touch()
    here = top / "examples" / "mnist"
    here.mkdir(parents=True)
    assert command.project_of(here) == (top, "examples/mnist")
    assert command.project_of(top) == (top, "")
    (here.parent / "pyproject.toml").touch()
    assert command.project_of(here) == (here.parent, "mnist")


def test_without_a_mark_it_is_the_folder_itself_but_never_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / ".git").mkdir()  # of somebody who keeps their settings in git
    here = tmp_path / "work"
    here.mkdir()
    assert command.project_of(here) == (here, "")
    for folder in (tmp_path, tmp_path.parent, Path(tmp_path.anchor)):
        with pytest.raises(UsageError, match="all that is in it would be sent"):
            command.project_of(folder)


@pytest.mark.parametrize(
    ("typed", "runs"),
    [
        ("python train.py --lr 3e-4", "PY train.py --lr 3e-4"),
        ("python3.12 -m pkg.train", "PY -m pkg.train"),
        ("train.py --lr 3e-4", "PY train.py --lr 3e-4"),
        ("torchrun --nproc_per_node 2 train.py", "torchrun --nproc_per_node 2 train.py"),
        ("bash run.sh", "bash run.sh"),
        ("./run.sh x", "./run.sh x"),
        ("nb/a.ipynb -p lr 1", "PY -m papermill nb/a.ipynb nb/a.out.ipynb --log-output --cwd nb -p lr 1"),
        ("a.ipynb", "PY -m papermill a.ipynb a.out.ipynb --log-output --cwd ."),
    ],
)
def test_how_a_host_runs_it(typed: str, runs: str) -> None:
    assert command.argv(JobSpec(source="/p", command=tuple(typed.split())), "PY") == runs.split()


def test_what_is_there_begins(tmp_path: Path) -> None:
    root = lay(
        tmp_path / "p",
        train_dot_py="x = 1\n",
        sub__run_dot_sh="",
        pkg__a_dot_py="",
        src__lib__b_dot_py="",
        n_dot_ipynb="{}",
    )
    for words in (
        ("python", "-u", "-W", "ignore", "train.py", "missing.csv"),
        ("train.py",),
        ("python", "-c", "print(1)"),
        ("python", "-m", "pkg.a"),
        ("python", "-m", "lib.b"),
        ("python", "-m", "torch.distributed.run", "train.py"),
        ("python", "-m", "json.tool"),
        ("torchrun", "--nproc_per_node", "2", "train.py"),
        ("accelerate", "launch", "train.py"),
        ("bash", "-c", "echo a.py"),
        ("bash", "sub/run.sh"),
        ("n.ipynb",),
    ):
        assert refused(root, *words) is None, words
    assert refused(root, "python", "../train.py", cwd="sub") is None
    assert refused(root, "./run.sh", cwd="sub") is None


@pytest.mark.parametrize(
    ("typed", "message", "hint"),
    [
        ("python trian.py", "there is no file 'trian.py'", "did you mean train.py?"),
        ("torchrun go.py", "there is no file 'go.py'", "check"),
        ("./go.sh", "there is no file './go.sh'", "check"),
        ("python ../train.py", "lies outside", "cloudtrain init"),
        ("python sub", "'sub' is a folder", "name the file"),
        ("/usr/share/train.py", "is a path of this computer", "relative"),
        ("python secret.py", "'secret.py' is not sent", "!secret.py"),
        ("python data/gen.py", "'data/gen.py' is not sent", "!data/gen.py"),
        ("train2.py", "'train2.py' is not Python, line 1", "newer Python"),
        ("python -m sub.missing", "no module 'sub.missing'", "check"),
        ("python -m nowhere_at_all.train", "no module 'nowhere_at_all.train'", "--with nowhere_at_all"),
        ("pyhton train.py", "there is no program 'pyhton'", "did you mean python?"),
        ("no-such-program-anywhere", "there is no program", "--with PACKAGE"),
    ],
)
def test_what_cannot_run_there_is_refused_here(tmp_path: Path, typed: str, message: str, hint: str) -> None:
    root = lay(tmp_path / "p", train_dot_py="", sub__a_dot_py="", secret_dot_py="", data__gen_dot_py="")
    lay(root, train2_dot_py="print 'so'\n", _dot_cloudtrainignore="secret.py\ndata/\n")
    error = refused(root, *typed.split())
    assert error is not None and message in error.message and hint in str(error.hint)


def test_a_program_that_packages_may_bring_is_not_judged(tmp_path: Path) -> None:
    root = lay(tmp_path / "p", train_dot_py="")
    assert refused(root, "yolo", "train", packages=("ultralytics",)) is None
    lay(root, requirements_dot_txt="ultralytics\n")
    assert refused(root, "yolo", "train") is None and refused(root, "python", "-m", "ultralytics.run") is None
    assert refused(root, "pyhton", "train.py") is not None

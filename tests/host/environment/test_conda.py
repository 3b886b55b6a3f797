"""A conda environment of an environment.yml. There is no channel here: a stub stands in micromamba's place, which takes
its options and makes a Python; the fetching, the keeping and the failures are the real ones."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudtrain.core.errors import ConnectionFailed
from cloudtrain.core.spec import JobSpec
from cloudtrain.environment import conda
from tests.host.environment.conftest import Host, says

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the host of these tests is POSIX")

YML = "name: digits\nchannels: [conda-forge]\ndependencies:\n  - python=3.12\n  - pip:\n    - -r pip/more.txt\n"
STUB = """#!/bin/sh
set -e
verb=$1; shift
while [ $# -gt 0 ]; do case $1 in
  --prefix) prefix=$2; shift 2;; --file) file=$2; shift 2;; --root-prefix) root=$2; shift 2;; *) shift;; esac; done
if [ $verb = list ]; then echo "@EXPLICIT"; cat $prefix/chosen; exit; fi
grep -q "dependencies" $file; test -f pip/more.txt; test ! -e $prefix
if grep -q python=2 $file; then
  echo "error    libmamba Could not solve for environment specs" >&2; exit 1; fi
echo "Linking python-3.12"
mkdir -p $prefix/conda-meta $root
%s -m venv --without-pip $prefix
echo "https://conda.anaconda.org/conda-forge/linux-64/python-3.12.tar.bz2#abc" > $prefix/chosen
"""


@pytest.fixture
def micromamba(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stub, published where it is looked for."""
    path = tmp_path / "published" / "micromamba-linux-64"
    path.parent.mkdir()
    path.write_text(STUB % host.python)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(conda, "FILES", f"{path.parent.as_uri()}/")
    monkeypatch.setattr(conda, "PROGRAMS", dict.fromkeys(conda.PROGRAMS, (path.name, digest)))
    return path


def test_it_is_made_once_and_kept(host: Host, micromamba: Path, project: Callable[..., JobSpec]) -> None:
    job = project({"environment.yml": YML, "pip/more.txt": "six\n"})
    made = host.prepare(job)
    assert (made.source, made.conda, made.packages, made.torch) == ("environment.yml", True, 1, None)
    assert Path(str(made.bin)).parent.name == made.key and says(made.python, "print(1)") == "1"
    assert host.lock.startswith("@EXPLICIT\nhttps://conda.anaconda.org/")
    assert any("Linking python-3.12" in str(event) for event in host.told)
    micromamba.unlink()
    assert host.prepare(job, run="calm-heron") == made and "as an earlier run had it" in host.done
    # Here an active one is the user's own business.
    assert host.prepare(job, here=True).key is None


def test_what_it_says_when_it_fails_is_shown(host: Host, micromamba: Path, project: Callable[..., JobSpec]) -> None:
    job = project({"environment.yml": YML.replace("=3.12", "=2"), "pip/more.txt": "six\n"})
    with pytest.raises(ConnectionFailed) as caught:
        host.prepare(job)
    assert caught.value.code == "environment" and "Could not solve for environment specs" in str(caught.value.detail)
    assert not [path for path in (host.login / "work" / "envs").iterdir() if path.is_dir()]


def test_one_that_is_not_the_pinned_one_is_not_run(
    host: Host, micromamba: Path, project: Callable[..., JobSpec]
) -> None:
    micromamba.write_text(micromamba.read_text() + "\n")
    with pytest.raises(ConnectionFailed) as caught:
        host.prepare(project({"environment.yml": YML, "pip/more.txt": ""}))
    assert caught.value.code == "index_unreachable" and "its sha256 is not the one" in str(caught.value.detail)

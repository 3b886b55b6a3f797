"""Requirements of a job, before anything is installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloudtrain.core.errors import UsageError
from cloudtrain.provider.ec2.launch import environment
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="EC2 hosts run Linux")


def needs(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "requirements.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("line", ["--index-url https://x", "-r other.txt", "git+https://x/y", "a @ https://x/y.whl"])
def test_requirements_that_lead_elsewhere_are_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError) as caught:
        environment.read_requirements(needs(tmp_path, "good>=1", line))
    assert caught.value.code == "requirements" and line in caught.value.message


def test_no_requirements_are_no_trouble(tmp_path: Path) -> None:
    assert environment.read_requirements(None) == [] == environment.read_requirements(tmp_path / "absent")


def test_the_shipped_job_can_be_read(tmp_path: Path) -> None:
    wanted = environment.read_requirements(ROOT / "job" / "requirements.txt")
    assert wanted and all(any(c in line for c in "<>=") for line in wanted)

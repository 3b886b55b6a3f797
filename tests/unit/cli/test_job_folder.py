"""A folder without `__init__.py` gives way to an installed package of its name: Python would run that one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtrain.cli import request
from cloudtrain.config import settings
from cloudtrain.core.errors import UsageError
from cloudtrain.core.spec import RunSpec
from cloudtrain.store import Store


def asked(tmp_path: Path, folder: Path, **values: str) -> RunSpec:
    return request.build(
        settings.load({"job": str(folder), **values}, folder=tmp_path, environment={}),
        Store(tmp_path / "registry.sqlite"),
        name="brave-otter",
        local=True,
        host=None,
        host_key=None,
        instance_id=None,
        dry_run=False,
        faults=(),
        words=(),
    )


def folder(tmp_path: Path, name: str) -> Path:
    made = tmp_path / "mine" / name
    made.mkdir(parents=True)
    (made / "train.py").write_text("raise SystemExit('it ran')\n")
    return made


@pytest.mark.parametrize(("name", "whose"), [("code", "Python's own"), ("rich", "an installed")])
def test_a_folder_that_another_module_hides_is_refused(tmp_path: Path, name: str, whose: str) -> None:
    job = folder(tmp_path, name)
    with pytest.raises(UsageError, match=f"{whose} module of the same name") as caught:
        asked(tmp_path, job)
    assert "touch" in (caught.value.hint or "") and "__init__.py" in (caught.value.hint or "")
    (job / "__init__.py").touch()
    assert asked(tmp_path, job).job.module == f"{name}.train"


@pytest.mark.parametrize("name", ["time", "os"])
def test_a_name_that_python_itself_has_loaded_is_no_name_for_a_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="Python's own") as caught:
        asked(tmp_path, folder(tmp_path, name))
    assert "rename" in (caught.value.hint or "")


def test_a_name_of_its_own_or_another_module_is_taken_as_it_is(tmp_path: Path) -> None:
    assert asked(tmp_path, folder(tmp_path, "my_digits")).job.module == "my_digits.train"
    # The one that is run is not below that folder's name.
    assert asked(tmp_path, folder(tmp_path, "email"), module="mailer.train").job.module == "mailer.train"

"""A project whose settings file decides of money: nothing is started until its user has agreed to that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudtrain.emulator.aws.core import Timing
from cloudtrain.emulator.region import Region
from tests.region.whole_path.place import JOBS, Place

FILE = """\
epochs = 2
instance = "g4dn.xlarge"
ssh_cidr = "203.0.113.0/24"
confirm_above = 1000.0
"""


@pytest.fixture
def there(tmp_path: Path) -> Iterator[tuple[Place, Region]]:
    with Region(tmp_path / "region", timing=Timing(pending_s=0.1, boot_s=0.1, shutting_down_s=0.1)) as region:
        place = Place.in_account(region, tmp_path)
        (place.cwd / "cloudtrain.toml").write_text(FILE, encoding="utf-8")
        yield place, region


def test_a_project_decides_of_money_once_its_user_has_agreed(there: tuple[Place, Region]) -> None:
    place, region = there
    job = ("--job", str(JOBS / "toy"), "--name", "calm-otter")
    for given in ((), ("--yes",), ("--plan",), ("--instance", "g4dn.xlarge", "--yes")):
        said = place.cli("run", *job, *given, code=2).stderr.decode()
        assert "[not_trusted]" in said and "cloudtrain trust" in said and "(nothing was started)" in said
        assert "confirm_above, instance, ssh_cidr" in said or given[:1] == ("--instance",)
    assert not region.inventory()["instances"]
    # Consent is nobody else's: the flags beat the rest of the file, and the question is asked all the same.
    ours = ("--instance", "g4dn.xlarge", "--ssh-cidr", "127.0.0.1/32")
    assert "sets confirm_above" in place.cli("run", *job, *ours, code=2).stderr.decode()
    plan = place.cli("run", *job, *ours, "--plan").stderr.decode()
    assert "open to 127.0.0.1/32" in plan and "from     " not in plan

    shown = place.cli("config", "show").stdout.decode()
    assert "is not trusted with that" in shown
    refused = json.loads(place.cli("config", "show", "--json").stdout)["settings"]
    assert [name for name, one in refused.items() if one.get("trusted") is False] == [
        "confirm_above", "instance", "ssh_cidr",
    ]  # fmt: skip
    asked = place.cli("trust", code=2)
    assert b"203.0.113.0/24" in asked.stdout and b"[confirmation_needed]" in asked.stderr
    place.cli("trust", "--yes")
    plan = place.cli("run", *job, "--plan").stderr.decode()
    assert "open to 203.0.113.0/24" in plan
    assert "cloudtrain.toml: confirm_above, instance, ssh_cidr" in plan
    assert [line for line in plan.splitlines() if line.startswith("  image    ami-")]
    told = json.loads(place.cli("run", *job, "--plan", "--json").stdout.splitlines()[0])["plan"]
    path = place.cwd / "cloudtrain.toml"
    assert told["origins"] == dict.fromkeys(("confirm_above", "instance", "ssh_cidr"), str(path))
    assert told["offer"]["details"]["image_owner"]

    path.write_text(FILE.replace("203.0.113.0/24", "0.0.0.0/0"), encoding="utf-8")
    assert "[not_trusted]" in place.cli("run", *job, "--yes", code=2).stderr.decode()
    assert not region.inventory()["instances"]


def test_what_init_wrote_needs_no_word(there: tuple[Place, Region]) -> None:
    place, _ = there
    (place.cwd / "cloudtrain.toml").unlink()
    place.cli("init")
    assert "sets nothing that needs trust" in place.cli("trust").stderr.decode()
    place.cli("run", "--instance", "g4dn.xlarge", "--job", str(JOBS / "toy"), "--plan")
    place.cli("trust", "nowhere", code=2)

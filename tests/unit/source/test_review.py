"""What is said of a folder before it is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtrain.console.pages import summary
from cloudtrain.core.plan import CodeSummary, Plan, make_plan
from cloudtrain.source import review
from cloudtrain.source.tree import FileEntry, Skipped, Tree
from tests import plans


def tree(*skipped: Skipped, files: tuple[str, ...] = ()) -> Tree:
    entries = {f"job/{name}": FileEntry(1, "0" * 64, 0o644) for name in files}
    return Tree(root=Path("/"), files=entries, digest="", bytes=0, skipped=list(skipped))


def test_links_come_first_then_what_git_tracks_then_folders_and_the_largest_files() -> None:
    rule = ".gitignore:1: *.bin"
    found = tree(
        Skipped("job/small.bin", rule, 1),
        Skipped("job/large.bin", rule, 3 << 30),
        Skipped("job/deep/labels.bin", rule, 8),
        Skipped("job/raw/", ".gitignore:2: raw/"),
        Skipped("job/data", "a link out of the folder"),
        Skipped("job/__pycache__/", "default: cache (__pycache__/)"),
    )
    told = review.stays(found, {"deep/labels.bin", "train.py"})
    assert told[0] == "job/data (a link out of the folder)"
    assert "git tracks it" in told[1] and told[1].startswith("job/deep/labels.bin (8 ")
    assert told[2:] == ("job/raw/ (.gitignore:2: raw/)", "2 more")
    assert "git tracks it" in " ".join(review.stays(found, {"raw/a", "raw.txt"}))
    assert "tracks" not in " ".join(review.stays(tree(found.skipped[3]), {"raw", "raw.txt", "rawer/a"}))


def test_what_is_made_again_is_not_spoken_of() -> None:
    rules = ("version control (.git)", "virtual environment (.venv/)", "cache (*.pyc)", "results of runs")
    found = tree(*(Skipped(f"job/{number}/", f"default: {rule}") for number, rule in enumerate(rules)))
    assert review.stays(found, set()) == ()
    assert review.stays(tree(Skipped("job/data", "a link out of the folder")), set()) != ()


@pytest.mark.parametrize(
    "name",
    [
        "prod.env",
        "app.env.local",
        "secret.json",
        "my-secrets.yml",
        "db_password.txt",
        "API_KEY",
        "credentials_aws.txt",
        "token",
        ".pgpass",
        "rclone.conf",
        "main.tfvars.json",
        "terraform.tfstate.backup",
        "AuthKey.p8",
    ],
)
def test_what_looks_like_a_secret_is_named_before_it_is_sent(name: str) -> None:
    (said,) = review.warnings(tree(files=(f"deep/{name}", "train.py")))
    assert f"job/deep/{name}" in said and ".cloudtrainignore" in said and "code.tar.gz" in said


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer.json",
        "tokens.txt",
        "secretary.csv",
        "secrets.py",
        "password.md",
        "conda-env.yml",
        "env.yml",
        "keys.csv",
    ],
)
def test_what_trainings_need_is_no_secret(name: str) -> None:
    assert review.warnings(tree(files=(name,))) == ()


def test_plan_and_json_say_it(tmp_path: Path) -> None:
    stays = ("job/data (a link out of the folder)", "4 more")
    code = CodeSummary(files=2, bytes=9, stays=stays, warnings=("look here",))
    plan = make_plan(plans.spec(tmp_path), plans.offer(), code)
    lines = summary.plan_lines(plan)
    assert "  stays    job/data (a link out of the folder); 4 more" in lines and "  warn     look here" in lines
    assert Plan.from_dict(plan.to_dict()) == plan
    before = plan.to_dict()
    del before["code"]["stays"], before["code"]["warnings"]
    assert Plan.from_dict(before).code.stays == (), "a plan of the last release"

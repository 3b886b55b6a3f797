"""What is said of a folder before it is sent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cloudtrain.console.pages import summary
from cloudtrain.core.plan import CodeSummary, Plan, make_plan
from cloudtrain.source import review
from cloudtrain.source.ignore import GIT_IGNORED
from cloudtrain.source.tree import FileEntry, Skipped, Tree
from tests import plans
from tests.unit.source.test_tree import fill


def tree(*skipped: Skipped, files: tuple[str, ...] = (), root: Path = Path("/absent")) -> Tree:
    entries = {f"job/{name}": FileEntry(1, "0" * 64, 0o644) for name in files}
    return Tree(root=root, files=entries, digest="", bytes=0, skipped=list(skipped))


def test_what_stays_is_told_by_its_kind_with_sizes_the_largest_first(tmp_path: Path) -> None:
    fill(tmp_path / "job" / "raw", {"deep/x.bin": "1" * 9, "y.bin": "1", "__pycache__/z.pyc": "1" * 99})
    (tmp_path / "job" / "nothing").mkdir()
    found = tree(
        Skipped("job/small.bin", GIT_IGNORED, 1),
        Skipped("job/large.bin", GIT_IGNORED, 3 << 30),
        Skipped("job/raw/", GIT_IGNORED),
        Skipped("job/nothing/", GIT_IGNORED),
        Skipped("job/deep/labels.bin", GIT_IGNORED, 8),
        Skipped("job/data", "a link out of the folder"),
        Skipped("job/.env", "default: may hold secrets (.env*)", 5),
        Skipped("job/notes/a.md", "notes/.cloudtrainignore:2: *.md", 7),
        root=tmp_path,
    )
    link, ignored, *others = review.stays(found)
    assert link == "a link out of the folder: data"
    assert ignored.startswith("git-ignored, 3.2 GB in 5 files: large.bin, raw/, deep/labels.bin, 1 more (")
    assert "a line !large.bin in job/.cloudtrainignore sends it" in ignored
    assert others == [
        "kept out by .cloudtrainignore, 7 B in 1 file: notes/a.md",
        "may hold secrets, 5 B in 1 file: .env",
    ]


def test_a_folder_that_stays_is_not_counted_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review, "_MOST_COUNTED", 5)
    fill(tmp_path / "job" / "data", {f"{number}.bin": "12" for number in range(9)})
    more = Skipped("job/more/", GIT_IGNORED)
    (said,) = review.stays(tree(Skipped("job/data/", GIT_IGNORED), more, root=tmp_path))
    assert said.startswith("git-ignored, over 10 B in over 5 files: data/, more/ (")


def test_what_is_made_again_is_not_spoken_of() -> None:
    rules = ("version control (.git)", "virtual environment (.venv/)", "cache (*.pyc)", "results of runs")
    found = tree(*(Skipped(f"job/{number}/", f"default: {rule}") for number, rule in enumerate(rules)))
    assert review.stays(found) == ()
    assert review.stays(tree(Skipped("job/data", "a link out of the folder"))) != ()


def test_what_is_large_for_code_is_named_before_it_is_sent() -> None:
    found = tree(files=("train.py", "best.ckpt"))
    large = {**found.files, "job/best.ckpt": FileEntry(3 << 30, "0" * 64, 0o644)}
    (said,) = review.warnings(replace(found, files=large, bytes=(3 << 30) + 1))
    assert "job/best.ckpt (3.2 GB)" in said and ".cloudtrainignore" in said


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

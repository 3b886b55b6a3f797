"""verify: what differs is named, what cannot be checked is said, and no receipt of a stranger does harm."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.core.errors import ExitCode, UsageError
from cloudtrain.core.notes import RunNotes
from cloudtrain.core.states import RunState
from cloudtrain.core.told import ExitRecord
from cloudtrain.run_folder import code_copy, receipt, verify
from cloudtrain.run_folder.verify import Verdict
from cloudtrain.source import tree
from cloudtrain.store import Run, Store
from tests import plans

LOG = b"a line\n"
EVENTS = (
    b'{"v":1,"t":1,"kind":"start","epochs":5,"goals":["99.3"],"subset":null}\n'
    b'{"v":1,"t":2,"kind":"result","best_test_acc":99.41,"goals":{"99.3":true}}\n'
)
FILES = {"weights/best.pt": b"weights", "metrics.jsonl": b"{}\n"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "registry.sqlite")


@pytest.fixture
def run(store: Store, tmp_path: Path) -> Run:
    """A run that ended well, with all that it leaves."""
    row = store.add(plans.plan(tmp_path / "runs"))
    package = tmp_path / "net"
    package.mkdir()
    (package / "train.py").write_text("print()\n")
    row.folder.mkdir(parents=True)
    (row.folder / "console.log").write_bytes(LOG)
    (row.folder / "events.jsonl").write_bytes(EVENTS)
    pulled = []
    for name, data in FILES.items():
        (row.folder / name).parent.mkdir(exist_ok=True)
        (row.folder / name).write_bytes(data)
        pulled.append({"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    store.write_journal(row.name, RunNotes.of({"pulled": pulled}))
    files = tree.scan(package, cache=None)
    code_copy.keep(row.folder, files, files.digest, "local", store.journal(row.name), lambda _: None)
    ending = ExitRecord(
        state="exited",
        code=0,
        log_bytes=len(LOG),
        log_sha256=hashlib.sha256(LOG).hexdigest(),
        events_bytes=len(EVENTS),
    )
    story = (RunState.PROVISIONING, RunState.BOOTING, RunState.SYNCING, RunState.RUNNING, RunState.PULLING)
    for state in (*story, RunState.SUCCEEDED):
        row = store.move(row, state, ending=ending)
    receipt.write(row, store)
    return row


def verdicts(path: Path, store: Store | None) -> dict[str, str]:
    return {check.subject: check.verdict.value for check in verify.check(path, store).checks}


def edit(run: Run, change: Any) -> None:
    """Change the receipt."""
    path = run.folder / "run.json"
    told = json.loads(path.read_bytes())
    change(told)
    path.write_text(json.dumps(told))


GOOD = dict.fromkeys(
    ["weights/best.pt", "metrics.jsonl", "console.log", "events.jsonl", "code.tar.gz", "figures", "registry"], "ok"
)


def test_an_untouched_run_is_all_right(run: Run, store: Store) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    assert verdicts(run.folder, store) == GOOD
    assert verdicts(run.folder / "run.json", store) == GOOD
    found = verify.check(run.folder, store)
    assert found.wrong == () and found.known
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before


@pytest.mark.parametrize("name", [*FILES, "console.log", "events.jsonl", "code.tar.gz"])
@pytest.mark.parametrize("harm", ["gone", "longer", "one bit", "folder", "link"])
def test_a_file_that_is_not_as_the_receipt_says_is_named(run: Run, store: Store, name: str, harm: str) -> None:
    path = run.folder / name
    data = path.read_bytes()
    if harm == "longer":
        path.write_bytes(data + b"x")
    elif harm == "one bit":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        path.unlink()
    if harm == "folder":
        path.mkdir()
    elif harm == "link":
        (run.folder.parent / "copy").write_bytes(data)
        try:
            path.symlink_to(run.folder.parent / "copy")
        except OSError:
            pytest.skip("this account may not make links")
    found = verify.check(run.folder, store)
    assert [check.subject for check in found.wrong] == [name]
    assert found.wrong[0].verdict is (Verdict.MISSING if harm == "gone" else Verdict.DIFFERS) and found.wrong[0].detail


def test_what_the_receipt_does_not_name_is_no_fault(run: Run, store: Store) -> None:
    (run.folder / "notes.txt").write_text("mine")
    (run.folder / ".pull").mkdir()
    (run.folder / ".pull" / "x.part").write_text("half")
    assert verdicts(run.folder, store) == {**GOOD, "notes.txt": "extra"}
    assert verify.check(run.folder, store).wrong == ()


def test_a_receipt_changed_with_its_file_is_found_by_the_registry(run: Run, store: Store) -> None:
    (run.folder / "metrics.jsonl").write_bytes(b"better\n")

    def forge(told: dict[str, Any]) -> None:
        told["artifacts"][1] |= {"size": 7, "sha256": hashlib.sha256(b"better\n").hexdigest()}

    edit(run, forge)
    assert verdicts(run.folder, store) == {**GOOD, "registry": "differs"}
    found = verify.check(run.folder, store)
    assert "artifacts" in found.wrong[0].detail
    # Elsewhere nobody can tell, and that is said.
    assert verdicts(run.folder, None) == {**GOOD, "registry": "unchecked"}


def test_a_receipt_of_another_computer(run: Run, store: Store, tmp_path: Path) -> None:
    there = tmp_path / "usb stick"
    shutil.copytree(run.folder, there)
    other = Store(tmp_path / "other.sqlite")
    other.add(plans.plan(tmp_path / "other"))  # a run of the same name, which is another one
    found = verify.check(there, other)
    assert not found.wrong and not found.known
    assert "not signed" in found.checks[-1].detail and found.checks[-1].verdict is Verdict.UNCHECKED
    assert verdicts(there, store) == GOOD


def test_a_run_that_goes_on_has_nothing_to_compare_yet(store: Store, tmp_path: Path) -> None:
    row = store.move(store.add(plans.plan(tmp_path)), RunState.PROVISIONING)
    row.folder.mkdir()
    receipt.write(row, store)
    assert set(verdicts(row.folder, store).values()) == {"unchecked"}


def test_a_receipt_older_than_the_end_is_found(run: Run, store: Store) -> None:
    edit(run, lambda told: told.update(status="pulling", ended=None))
    found = verify.check(run.folder, store)
    assert [check.subject for check in found.wrong] == ["registry"] and "status" in found.wrong[0].detail


def test_an_archive_with_other_code_is_found(run: Run, store: Store, tmp_path: Path) -> None:
    (tmp_path / "net" / "train.py").write_text("print('other')\n")
    copy = code_copy.pack(tree.scan(tmp_path / "net", cache=None), run.folder / "code.tar.gz")
    assert copy is not None
    edit(run, lambda told: told["code"].update(archive={"size": copy.size, "sha256": copy.sha256}))
    found = verify.check(run.folder)
    assert [(check.subject, check.detail) for check in found.wrong] == [
        ("code.tar.gz", "its code is not what was sent")
    ]


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "run.json", ".git/config", "x\n"])
def test_names_that_lead_out_are_not_followed(run: Run, store: Store, name: str) -> None:
    edit(run, lambda told: told["artifacts"][0].update(name=name))
    found = verify.check(run.folder)
    assert found.wrong[0].verdict is Verdict.DIFFERS and "no result can have this name" in found.wrong[0].detail


def test_a_receipt_with_a_name_that_is_no_text_is_checked_and_is_not_the_run_of_that_name(
    run: Run, store: Store
) -> None:
    told = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    told["name"] = "\ud800" + "x" * 10_000
    (run.folder / "run.json").write_text(json.dumps(told), encoding="utf-8")
    found = verify.check(run.folder, store)
    assert not found.known and not found.wrong and len(found.run) <= 200


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "no_receipt"),
        ("", "bad_receipt"),
        ("[]", "bad_receipt"),
        ("{}", "bad_receipt"),
        ('{"schema_version": 1}', "bad_receipt"),
        ('{"schema_version": 2, "name": "x"}', "bad_receipt"),
        ('{"schema_version": 1, "name": "x", "code": {}, "log": {}, "artifacts": [{"name": 1}]}', "bad_receipt"),
        ('{"schema_version": 1, "name": "x", "code": [], "log": {}, "artifacts": []}', "bad_receipt"),
        ('{"schema_version": 1, "name": "x", "code": {}, "log": {"sha256": []}, "artifacts": []}', "bad_receipt"),
        ("[" * 100_000, "bad_receipt"),
        ("\xff", "bad_receipt"),
    ],
)
def test_what_is_no_receipt(tmp_path: Path, text: str | None, code: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(UsageError) as caught:
        verify.check(tmp_path)
    assert (caught.value.code, caught.value.exit_code) == (code, ExitCode.USAGE)
    assert caught.value.hint and "nothing was checked" in str(caught.value.consequence)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda told: told["result"].update(best_test_acc=99.99), "best_test_acc is 99.99, the events say 99.41"),
        (lambda told: told["result"].update(final_test_acc=99.5), "final_test_acc is 99.5, the events say nothing"),
        (lambda told: told["settings"].update(epochs=1), "settings.epochs is 1, the events say 5"),
        (lambda told: told.update(goals=[{"goal": "99.3", "met": False}]), "goal 1 is False, the events say True"),
    ],
)
def test_a_forged_figure_is_found_without_any_registry(run: Run, change: Any, says: str) -> None:
    edit(run, change)
    [found] = verify.check(run.folder).wrong
    assert found.subject == "figures" and says in found.detail
    (run.folder / "events.jsonl").unlink()
    assert verdicts(run.folder, None)["figures"] == "unchecked"


def test_a_goal_of_which_something_is_private_is_the_same_goal(run: Run) -> None:
    edit(run, lambda told: told.update(goals=[{"goal": "token_acc: <secret>", "met": True}]))
    assert verdicts(run.folder, None)["figures"] == "ok"

"""The receipt: what is in it, what never is, and that no crash tears it."""

from __future__ import annotations

import getpass
import json
import platform
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.config import settings
from cloudtrain.core.errors import RunError
from cloudtrain.core.events import Warned
from cloudtrain.core.instance import Instance
from cloudtrain.core.notes import FileEntry, RunNotes
from cloudtrain.core.plan import Candidate, CodeSummary, Offer, OfferDetails, make_plan
from cloudtrain.core.spec import Ec2Spec, HostSpec, JobSpec, Limits, Target, TrainSpec
from cloudtrain.core.states import InstanceLife, RunState
from cloudtrain.core.told import ExitRecord
from cloudtrain.provider.ec2.notes import Ec2Notes
from cloudtrain.run_folder import receipt, settings_file
from cloudtrain.run_folder.redact import Redaction
from cloudtrain.store import Run, Store
from tests import plans

STORY = [RunState.PROVISIONING, RunState.BOOTING, RunState.SYNCING, RunState.RUNNING, RunState.PULLING]
EXITED = ExitRecord(state="exited", code=0, log_bytes=7, log_sha256="ab" * 32, events_bytes=9)

# What must never stand in a receipt, and where this test plants it.
PRIVATE = {
    "user": "ada-lovelace",
    "host": "adas-laptop",
    "home": "/home/ada lovelace",
    "login": "hopper",
    "address": "203.0.113.77",
    "address6": "2001:db8::77",
    "account": "123456789012",
    "mail": "ada@example.org",
    "profile": "student-profile",
    "identity": "/secret/place/id_ed25519",
    "key": "AKIAIOSFODNN7EXAMPLE",
    "secret": "wJalrXUtnFEMI",
}


def moved(store: Store, run: Run, *states: RunState, **facts: Any) -> Run:
    for state in states:
        run = store.move(run, state, **(facts if state is states[-1] else {}))
    return run


def tell(run: Run, **events: dict[str, Any]) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / "events.jsonl").open("a", encoding="utf-8") as file:
        for kind, values in events.items():
            file.write(json.dumps({"v": 1, "t": 1.0, "kind": kind, **values}) + "\n")


def read(run: Run) -> dict[str, Any]:
    return dict(json.loads((run.folder / "run.json").read_bytes()))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "registry.sqlite")


@pytest.fixture
def someone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's computer."""
    monkeypatch.setattr(getpass, "getuser", lambda: PRIVATE["user"])
    monkeypatch.setattr(platform, "node", lambda: f"{PRIVATE['host']}.local")
    monkeypatch.setattr(Path, "home", lambda: Path(PRIVATE["home"]))


def of_ec2(store: Store, tmp_path: Path) -> Run:
    """A finished run on EC2 with something private in every place that a receipt is made from."""
    p = PRIVATE
    ec2 = Ec2Spec(profile=p["profile"], identity=p["identity"], region="us-east-1", ssh_cidr=f"{p['address']}/32")
    details = OfferDetails(
        region="us-east-1",
        market="on-demand",
        image_id="ami-0abc",
        image_name=f"Deep Learning AMI of {p['account']}",
        price_date="2026-11-01",
        owner="0f0f",
    )
    offer = Offer(
        where="us-east-1",
        candidates=(Candidate(type="g4dn.xlarge", price_per_hour=0.536),),
        account=f"profile {p['profile']}, account {p['account']}",
        details=details,
    )
    spec = plans.spec(
        tmp_path / p["user"] / "runs",
        target=Target.EC2,
        ec2=ec2,
        train=TrainSpec(
            epochs=2, args=("--data", f"{p['home']}/mnist", f"--log={p['mail']}", f"--from={p['address']}")
        ),
        job=JobSpec(source=f"{p['home']}/my job", module=f"job.{p['user']}"),
    )
    run = store.add(make_plan(spec, offer, CodeSummary(files=3, bytes=9, git=f"1a2b3c4 of {p['user']}")))
    store.write_journal(
        run.name,
        RunNotes.of(
            {
                "host": {
                    "python": f"{p['home']}/bin/python",
                    "python_version": "3.12.3",
                    "torch": "2.13.0",
                    "cuda": "12.6",
                    "driver": "580.105.08",
                    "gpus": [{"name": "Tesla T4", "memory_mib": 15360}],
                    "cpus": 4,
                    "os": f"Ubuntu 24.04 on ip-10-0-3-77 ({p['address']})",
                    "home": p["home"],
                    "boot_id": "b00d",
                    "disk_free": 1,
                },
                "code": {"digest": "cd" * 32, "archive": None, "git": None, "target_id": p["address"]},
                "aws_requests": [
                    {"call": "RunInstances", "id": "59dbff89-35bd", "at": 1.0, "error": None},
                    {"call": "TerminateInstances", "id": "60dbff89-35bd", "at": 2.0, "error": None},
                ],
                "pulled": [{"name": "weights/best.pt", "size": 3, "sha256": "ef" * 32}],
            }
        ),
    )
    store.write_journal(run.name, Ec2Notes(ssh_cidr=f"{p['address']}/32"))
    instance = Instance(
        id="i-0abc",
        provider=Target.EC2,
        owned=True,
        workdir=f"/home/{p['login']}/cloudtrain",
        address=p["address"],
        user=p["login"],
        host_key="ssh-ed25519 AAAA",
        type="g4dn.xlarge",
        zone="us-east-1b",
        price_per_hour=0.536,
        life=InstanceLife.RUNNING,
    )
    tell(
        run,
        data={"source": f"file://{p['home']}/mnist from {p['address6']}", "sha256": {"t10k-labels": "aa" * 32}},
        start={
            "model": 3,
            "epochs": 2,
            "batch_size": 64,
            "lr": 0.01,
            "recipe": "best",
            "device_name": f"Tesla T4 of {p['host']}",
            "goals": ["epochs <= 15", f"please {p['mail']}"],
            "settings": {
                "optimiser": "adamw",
                "note": f"password={p['secret']} {p['key']}",
                "db_password": p["secret"],
                p["user"]: [p["account"]],
            },
            "secrets": p["secret"],
        },
        result={"best_test_acc": 99.4, "parameters": 7902, "goals": {"epochs <= 15": True}, "who": p["mail"]},
    )
    run = moved(store, run, *STORY[:-1], instance=instance)
    error = RunError(code="training_failed", message=f"arn:aws:iam::{p['account']}:user/{p['user']} at {p['home']}")
    return moved(store, run, STORY[-1], RunState.SUCCEEDED, ending=EXITED, error=error)


@pytest.mark.usefixtures("someone")
def test_nothing_private_is_in_it(store: Store, tmp_path: Path) -> None:
    run = of_ec2(store, tmp_path)
    receipt.write(run, store)
    for name in ("run.json", "config.toml"):
        lines = (run.folder / name).read_text(encoding="utf-8").lower().splitlines()
        # Without its module a job cannot be started; what it is called is its author's word.
        text = "\n".join(line for line in lines if not line.startswith("module = "))
        assert [f"{what}: {value}" for what, value in PRIVATE.items() if value.lower() in text] == [], text
        assert str(tmp_path).lower() not in text and "/home/" not in text and "arn:aws" not in text
    assert "ip-10-0-3-77" not in (run.folder / "run.json").read_text()


@pytest.mark.usefixtures("someone")
def test_everything_that_matters_is_in_it(store: Store, tmp_path: Path) -> None:
    run = of_ec2(store, tmp_path)
    receipt.write(run, store)
    found = read(run)
    assert (found["schema_version"], found["name"], found["status"]) == (1, "brave-otter", "succeeded")
    assert (found["exit_code"], found["ended_how"], found["error"]) == (0, "finished", {"code": "training_failed"})
    assert (found["settings"]["batch_size"], found["settings"]["lr"]) == (64, 0.01)
    assert found["settings"]["hyperparameters"]["optimiser"] == "adamw"
    assert found["goals"][0] == {"goal": "epochs <= 15", "met": True} and found["goals"][1]["met"] is None
    assert found["data"]["sha256"] == {"t10k-labels": "aa" * 32}
    machine = found["machine"]
    assert (machine["instance_id"], machine["instance_type"]) == ("i-0abc", "g4dn.xlarge")
    assert (machine["region"], machine["zone"], machine["image_id"]) == ("us-east-1", "us-east-1b", "ami-0abc")
    assert machine["gpus"] == [{"name": "Tesla T4", "memory_mib": 15360}]
    assert [machine[key] for key in ("driver", "cuda", "torch", "python")] == ["580.105.08", "12.6", "2.13.0", "3.12.3"]
    assert [(r["call"], r["id"]) for r in found["aws_requests"]] == [
        ("RunInstances", "59dbff89-35bd"),
        ("TerminateInstances", "60dbff89-35bd"),
    ]
    cost = found["cost"]
    assert (cost["price_per_hour"], cost["price_date"], cost["billed"]) == (0.536, "2026-11-01", True)
    assert cost["estimate"] == pytest.approx(0.536 / 60, rel=0.01)  # a minute is the least
    assert found["log"] == {"bytes": 7, "sha256": "ab" * 32, "secrets": []}
    assert found["artifacts"] == [{"name": "weights/best.pt", "size": 3, "sha256": "ef" * 32}]
    assert [phase["state"] for phase in found["phases"]] == ["planned", *(state.value for state in STORY)]


def test_a_rehearsal_says_that_nothing_was_billed(store: Store, tmp_path: Path) -> None:
    run = of_ec2(store, tmp_path)
    ec2 = replace(run.plan.spec.ec2 or Ec2Spec(), rehearsal=True)
    found = receipt.build(replace(run, plan=replace(run.plan, spec=replace(run.plan.spec, ec2=ec2))), store)
    assert found["rehearsal"] is True and found["cost"]["billed"] is False and found["cost"]["estimate"] > 0


@pytest.mark.parametrize(
    ("states", "ending", "how"),
    [
        ([], None, None),
        (STORY, EXITED, None),
        ([*STORY, RunState.SUCCEEDED], EXITED, "finished"),
        ([*STORY, RunState.FAILED], replace(EXITED, code=1), "failed"),
        ([RunState.PROVISIONING, RunState.FAILED], None, "not_started"),
        ([*STORY, RunState.STOPPED], replace(EXITED, stop="user"), "stopped"),
        ([*STORY, RunState.STOPPED], replace(EXITED, stop="deadline"), "limit"),
        ([*STORY, RunState.STOPPED], replace(EXITED, stop="spot"), "spot"),
        ([*STORY, RunState.INTERRUPTED], EXITED, "spot"),
        ([*STORY, RunState.LOST], ExitRecord(state="lost"), "lost"),
        ([RunState.STOPPED], None, "stopped"),
    ],
)
def test_how_it_ended(store: Store, tmp_path: Path, states: list[RunState], ending: Any, how: str | None) -> None:
    run = store.add(plans.plan(tmp_path))
    if states:
        run = moved(store, run, *states, ending=ending)
    assert receipt.ended_how(run) == how
    built = receipt.build(run, store)
    assert built["ended_how"] == how and (built["exit_code"] is None) == (not run.state.final)


def test_it_keeps_its_id(store: Store, tmp_path: Path) -> None:
    run = store.add(plans.plan(tmp_path))
    run.folder.mkdir()
    receipt.write(run, store)
    first = read(run)
    assert len(first["id"]) == 32 and first["status"] == "planned"
    run = moved(store, run, RunState.PROVISIONING)
    receipt.write(run, store)
    assert read(run)["id"] == first["id"] and read(run)["status"] == "provisioning"
    assert not list(run.folder.glob("*.part")) and not list(run.folder.glob(".*.part"))


def test_a_receipt_that_cannot_be_written_ends_no_run(store: Store, tmp_path: Path) -> None:
    run = store.add(plans.plan(tmp_path))
    run.folder.write_text("in the way")
    told: list[Any] = []
    receipt.update(run, store, told.append)
    assert len(told) == 1 and isinstance(told[0], Warned) and "run.json" in told[0].message


def test_a_result_called_config_toml_is_not_replaced(store: Store, tmp_path: Path) -> None:
    run = store.add(plans.plan(tmp_path))
    run.folder.mkdir()
    (run.folder / "config.toml").write_text("the job's own")
    store.write_journal(run.name, RunNotes(pulled=(FileEntry("config.toml", 13, "00"),)))
    receipt.write(run, store)
    assert (run.folder / "config.toml").read_text() == "the job's own"


@pytest.mark.parametrize(
    "odd",
    [
        b"\xff\xfe not json\n",
        b'{"v":1,"kind":"start","settings":[1,"x"],"goals":7,"lr":{"a":null}}\n',
        b'{"v":1,"kind":"data","sha256":"abc"}\n{"v":1,"kind":"result","goals":["a"]}\n',
        b'{"v":1,"kind":["start"]}\n{"v":1,"kind":"start","model":"\\ud800"}\n',
    ],
)
def test_events_of_any_job_make_a_receipt(store: Store, tmp_path: Path, odd: bytes) -> None:
    run = store.add(plans.plan(tmp_path))
    run.folder.mkdir()
    (run.folder / "events.jsonl").write_bytes(odd)
    receipt.write(run, store)
    assert read(run)["name"] == run.name


@pytest.mark.usefixtures("someone")
@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("10.0.0.1 and 580.105.08 and 300.1.1.1", "<address> and 580.105.08 and 300.1.1.1"),
        ("at 12:34:56 on fe80::1%eth0", "at 12:34:56 on <address>%eth0"),
        ("std::vector", "std::vector"),
        ("19 it/s, loss/acc, 1/2", "19 it/s, loss/acc, 1/2"),
        ("in /srv/data/x.csv, ok", "in <path>, ok"),
        ("--data=/srv/data", "--data=<path>"),
        ("~/mnist", "<path>"),
        (r"C:\Users\Ada\x", "<path>"),
        (r"\\server\share\x", "<path>"),
        ("https://example.org/mnist.gz", "https://example.org/mnist.gz"),
        ("ada@adas-laptop", "<address>"),
        ("ADAS-LAPTOP.local adas-laptop", "<private> <private>"),
        ("by ada-lovelace!", "by <private>!"),
        ("123456789012 1234567890123", "<account> 1234567890123"),
        ("ab" * 32, "ab" * 32),
        ("/home/ada lovelace/x/y z", "<path> z"),
        ("AWS_SECRET_ACCESS_KEY=abc/def", "AWS_SECRET_ACCESS_KEY=<secret>"),
        ("arn:aws:sts::1:assumed-role/x/y", "<arn>"),
    ],
)
def test_what_is_taken_out_of_a_text(store: Store, tmp_path: Path, text: str, public: str) -> None:
    run = store.add(plans.plan(tmp_path / "elsewhere"))
    assert Redaction(run, RunNotes())(text) == public
    assert Redaction(run, RunNotes())({text: [text, 1, None]}) == {public: [public, 1, None]}


def test_the_settings_used_are_settings_again(store: Store, tmp_path: Path) -> None:
    train = TrainSpec(model=2, seed=7, device="cpu", args=("--note", 'a "b" \\ é\x7f', "--subset", "600"))
    (tmp_path / "pkg").mkdir()
    spec = plans.spec(
        tmp_path / "runs",
        train=train,
        target=Target.EC2,
        ec2=plans.FULL_EC2,
        limits=Limits(max_time_s=90.0, max_cost_usd=1.5),
        job=JobSpec(source=str(tmp_path / "pkg"), module="pkg.go", outputs=("weights/**", "!*.tmp")),
    )
    run = store.add(make_plan(spec, plans.offer(), CodeSummary(files=1, bytes=1)))
    file = tmp_path / "config.toml"
    text = settings_file.toml(run, {"epochs": 5, "batch_size": 32, "lr": 0.5, "recipe": "fast"})
    file.write_text(text, encoding="utf-8")
    (tmp_path / "cloudtrain.toml").write_text("model = 1\nepochs = 99\n")
    found = settings.load({"seed": 8}, config=file, folder=tmp_path, environment={})
    wanted = {"model": 2, "seed": 8, "epochs": 5, "batch_size": 32, "lr": 0.5, "recipe": "fast", "args": train.args}
    wanted |= {"job": "pkg", "module": "pkg.go", "outputs": ("weights/**", "!*.tmp"), "max_time": 90.0, "max_cost": 1.5}
    wanted |= {"instance": ("g4dn.xlarge", "g6.xlarge"), "region": "us-east-1", "spot": True, "grace": 600.0}
    assert {key: found.get(key) for key in wanted} == wanted
    assert found.origins()["model"].origin == str(file)
    assert "--dry-run" in text.splitlines()[0] and "runs/brave-otter/config.toml" in text.splitlines()[0]


def test_settings_that_belong_to_a_person_stay_out(store: Store, tmp_path: Path) -> None:
    host = HostSpec(user="hopper", address="203.0.113.9", identity="/secret/key")
    run = store.add(plans.plan(tmp_path, target=Target.HOST, host=host))
    text = settings_file.toml(run, {"epochs": "many", "batch_size": True, "recipe": "\n[evil]\n"})
    assert not [word for word in (*map(str, asdict(host).values()), "evil", "many", "true") if word in text.split()]
    assert "203.0.113.9" not in text and "/secret" not in text and str(tmp_path) not in text


def test_arguments_that_name_a_folder_of_this_computer_are_left_as_a_comment(store: Store, tmp_path: Path) -> None:
    train = TrainSpec(args=("--data", "/srv/mnist of ada", "--subset", "600"))
    text = settings_file.toml(store.add(plans.plan(tmp_path, train=train)), {})
    assert "/srv" not in text and "args = " not in text
    comment = text.splitlines()[-1]
    assert comment.startswith("# ") and '"--subset", "600"]' in comment and "after --" in comment
    file = tmp_path / "config.toml"
    file.write_text(text, encoding="utf-8")
    assert not settings.load({}, config=file, folder=tmp_path, environment={}).get("args")

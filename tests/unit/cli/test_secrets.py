"""`--env`, `--secret` and `--env-file` as they are typed: what is taken, what is refused, and what no screen shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudtrain.cli import following
from cloudtrain.config import files, settings, trust
from cloudtrain.console.log_text import LogView
from cloudtrain.console.pages import listing
from cloudtrain.console.reporters.plain import PlainReporter
from cloudtrain.core import secrets
from cloudtrain.core.secrets import Place
from cloudtrain.core.spec import JobSpec
from cloudtrain.core.states import RunState
from cloudtrain.core.told import ExitRecord
from cloudtrain.report import markdown, page, sources
from cloudtrain.store import Store
from tests import plans
from tests.typed import Typed
from tests.typed import cli as cli

VALUE = "hunter2-Zq7é"
SHAPED = "hf_" + "a1B2" * 8


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a program, and a process that knows no value."""
    monkeypatch.setattr(secrets, "_given", {})
    monkeypatch.setattr(secrets, "_hidden", [])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "__init__.py").touch()
    (tmp_path / "net" / "train.py").write_text("print('hello')\n")
    return tmp_path


def asks(cli: Callable[..., Typed], *flags: str, code: int = 2) -> Typed:
    return cli("run", "--local", "--job", "net", "--plan", *flags, code=code)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--secret", f"HF_TOKEN={VALUE}"), "only the name belongs here"),
        (("--secret", SHAPED), "looks like a secret, not like its name"),
        (("--secret", f"{VALUE}!"), "cannot be the name"),
        (("--secret", "CLOUDTRAIN_RESUME"), "CLOUDTRAIN_RESUME is set by cloudtrain"),
        (("--env", "PATH=/x"), "PATH is set by cloudtrain"),
        (("--env", "cloudtrain_out=x"), "is set by cloudtrain"),
        (("--env", "A-B=1"), "cannot be the name"),
        (("--env", "COLOUR"), "is not NAME=VALUE"),
        (("--env", "HOME=a\0b"), "is not"),
        (("--env", "HF_TOKEN=x", "--secret", "HF_TOKEN"), "cannot be both"),
        (("--resume", "other", "--env", "A=1"), "--env cannot be given with --resume"),
        (("--env-file", "none"), "none cannot be read: No such file"),
    ],
)
def test_what_is_refused_and_not_repeated(cli: Callable[..., Typed], flags: tuple[str, ...], says: str) -> None:
    told = asks(cli, *flags)
    assert says in told.err and "[bad_setting]" in told.err and "hint:" in told.err
    assert VALUE not in told.err + told.out and SHAPED not in told.err + told.out


@pytest.mark.parametrize("flags", [("--secret", SHAPED), ("--env", "HF_TOKEN=x", "--secret", "HF_TOKEN")])
def test_of_a_command_it_is_refused_too(cli: Callable[..., Typed], flags: tuple[str, ...]) -> None:
    told = cli("run", "--local", "--plan", *flags, "--", "python", "-c", "0", code=2)
    assert "[bad_setting]" in told.err and SHAPED not in told.err


def test_a_secret_that_is_set_nowhere_is_refused_before_anything_is_looked_up(
    cli: Callable[..., Typed], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("run", "--instance", "g4dn.xlarge", "--job", "net", "--yes", "--secret", "HF_TOKEN")
    told = cli(*where, code=2)
    assert "the secret HF_TOKEN is not set [secret_missing]" in told.err and "nothing was started" in told.err
    assert "export HF_TOKEN=" in told.err and Store().names() == []
    [result] = [json.loads(line) for line in cli(*where, "--json", code=2).out.splitlines()]
    assert result["error"]["code"] == "secret_missing"
    # From a file, and only what is named.
    (project / "mine.env").write_text(f"HF_TOKEN={VALUE}\nOTHER=other-value\n")
    told = asks(cli, "--secret", "HF_TOKEN", "--env-file", "mine.env", code=0)
    assert "  secrets  HF_TOKEN\n" in told.err and VALUE not in told.err
    assert "--env-file was given, and no secret is named" in asks(cli, "--env-file", "mine.env").err
    # Asked for, where somebody is there to answer.
    monkeypatch.setattr(secrets, "_given", {})
    asked: list[str] = []
    monkeypatch.setattr(PlainReporter, "line", lambda self, question, hidden: asked.append(question) or VALUE)
    following._know(plans.spec(project, job=JobSpec(source=".", secrets=("HF_TOKEN",))), PlainReporter(), asks=True)
    assert "HF_TOKEN" in asked[0] and secrets.values_of(["HF_TOKEN"], consequence="") == {"HF_TOKEN": VALUE}


def test_variables_and_secrets_of_file_and_flags_are_one(project: Path) -> None:
    path = project / "cloudtrain.toml"
    path.write_text('[job]\nvars = { COLOUR = "red", SIZE = "a,b" }\nsecrets = ["HF_TOKEN"]\n')
    flags = {"vars": ["COLOUR=blue", "EMPTY="], "secrets": ["WANDB_API_KEY"]}
    found = settings.load(flags, environment={})
    assert found.get("vars") == {"COLOUR": "blue", "SIZE": "a,b", "EMPTY": ""}
    # What leaves this computer is the user's to say, not a repository's.
    assert found.get("secrets") == ("WANDB_API_KEY",)
    file = files.read(path)
    assert file is not None
    trust.agree(path, trust.digest(settings.of_file(file), project))
    assert settings.load(flags, environment={}).get("secrets") == ("HF_TOKEN", "WANDB_API_KEY")


def test_a_repository_that_wants_a_secret_is_not_trusted_with_that(cli: Callable[..., Typed], project: Path) -> None:
    (project / "cloudtrain.toml").write_text('job = "net"\nsecrets = ["AWS_SECRET_ACCESS_KEY"]\n')
    told = cli("run", "--local", "--plan", code=2)
    assert "[not_trusted]" in told.err and "secrets" in told.err and "give --secret" in told.err


def test_tokens_among_arguments_are_warned_of_and_not_shown(cli: Callable[..., Typed]) -> None:
    key = "0123456789abcdef" * 2 + "01234567"
    flags = ("--env", f"API_KEY={VALUE}", "--env", "TOKENIZERS_PARALLELISM=false")
    flags += ("--with", f"net @ git+https://x:{SHAPED}@example.org/net")
    words = ("python", "net/train.py", "--hf-token", SHAPED, "--wandb", key, f"--key={SHAPED}", "--tokenizer", "bert")
    told = cli("run", "--local", "--plan", *flags, "--", *words)
    for where, name in (
        ("--hf-token", "HF_TOKEN"),
        ("--wandb", "WANDB"),
        ("--key", "KEY"),
        ("--env API_KEY", "API_KEY"),
    ):
        assert f"warn     {where} looks like a secret" in told.err and f"--secret {name} hands over" in told.err
    assert "warn     an argument looks like a secret" in told.err and "net @ git+https://x:<secret>@" in told.err
    assert told.err.count("looks like a secret") == 5 and "--hf-token '<secret>'" in told.err
    line = cli("run", "--local", "--plan", "--json", *flags, "--", *words).out
    spec = json.loads(line.splitlines()[0])["plan"]["spec"]
    assert spec["job"]["vars"] == {"API_KEY": "<secret>", "TOKENIZERS_PARALLELISM": "false"}
    shown = ["<secret>", "--wandb", "<secret>", "--key=<secret>", "--tokenizer", "bert"]
    assert spec["job"]["command"] == [*words[:3], *shown]
    for text in (told.err + told.out, line):
        assert not any(value in text for value in (SHAPED, key, VALUE))


def test_later_commands_hide_what_the_host_has_found_in_the_log(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them knows the value."""
    store = Store()
    job = JobSpec(source=str(project / "net"), module="net.train", secrets=("HF_TOKEN",))
    run = store.add(plans.plan(project / "runs", job=job))
    log = f"token {VALUE}, once more {VALUE}\nand {SHAPED}\n".encode()
    run.folder.mkdir(parents=True)
    (run.folder / "console.log").write_bytes(log)
    size = len(VALUE.encode())
    places = tuple(Place(name="HF_TOKEN", at=at, bytes=size) for at in (6, log.rindex(VALUE.encode())))
    for state in (RunState.PROVISIONING, RunState.BOOTING, RunState.SYNCING, RunState.RUNNING, RunState.PULLING):
        run = store.move(run, state)
    run = store.move(run, RunState.SUCCEEDED, ending=ExitRecord(state="exited", code=0, secrets=places))
    stars = "*" * size
    for view in (LogView(), LogView(stamped=True), LogView(raw=True, stamped=True), PlainReporter()):
        for last in (None, 2) if isinstance(view, LogView) else (None,):
            following.show_log(run, view, last=last)
            view.close()
            shown = "".join(capfd.readouterr())
            assert VALUE not in shown and f"token {stars}, once more {stars}\n" in shown
    assert any("its console log holds the value of HF_TOKEN" in line for line in listing.page(run, store))
    # A report is for others: a token that nobody has named is taken out, too.
    facts = sources.of_run(run, store)
    assert facts.log == (f"token {stars}, once more {stars}", "and <secret>")
    for text in (page.report(facts), markdown.section(facts)):
        assert VALUE not in text and SHAPED not in text
    # And it shows no log of which nobody has noted that: of a machine that was lost, or taken back.
    left_out = "[console.log is left out here: whether it holds the value of a secret is not known]"
    many = [{"name": "HF_TOKEN", "at": at, "bytes": size} for at in range(1000)]
    for odd in ({"log": {"secrets": "nonsense"}}, {"exit": {"code": None}}, {"log": {"secrets": many}}):
        (run.folder / "run.json").write_text(json.dumps({**facts.receipt, **odd}))
        assert sources.of_path(run.folder).log == (left_out,)
    (run.folder / "console.1.log").write_bytes(log)
    assert sources.of_run(run, store).log == (left_out.replace("console", "console.1"), *facts.log)
    assert (run.folder / "console.log").read_bytes() == log

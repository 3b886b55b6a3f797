"""A secret through a whole run in an emulated region: where its value is while it trains, and where it never is."""

from __future__ import annotations

import base64
import contextlib
import json
import sys
import urllib.parse
from pathlib import Path

import pytest

from cloudtrain.cli.commands import COMMANDS
from cloudtrain.emulator.region import Region
from tests.region.whole_path.place import Place, left

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")

NAME = "brave-otter"
VALUE = 'hunter2-Zq7/é"+x'
STARS = "*" * len(VALUE)
PROGRAM = """\
import json, os, sys, time
token = os.environ["MY_TOKEN"]
with open(os.environ["CLOUDTRAIN_EVENTS"], "a") as events:
    events.write(json.dumps({"v": 1, "kind": "warning", "message": "401 for " + token}, ensure_ascii=False) + "\\n")
print("token", token[:7], end="", flush=True)
time.sleep(0.3)
print(token[7:], flush=True)
with open("result.txt", "w") as file:
    file.write("42")
print("ready", flush=True)
while not os.path.exists(os.environ["GO"]):
    time.sleep(0.02)
sys.exit("refused: " + token)
"""


# Every command, as it is typed of that run once it has ended: with JSON and without, where it takes that.
LATER = {
    **{name: [(name, NAME)] for name in ("logs", "show", "wait", "pull", "verify", "report", "export", "stop")},
    **{name: [(name,)] for name in ("ls", "ps", "doctor", "instances", "clean", "guide", "init", "trust")},
    "help": [("help", "run")],
    "version": [("version",)],
    "config": [("config", "show", "--all", "--origin")],
    "compare": [("compare", NAME, NAME)],
    "extend": [("extend", NAME, "30m")],
    "ssh": [("ssh", NAME, "--setup")],
    "adopt": [("adopt", "i-0123456789abcdef0")],
    "rerun": [("rerun", NAME, "--yes")],
    "run": [("run", "--resume", NAME, "--yes"), ("run", "--on", NAME, "--yes", "--", "python", "train.py")],
}
LATER["logs"] += [("logs", NAME, "--raw"), ("logs", NAME, "-n", "2"), ("logs", NAME, "--epochs")]
LATER["ls"] += [("ls", "--remote"), ("ls", "--refresh")]
LATER["report"] += [("report", NAME, "--format", "md")]


def forms() -> list[bytes]:
    """The value as it is, and as it may have been written down."""
    encoded = [base64.b64encode(bytes(pad) + VALUE.encode())[4:-4] for pad in range(3)]
    quoted = [json.dumps(VALUE, ensure_ascii=ascii)[1:-1] for ascii in (True, False)]
    return [*encoded, *(form.encode() for form in (VALUE, *quoted, urllib.parse.quote_plus(VALUE)))]


def told(data: bytes) -> bool:
    return any(form in data for form in forms())


def processes_with_it(kind: str) -> dict[int, bytes]:
    """Every process of this computer whose arguments or environment hold it, with its environment."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if told((entry / kind).read_bytes()):
                found[int(entry.name)] = (entry / "environ").read_bytes()
    return found


def files_with_it(folder: Path) -> set[str]:
    found = set()
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # sockets, and what has gone meanwhile
            if path.is_file() and told(path.read_bytes()):
                found.add(path.name)
    return found


def test_its_value_is_with_the_job_alone(
    in_account: Place, region: Region, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # Not in the shell of the command: then only a process that was handed the value has it in its environment.
    shell = tmp_path_factory.mktemp("elsewhere") / ".env"
    shell.write_text(f"MY_TOKEN='{VALUE}'\n", encoding="utf-8")
    (in_account.cwd / "train.py").write_text(PROGRAM, encoding="utf-8")
    go, log = tmp_path / "go", in_account.folder(NAME) / "console.log"
    flags = ["--name", NAME, "--yes", "--max-time", "20m", "--secret", "MY_TOKEN", "--env", f"GO={go}"]
    command = ["run", *in_account.flags, *flags, "--env-file", str(shell), "--", "python", "train.py"]
    with in_account.started(*command) as process:
        in_account.wait_for(lambda: log.exists() and b"ready\n" in log.read_bytes())
        assert processes_with_it("cmdline") == {}
        having = processes_with_it("environ")
        assert having and all(b"CLOUDTRAIN_RUN=" in environment for environment in having.values())
        assert in_account.supervisor(NAME) not in having
        assert files_with_it(tmp_path) <= {"console.log", "events.jsonl"}
        go.touch()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 3 and not told(out + err), err
    assert f"401 for {STARS}".encode() in err
    assert b"the console log holds the value of MY_TOKEN" in err
    assert f"token {VALUE}\n".encode() in log.read_bytes(), "byte for byte as on the machine"
    # Every command of another day, which does not know it.
    assert set(LATER) == set(COMMANDS)
    shown = {}
    for words in (words for several in LATER.values() for words in several):
        for more in ((), ("--json",)) if words[0] not in ("guide", "help", "version") else ((),):
            done = shown[*words, *more] = in_account.cli(*words[:1], *more, *words[1:], code=None)
            assert not told(done.stdout + done.stderr), (words, more)
    assert f"token {STARS}".encode() in shown["logs", NAME].stdout
    assert b"the value of MY_TOKEN" in shown["show", NAME].stdout
    again = in_account.cli("rerun", NAME, "--yes", code=2)
    assert b"[secret_missing]" in again.stderr and b"nothing was started" in again.stderr
    # The job's own two files have it, and nothing else here or there.
    assert files_with_it(tmp_path) == {"console.log", "events.jsonl"} and not left(region)
    calls = region.calls()
    assert not told(json.dumps(calls, ensure_ascii=False, default=str).encode())
    launches = [call for call in calls if "UserData" in call["parameters"]]
    assert launches and not any(told(base64.b64decode(call["parameters"]["UserData"])) for call in launches)

"""What programs and files of this computer and of a host say: nvidia-smi, git, ssh, ignore files, keys, credentials."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from hypothesis import strategies as st

from cloudtrain.cleanup import on_host
from cloudtrain.console.pages import leftovers
from cloudtrain.core.decode import Odd, json_object
from cloudtrain.core.errors import UsageError
from cloudtrain.core.spec import JobSpec
from cloudtrain.environment.asked import look
from cloudtrain.environment.interpreter import examine
from cloudtrain.onhost import probe
from cloudtrain.provider.ec2 import credentials
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.translate import translated
from cloudtrain.run_folder.redact import Redaction
from cloudtrain.source import git, ignore, repository
from cloudtrain.source.tree import FileEntry
from cloudtrain.transfer.answers import host_facts, host_folders
from cloudtrain.transfer.first_line import FirstLine, OurStream
from cloudtrain.transport import ssh_config, ssh_keys
from cloudtrain.transport.base import Completed
from cloudtrain.transport.ssh_trust import PinnedHosts
from tests.hostile import folders
from tests.hostile.aws import Raw
from tests.hostile.host import ANSWERS
from tests.hostile.odd import ESCAPES, Parser, no_escapes, spoilt
from tests.hostile.pulled import Sent

_words = st.text(max_size=12) | st.sampled_from(ESCAPES)
_bytes = st.binary(max_size=60)


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


# nvidia-smi

_SMI = st.lists(
    st.lists(_words | st.sampled_from(["580.82", "15360", "[N/A]", "Tesla T4", "9" * 5000, "٣"]), max_size=5).map(
        ", ".join
    ),
    max_size=4,
).map(lambda lines: _as_bytes("\n".join(lines)))
_CUDA = spoilt(st.just({"fault": None, "serves": "13.0"})).map(lambda value: json.dumps(value).encode())


def nvidia_smi(told: tuple[bytes | None, bytes | None]) -> None:
    """What nvidia-smi and CUDA print, through the probe there and its reader here."""
    said = dict(zip(("smi", "cuda"), told, strict=True))
    with (
        mock.patch.object(probe, "output_of", lambda argv, limit: said["smi" if "--query-gpu" in argv[1] else "cuda"]),
        mock.patch.object(probe, "shutil", SimpleNamespace(which=lambda name: "/usr/bin/nvidia-smi")),
    ):
        gpu = probe.ask_gpu()
    with suppress(Odd):  # of CUDA's words, which our own program prints
        facts = host_facts(json_object(json.dumps({**ANSWERS["probe"], **gpu})))
        no_escapes(facts.summary())
        no_escapes(facts.idle_gpu("1x T4") or "")


# git

_MODES = st.sampled_from(["100644", "100755", "120000", "160000", "x", ""])
_PATHS = st.sampled_from(["a.py", "b", "../x", "/etc/hostname", "", "x" * 5000, ".", "sub"]) | _words
_TREE = st.lists(
    st.builds("{} blob {}\t{}".format, _MODES, st.sampled_from(["0" * 40, "", "x"]), _PATHS) | _words, max_size=5
)


def git_says(given: tuple[str, list[str], str, int]) -> None:
    """What git says of a commit, a tree, its settings and its files."""
    head, tree, settings, code = given
    lines = "".join(f"{line}\0" for line in tree)
    told = {"rev-parse": head, "config": settings, "ls-tree": lines, "ls-files": lines}

    def ask(folder: Path, verb: str, *arguments: str, fails: int = 0) -> str:
        if verb == "config" and code not in (0, fails):
            raise repository.NoAnswer
        return _as_bytes(told[verb]).decode("utf-8", "surrogateescape")

    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "a.py").write_bytes(b"x")
        (Path(place) / "sub" / ".git").mkdir(parents=True)
        entry = FileEntry(1, "0" * 64, 0o644)
        with mock.patch.object(git, "asking", lambda source, timeout: ask):
            found = git.state(Path(place), {f"{Path(place).name}/a.py": entry})
        if found is not None:
            json.dumps([asdict(found.record()), str(found)])
        assert repository.Members(Path(place), ask).tracked("a.py") in (None, False, True)


# Ignore files: any line, met by any path, in a time that grows with both alone.

_PIECES = st.sampled_from(
    ["*", "**", "**/", "/", "?", "[", "]", "[!a-b]", "[[:alpha:]]", "\\", "a", "b", "!", "#", " "]
)
_LINES = st.lists(st.lists(_PIECES | _words, max_size=30).map("".join), max_size=4).map("\n".join)


def ignored(told: tuple[str, list[str], int]) -> None:
    """The lines of an ignore file, asked for a path."""
    text, names, times = told
    path = ("/".join(names) * times)[:4000].split("/")
    began = time.process_time()
    with suppress(UsageError):
        for rule in ignore.parse(_as_bytes(text).decode("utf-8", "surrogateescape"), ".gitignore"):
            rule.matches(path, is_dir=False)
            rule.leads_below(path)
    assert time.process_time() - began < 1.0


# a project's files of packages, and what a host says of its Python

_ASKS = st.lists(
    st.sampled_from(
        [
            "# /// script",
            "# ///",
            "# dependencies = [1]",
            "#",
            "-e .",
            "-r x",
            "-r requirements.txt",
            "[project]",
            "",
            " ",
        ]
    )
    | _words,
    max_size=12,
).map("\n".join)
_PYTHON: dict[str, Any] = {
    "python": "/usr/bin/python3",
    "version": "3.12",
    "platform": "x86_64-manylinux_2_34",
    "has": {"torch": "2.9.1+cu128"},
    "lacks": ["tqdm"],
    "bin": None,
    "sites": ["/usr/lib"],
}


def asks(told: tuple[str, str, int]) -> None:
    """The files that say what a project needs, read in linear time."""
    name, text, times = told
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder, suppress(UsageError):
        Path(folder, "train.py").touch()
        Path(folder, name).write_bytes((_as_bytes(text[:2000]) * times)[: 2**20])
        asked = look(JobSpec(source=folder, command=("python", "train.py")))
        assert asked is None or all(isinstance(one, str) for one in (*asked.direct, asked.requires, *asked.texts))
    assert time.process_time() - began < 1.0


def python_says(answer: Any) -> None:
    """What becomes options of this computer's uv."""
    host = SimpleNamespace(run=lambda argv, timeout: Completed(0, json.dumps(answer).encode(), b""))
    found = examine(host, "python3", ["tqdm", "rich"])  # type: ignore[arg-type]
    if found is not None:
        words = (found.version, found.platform, *found.has, *found.has.values())
        assert all(word[0].isalnum() or word[0] == "_" for word in words) and not any(" " in word for word in words)
        assert not any("\n" in word for word in words) and set(found.lacks) <= {"tqdm", "rich"}


# ssh

_ROAD = {
    "hostname": "203.0.113.7",
    "user": "ada",
    "port": "22",
    "identityfile": "~/.ssh/id_ed25519",
    "identityagent": "SSH_AUTH_SOCK",
    "proxyjump": "none",
    "proxycommand": "nc %h %p",
    "hostkeyalias": "alias",
    "connecttimeout": "10",
    "identitiesonly": "yes",
}
_TEXTS = _words | st.sampled_from(["none", "%h", "%Z", "%", "${HOME}", "${", "-oProxyCommand=x", "a b", "~x/y", "$X"])


def ssh_says(told: tuple[dict[str, str], str, bytes, int]) -> None:
    """What `ssh -G` says of a name."""
    said, name, more, code = told
    lines = b"".join(_as_bytes(f"{key} {value}\n") for key, value in said.items())
    done = subprocess.CompletedProcess([], code, lines + more, more)
    with (
        mock.patch.object(ssh_config.subprocess, "run", lambda *args, **options: done),
        mock.patch.object(ssh_config, "client", lambda: "/usr/bin/ssh"),
    ):
        road = ssh_config.road(name)
    assert road is not None and 0 < road.port < 65536
    no_escapes(road.told + road.way)


_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
_PINNED = {"v": 1, "hosts": {"[a]:22": {"key": _KEY, "fingerprint": "SHA256:x", "since": 1}}}


def keys(told: tuple[str, bytes, Any]) -> None:
    """A line of a host key, a key file, and the list of trusted hosts."""
    line, data, pinned = told
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "hosts.json"
        path.write_text(json.dumps(pinned), encoding="utf-8")
        (Path(place) / "key").write_bytes(data)
        ssh_keys.public_blob(Path(place) / "key")
        with suppress(ssh_keys.UsageError):
            ssh_keys.private_key(Path(place) / "key", asks=False)
        with suppress(ssh_keys.UsageError):
            ssh_keys.fingerprint(line)
        with suppress(ssh_keys.UsageError):
            ssh_keys.check_fingerprint(line)
        PinnedHosts(path).get("a", 22)


# Credentials

_PROFILE = {
    "aws_access_key_id": "AKIAX",
    "aws_secret_access_key": "x",
    "aws_session_token": "x",
    "role_arn": "arn:aws:iam::1:role/r",
    "source_profile": "default",
    "credential_source": "EcsContainer",
    "mfa_serial": "arn:aws:iam::1:mfa/me",
    "duration_seconds": "900",
    "region": "us-east-1",
    "web_identity_token_file": "/nonexistent",
    "sso_session": "s",
    "sso_start_url": "https://x",
    "sso_region": "us-east-1",
    "sso_account_id": "1",
    "sso_role_name": "r",
    "login_session": "s",
    "s3": "\n  max_queue_size = x",
}
_CREDENTIALS = {
    "AccessKeyId": "AKIAX",
    "SecretAccessKey": "x",
    "SessionToken": "t",
    "Expiration": "2099-01-01T00:00:00Z",
}
_SESSION = {"Credentials": _CREDENTIALS}
_SERVED = {**_CREDENTIALS, "Token": "t", "Code": "Success", "Version": 1}


def sign_in(told: tuple[dict[str, str], dict[str, str], Any, Any]) -> None:
    """AWS's settings files, with what serves credentials and the shared cache."""
    profile, default, served, cached = told
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        config = "".join(
            f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
            for name, values in (("default", default), ("profile student", profile), ("sso-session s", profile))
        )
        (home / "config").write_bytes(_as_bytes(config))
        (home / "credentials").write_bytes(_as_bytes(config.replace("profile ", "")))
        cache = credentials.SharedSessions(str(home))
        (home / "k.json").write_text(json.dumps(cached), encoding="utf-8")
        with suppress(KeyError):
            assert isinstance(cache["k"]["Credentials"]["AccessKeyId"], str)
        with suppress(credentials.sdk.CredentialRetrievalError):
            credentials._check_answer(json.dumps(served).encode())
        body = json.dumps(served).encode()
        environment = {
            "HOME": place,
            "PATH": os.environ["PATH"],
            "AWS_CONFIG_FILE": str(home / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(home / "credentials"),
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/x",
        }
        with (
            mock.patch.dict(os.environ, environment, clear=True),
            mock.patch("botocore.httpsession.URLLib3Session.send", lambda self, asked: _served(asked, body)),
            mock.patch("time.sleep"),
        ):
            clients = Clients(profile="student", region="us-east-1")
            with translated("look"):
                if (found := clients.credentials) is not None:
                    asked = AWSRequest("POST", "https://ec2.us-east-1.amazonaws.com", data="x")
                    SigV4Auth(found, "ec2", "us-east-1").add_auth(asked)


def _served(asked: Any, body: bytes) -> Any:
    answer = AWSResponse(asked.url, 200, {}, Raw(body))
    answer._content = body
    return answer


# What a host keeps, the first line of its answers, and words that are taken out

_RUN = {"name": "r", "bytes": 3, "removed": False, "id": "a" * 32, "age_s": 3.0, "state": "exited", "kept": None}
_STAYS = {"name": "t", "bytes": 3, "removed": True}
_KEPT = {"ok": True, "runs": [_RUN], "trees": [_STAYS], "environments": [_STAYS]}


def kept(answer: Any) -> None:
    """The list of `clean --host`, and its page."""
    store = folders.known()[0]
    with suppress(Odd):
        found = host_folders(json_object(json.dumps(answer)))
        left = on_host.known(found, store)
        lines = [*leftovers.on_host("h", left, found, asks=True), *leftovers.removed_on_host("h", left)]
        no_escapes("\n".join(lines))
        json.dumps([leftovers.host_record(one) for one in left], allow_nan=False)


def first_line(told: tuple[list[bytes], list[bytes], Completed]) -> None:
    """What a login prints before our program, in any pieces, with the line or without."""
    before, after, end = told
    first = FirstLine()
    for line in (first.line, b""):
        stream = OurStream(Sent([*before, line, *after], end), first, "nothing was sent")
        with suppress(ssh_keys.UsageError):
            said = b""
            while data := stream.read(1.0):
                said += data
            if line:
                assert said == b"".join(after)
                stream.finish(1.0)
                done = first.answer(Completed(0, b"".join([*before, line, *after]), b""), "nothing was sent")
                assert done.stdout == said
    first.answer(Completed(end.exit_code, b"".join(before), end.stderr), "nothing was sent")


_SHAPES = st.sampled_from(
    ["token", "-token", "--token ", "=", ":", "/", "\\", "@", "~", " ", "a", "eyJ", ".", "-----BEGIN", "arn:aws:", "::"]
)
_SECRET = "ghp_" + "Aa1" * 10


def redacted(told: tuple[list[str], int, str]) -> None:
    """A text, however long, from which a secret goes."""
    pieces, times, end = told
    public = Redaction.__new__(Redaction)
    public._paths, public._words = [], []
    began = time.process_time()
    assert _SECRET not in public("".join(pieces) * times + f" {_SECRET} {end}")
    assert time.process_time() - began < 1.0


_all = st.dictionaries(st.sampled_from(sorted(_ROAD)), _TEXTS)
_profiles = st.dictionaries(
    st.sampled_from(sorted(_PROFILE)), _words.map(lambda text: text.replace("\0", "")), max_size=3
)
PARSERS = {
    "settings, caches and servers of AWS credentials": Parser(
        sign_in,
        st.tuples(
            st.sets(st.sampled_from(sorted(_PROFILE))).flatmap(
                lambda names: _profiles.map(lambda odd_ones: {**{name: _PROFILE[name] for name in names}, **odd_ones})
            ),
            _profiles,
            spoilt(st.just(_SERVED)),
            spoilt(st.just(_SESSION)),
        ),
        costs=16,
    ),
    "nvidia-smi and CUDA": Parser(nvidia_smi, st.tuples(st.none() | _bytes | _SMI, st.none() | _bytes | _CUDA)),
    "git": Parser(
        git_says,
        st.tuples(st.just("\n" + "a" * 40 + "\n") | _words, _TREE, _words, st.sampled_from([0, 0, 1, 128])),
        costs=4,
    ),
    "ignore files, in linear time": Parser(
        ignored, st.tuples(_LINES, st.lists(_words, max_size=5), st.sampled_from([1, 900])), costs=4
    ),
    "a project's files of packages, in linear time": Parser(
        asks,
        st.tuples(
            st.sampled_from(["requirements.txt", "pyproject.toml", "uv.lock", "train.py", "environment.yml"]),
            _ASKS,
            st.sampled_from([1, 1, 5000]),
        ),
        costs=4,
    ),
    "what a host says of its Python": Parser(python_says, spoilt(st.just(_PYTHON))),
    "`ssh -G`": Parser(
        ssh_says,
        st.tuples(
            _all.map(lambda changed: {**_ROAD, **changed}) | _all,
            st.just("host") | _words,
            st.just(b"") | _bytes,
            st.sampled_from([0, 0, 0, 255]),
        ),
        costs=2,
    ),
    "keys of hosts, key files, the list of trusted hosts": Parser(
        keys,
        st.tuples(
            _words | st.builds("{} {}".format, st.sampled_from(["ssh-ed25519", "x"]), _words) | st.just(_KEY),
            _bytes
            | st.builds(
                bytes.__add__,
                st.sampled_from([b"-----BEGIN OPENSSH", b"ssh-", b"-----BEGIN RSA PRIVATE KEY-----\n"]),
                _bytes,
            ),
            spoilt(st.just(_PINNED)),
        ),
        costs=2,
    ),
    "the list of `clean --host`": Parser(kept, spoilt(st.just(_KEPT)), costs=2),
    "the first line of an answer": Parser(
        first_line,
        st.tuples(
            st.lists(_bytes.filter(bool), max_size=4),
            st.lists(_bytes.filter(bool), max_size=4),
            st.builds(Completed, st.sampled_from([0, 1, 127, 255]), st.just(b""), _bytes),
        ),
    ),
    "redaction, in linear time": Parser(
        redacted, st.tuples(st.lists(_SHAPES, max_size=5), st.sampled_from([1, 9, 5000]), _words), costs=4
    ),
}

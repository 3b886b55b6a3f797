"""Roles with MFA, programs and files that give credentials, or fail to: one question, one clear error, exit code 4."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloudtrain.core import questions
from cloudtrain.core.errors import SignInError
from cloudtrain.provider.ec2 import credentials
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.offer import account
from tests import commands
from tests.region.ec2.stand_in import CODE, Aws, opened

CONFIG = """[profile dev]
role_arn = arn:aws:iam::123456789012:role/dev
source_profile = base
mfa_serial = arn:aws:iam::123456789012:mfa/me
region = us-east-1
[profile base]
region = us-east-1
"""
BASE = "[base]\naws_access_key_id = AKIAXXXXXXXXXXXXXXXX\naws_secret_access_key = x\n"
SIGN_IN = "aws sts get-caller-identity --profile dev"


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    with opened() as server:
        for name, text in (("config", CONFIG), ("credentials", BASE)):
            (tmp_path / name).write_text(text)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        yield server


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Somebody who types these lines, and then nothing; gives the questions that were put."""

    def sit(*lines: str) -> list[str]:
        left, put = list(lines), list[str]()

        def ask(question: str) -> str | None:
            put.append(question)
            return left.pop(0) if left else None

        monkeypatch.setattr(questions, "ask", ask)
        return put

    return sit


def refused(profile: str = "dev") -> SignInError:
    with pytest.raises(SignInError) as caught:
        account.identify(Clients(profile))
    assert caught.value.exit_code == 4 and len(caught.value.message) < 500
    return caught.value


def test_one_code_serves_all_clients_and_the_next_command(aws: Aws, asked: Callable[..., list[str]]) -> None:
    put = asked(f"{CODE}\n")
    clients = Clients("dev")
    for one in (clients, clients.at("eu-west-1"), Clients("dev"), Clients("dev", "us-west-2")):
        assert account.identify(one).number == "123456789012"
    assert len(put) == 1 and "mfa/me" in put[0] and '"dev"' in put[0] and aws.codes == [CODE]
    (kept,) = Path("~/.aws/cli/cache").expanduser().glob("*.json")
    # As the AWS CLI reads it, and nobody else.
    assert json.loads(kept.read_text())["Credentials"]["AccessKeyId"].startswith("ASIA")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


KEPT = '{"Credentials": {"AccessKeyId": "a", "SecretAccessKey": "b", "SessionToken": "c", "Expiration": "%s"}}' % (
    "9" * 40
)


@pytest.mark.parametrize("junk", ["", "[]", "null", "{}", '{"Credentials": {"Expiration": 5}}', KEPT, "[" * 100000])
def test_a_cache_that_is_none_is_passed_over(aws: Aws, asked: Callable[..., list[str]], junk: str) -> None:
    asked(CODE)
    account.identify(Clients("dev"))
    (kept,) = Path("~/.aws/cli/cache").expanduser().glob("*.json")
    kept.write_text(junk)
    put = asked(CODE)
    account.identify(Clients("dev"))
    assert len(put) == 1


def test_nobody_to_ask_is_one_error_with_the_command_that_signs_in(aws: Aws, asked: Callable[..., list[str]]) -> None:
    asked()
    error = refused()
    assert error.code == "mfa" and '"dev"' in error.message and SIGN_IN in str(error.hint) and not aws.codes


def test_what_is_no_code_is_asked_for_again_and_a_wrong_one_told(aws: Aws, asked: Callable[..., list[str]]) -> None:
    assert len(asked("abc", "12345", "")) == 0
    assert refused().code == "mfa" and not aws.codes
    asked("", "654321")
    error = refused()
    assert error.code == "mfa" and "did not accept" in error.message and aws.codes == ["654321"]


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, **commands.EXPECTED, "CLOUDTRAIN_HOME": str(tmp_path / "state")}


def test_the_command_line_without_a_terminal(aws: Aws, tmp_path: Path) -> None:
    argv = ["run", "--model", "3", "--instance", "g4dn.xlarge", "--profile", "dev", "--plan", "--no-input"]
    done = commands.run(*argv, cwd=tmp_path, env=environment(tmp_path), timeout=60)
    told = done.stderr.decode()
    assert done.returncode == 4, told
    assert 'profile "dev" needs an MFA code' in told and SIGN_IN in told
    assert "Warning" not in told and "Abort" not in told and "Traceback" not in told


def test_the_command_line_on_a_terminal_asks_once(aws: Aws, tmp_path: Path) -> None:
    for times in (1, 0):
        parent, child = pty.openpty()
        argv = ["instances", "--profile", "dev"]
        command = commands.start(*argv, cwd=tmp_path, env=environment(tmp_path), stdin=child, stderr=child)
        os.close(child)
        os.write(parent, f"{CODE}\n".encode())
        seen = b""
        while True:
            try:
                piece = os.read(parent, 4096)
            except OSError:
                break
            if not piece:
                break
            seen += piece
        command.communicate(timeout=60)
        os.close(parent)
        assert seen.count(b"MFA code of") == times, seen
    assert aws.codes == [CODE]


def program(tmp_path: Path, text: str) -> None:
    (tmp_path / "program.py").write_text(text)
    line = f"credential_process = {sys.executable} {tmp_path / 'program.py'}\nregion = us-east-1\n"
    (tmp_path / "config").write_text(f"[profile dev]\n{line}")


GIVES = {"Version": 1, "AccessKeyId": "AKIAXXXXXXXXXXXXXXXX", "SecretAccessKey": "s3cret"}
PAST = {"Expiration": (datetime.now(UTC) - timedelta(hours=1)).isoformat()}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import sys; print('no token\\x1b[2J' + 'x' * 5000, file=sys.stderr); sys.exit(3)", "no token"),
        ("import sys; sys.stderr.buffer.write(b'\\xff\\xfe'); sys.exit(1)", "could not be fetched"),
        ("raise SystemExit(7)", "exit code 7"),
        ("print('s3cret: hello')", "no JSON object"),
        ("print('[' * 50000)", "no JSON object"),
        ("import sys; sys.stdout.buffer.write(b'\\xff')", "no JSON object"),
        ("print('[1]')", "no JSON object"),
        ("print('{}')", "Version"),
        (f"print('''{json.dumps({**GIVES, 'AccessKeyId': 5})}''')", "no AccessKeyId"),
        (f"print('''{json.dumps({**GIVES, 'SessionToken': []})}''')", "SessionToken"),
        (f"print('''{json.dumps({**GIVES, 'Expiration': 'soon'})}''')", "Expiration"),
        (f"print('''{json.dumps({**GIVES, 'Expiration': '2030-01-01T00:00:00'})}''')", "Expiration"),
        (f"print('''{json.dumps({**GIVES, 'Expiration': '9' * 40})}''')", "Expiration"),
        (f"print('''{json.dumps({**GIVES, **PAST})}''')", "has expired"),
        ("while True: print('x' * 1000)", "more than 64 kB"),
        ("import time; time.sleep(60)", "no answer within"),
    ],
)
def test_a_program_that_fails_or_says_nonsense(
    aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    monkeypatch.setattr(credentials, "PROCESS_LIMIT_S", 2.0)
    program(tmp_path, text)
    began = time.monotonic()
    error = refused()
    assert error.code == "no_credentials" and '"dev"' in error.message and SIGN_IN in str(error.hint)
    assert told in error.message and "s3cret" not in error.message and "\x1b" not in error.message
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("line", ["/nowhere/at-all", "'", '""'])
def test_a_program_that_cannot_be_started(aws: Aws, tmp_path: Path, line: str) -> None:
    (tmp_path / "config").write_text(f"[profile dev]\ncredential_process = {line}\nregion = us-east-1\n")
    assert '"dev"' in refused().message


def test_a_program_that_works(aws: Aws, tmp_path: Path) -> None:
    program(tmp_path, f"print('''{json.dumps(GIVES)}''')")
    assert account.identify(Clients("dev")).kind == "credential process"


@pytest.mark.parametrize("name", ["config", "credentials"])
@pytest.mark.parametrize("content", [b"no section\n", b"\xff\xfe\x00[", b"[dev\nx", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_ini(aws: Aws, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    error = refused()
    assert error.code == "bad_aws_config" and str(tmp_path / name) in error.message and '"dev"' in error.message


@pytest.mark.parametrize("name", ["config", "credentials"])
def test_a_file_that_may_not_be_read_or_is_none(aws: Aws, tmp_path: Path, name: str) -> None:
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    error = refused()
    assert error.code == "bad_aws_config" and str(tmp_path / name) in error.message


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becomes another user for a moment")
def test_a_file_of_another_user(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for file, text, mode in (("config", CONFIG, 0o644), ("credentials", BASE, 0o600)):
            (folder / file).write_text(text)
            (folder / file).chmod(mode)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
        os.seteuid(54321)
        try:
            error = refused()
        finally:
            os.seteuid(0)
    assert error.code == "bad_aws_config" and str(folder / "credentials") in error.message


SSO = """[profile dev]
sso_session = school
sso_account_id = 123456789012
sso_role_name = student
region = us-east-1
[sso-session school]
sso_start_url = https://school.awsapps.com/start
sso_region = us-east-1
sso_registration_scopes = sso:account:access
"""


@pytest.mark.parametrize("kept", [None, "", "[]", "{}", '{"accessToken": 5, "expiresAt": "never"}', "\x00"])
def test_single_sign_on_without_a_session_or_with_a_torn_one(
    aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str | None
) -> None:
    (tmp_path / "config").write_text(SSO)
    cache = tmp_path / "sso"
    # Of the home folder at the SDK's import.
    for place in ("tokens.SSOTokenProvider", "credentials.SSOProvider"):
        monkeypatch.setattr(f"botocore.{place}._SSO_TOKEN_CACHE_DIR", str(cache))
    if kept is not None:
        cache.mkdir(parents=True)
        (cache / f"{hashlib.sha1(b'school').hexdigest()}.json").write_text(kept)
    assert '"dev"' in refused().message


@pytest.mark.parametrize("ends", ["soon", "", "2020-01-01T00:00:00Z", "9" * 40])
def test_variables_with_a_nonsensical_end(aws: Aws, monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAXXXXXXXXXXXXXXXX")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", ends)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    if ends:
        with pytest.raises(SignInError):
            account.identify(Clients())
    else:
        assert account.identify(Clients()).number == "123456789012"

"""The caller: never shown in full, with the kind and end of what signs the calls."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloudtrain.core.errors import SignInError
from cloudtrain.emulator.region import Region
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.offer import account


def test_the_caller_is_shown_masked(region_of: Callable[..., Region], clients_of: Callable[..., Clients]) -> None:
    region = region_of()
    who = account.identify(clients_of(region))
    assert who.number == region.account
    assert who.masked == f"...{region.account[-4:]}"
    assert region.account not in who.text
    assert (who.profile, who.kind, who.expires) == (None, "given access key", None)


def test_a_profile_is_named_with_the_kind_of_its_credentials(
    region_of: Callable[..., Region], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    region, credentials = region_of(), tmp_path / "credentials"
    id, secret = region.access_key
    credentials.write_text(f"[student]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n", encoding="utf-8")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    who = account.identify(Clients("student", "us-east-1", region.endpoint_url))
    assert who.text == f"profile student, account {who.masked}"
    assert who.kind == "access key in the credentials file"


def test_a_session_that_ends_says_when(
    region_of: Callable[..., Region], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    end = (datetime.now(UTC) + timedelta(hours=9, minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    region, answer = region_of(), tmp_path / "answer.json"
    id, secret = region.access_key
    told = {"Version": 1, "AccessKeyId": id, "SecretAccessKey": secret, "SessionToken": "c", "Expiration": end}
    answer.write_text(json.dumps(told), encoding="utf-8")
    program = tmp_path / "print_answer.py"
    program.write_text(f"print(open({str(answer)!r}).read())", encoding="utf-8")
    config = tmp_path / "config"
    config.write_text(f'[profile student]\ncredential_process = "{sys.executable}" "{program}"\n', encoding="utf-8")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    who = account.identify(Clients("student", "us-east-1", region.endpoint_url))
    assert who.kind == "credential process"
    assert who.expires is not None
    assert who.lasts(datetime.now(UTC)) == "ends in 9 h"


def test_the_plan_of_the_account(region_of: Callable[..., Region], clients_of: Callable[..., Clients]) -> None:
    found = account.plan(clients_of(region_of()))
    assert found is not None
    assert (found.kind, found.free, found.credit_usd) == ("PAID", False, None)


SSO = """[profile student]
sso_session = school
sso_account_id = 123456789012
sso_role_name = Student
[sso-session school]
sso_region = us-east-1
sso_start_url = https://school.awsapps.com/start
"""
LOGIN = "[profile student]\nlogin_session = arn:aws:iam::123456789012:user/student\n"
PROCESS = f'[profile student]\ncredential_process = "{sys.executable}" -c "raise SystemExit(3)"\n'
NO_SOURCE = "[profile student]\nrole_arn = arn:aws:iam::123456789012:role/r\nsource_profile = nobody\n"
HALF = "[profile student]\naws_access_key_id = a\n"


@pytest.mark.parametrize(
    ("config", "code", "hint"),
    [
        pytest.param(SSO, "expired", "aws sso login --profile student", id="single sign-on"),
        pytest.param(LOGIN, "expired", "aws login --profile student", id="aws login"),
        pytest.param(PROCESS, "no_credentials", "get-caller-identity --profile student", id="credential process"),
        pytest.param(NO_SOURCE, "bad_aws_config", "aws configure list", id="role without a source"),
        pytest.param(HALF, "no_credentials", "both key id and secret", id="half a key"),
        pytest.param("[profile student]\n", "no_credentials", "aws login --profile student", id="nothing"),
    ],
)
def test_each_kind_of_missing_credentials_says_how_to_sign_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: str, code: str, hint: str
) -> None:
    file = tmp_path / "config"
    file.write_text(config, encoding="utf-8")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    with pytest.raises(SignInError) as caught:
        account.identify(Clients("student", "us-east-1", "http://127.0.0.1:9"))
    assert (caught.value.code, hint in (caught.value.hint or "")) == (code, True), caught.value.hint
    assert caught.value.consequence == "nothing was created"

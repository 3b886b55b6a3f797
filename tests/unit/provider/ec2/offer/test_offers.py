"""What is refused before anything is asked, and credentials that do not work."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from cloudtrain.core.errors import (
    CloudtrainError,
    ExitCode,
    SignInError,
)
from cloudtrain.core.plan import Offer
from cloudtrain.core.spec import RunSpec
from cloudtrain.provider.ec2.clients import Clients
from cloudtrain.provider.ec2.offer import offers

Specs = Callable[..., RunSpec]
Rejects = Callable[..., Clients]

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def survey(spec: RunSpec, clients: Clients) -> Offer:
    return offers.survey(spec, clients, now=lambda: NOW)


def refusal(spec: RunSpec, clients: Clients) -> CloudtrainError:
    with pytest.raises(CloudtrainError) as caught:
        survey(spec, clients)
    error = caught.value
    assert error.message == error.message.strip()
    assert "\n" not in error.message
    assert error.hint, "every refusal names what to do next"
    assert error.consequence is not None
    return error


@pytest.mark.parametrize("name", ["g4ad.xlarge", "dl1.24xlarge", "not a type"])
def test_what_can_be_refused_without_aws_needs_no_aws(rejecting: Rejects, spec_of: Specs, name: str) -> None:
    refusal(spec_of(name), rejecting())


# Signing in, clock, throttling: each kind told apart.


@pytest.mark.parametrize(
    ("code", "its_code", "says"),
    [
        ("ExpiredToken", "expired", "expired"),
        ("InvalidClientTokenId", "bad_key", "does not know the access key"),
        ("SignatureDoesNotMatch", "bad_key", "does not accept"),
        ("RequestExpired", "clock", "clock"),
        ("AccessDenied", "denied", "missing"),
    ],
)
def test_credentials_that_do_not_work(rejecting: Rejects, spec_of: Specs, code: str, its_code: str, says: str) -> None:
    error = refusal(spec_of(), rejecting(Everything=code, status=403))
    assert isinstance(error, SignInError)
    assert (error.code, error.exit_code) == (its_code, ExitCode.SIGN_IN)
    assert says in error.message


def test_a_wrong_clock_is_told_by_the_date_of_the_answer(rejecting: Rejects, spec_of: Specs) -> None:
    headers = {"date": "Mon, 01 Jan 2024 00:00:00 GMT"}
    error = refusal(spec_of(), rejecting(Everything="SignatureDoesNotMatch", status=403, headers=headers))
    assert error.code == "clock"
    assert "ahead" in error.message


def test_no_credentials_at_all(spec_of: Specs) -> None:
    error = refusal(spec_of(), Clients(None, "us-east-1", "http://127.0.0.1:9"))
    assert isinstance(error, SignInError)
    assert error.code == "no_credentials"
    assert "--dry-run" in (error.hint or "")

"""Foreign errors, each told apart: what happened, what it means for money, what to do."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

import pytest
from botocore import exceptions as sdk
from botocore.parsers import ResponseParserError
from hypothesis import given
from hypothesis import strategies as st

from cloudtrain.core.errors import (
    CloudtrainError,
    ConnectionFailed,
    NoCapacity,
    QuotaExceeded,
    Refused,
    SignInError,
    UsageError,
)
from cloudtrain.core.text import screen_safe
from cloudtrain.provider.ec2.translate import NOTHING, Failure, code_of, failure_of, text_of, translate, translated


def service_error(code: str, text: str = "", status: int = 400, *, behind_s: float = 0.0) -> Exception:
    """An error answer of AWS, which sees this computer's clock `behind_s` seconds behind its own."""
    answer: Any = {
        "Error": {"Code": code, "Message": text},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {"behind_s": behind_s}},
    }
    return dated(sdk.ClientError(answer, "RunInstances"))


def dated(error: Exception) -> Exception:
    """`error` as if it had come just now: those of a list are made long before the last of them is used."""
    if isinstance(error, sdk.ClientError) and "behind_s" in error.response["ResponseMetadata"]["HTTPHeaders"]:
        headers: Any = error.response["ResponseMetadata"]["HTTPHeaders"]
        headers["date"] = formatdate(time.time() + headers["behind_s"], usegmt=True)
    return error


def told(error: Exception, profile: str | None = "student") -> CloudtrainError:
    return translate(dated(error), "launch", profile=profile)


CODES = ["AuthFailure", "RequestExpired", "UnauthorizedOperation", "AccessDenied", "OptInRequired", "VcpuLimitExceeded"]
SIGN_IN = [
    (sdk.NoCredentialsError(), "no_credentials", "aws login --profile student"),
    (sdk.PartialCredentialsError(provider="env", cred_var="secret"), "no_credentials", "secret"),
    (sdk.ProfileNotFound(profile="nope"), "no_profile", "there"),
    (sdk.MissingDependencyException(msg="crt"), "missing_crt", "botocore[crt]"),
    (sdk.LoginRefreshRequired(), "expired", "aws login --profile student"),
    (sdk.LoginTokenLoadError(error_msg="none"), "expired", "aws login --profile student"),
    (sdk.LoginInsufficientPermissions(), "expired", "aws login"),
    (sdk.UnauthorizedSSOTokenError(), "expired", "aws sso login --profile student"),
    (sdk.SSOTokenLoadError(error_msg="none"), "expired", "aws sso login --profile student"),
    (sdk.TokenRetrievalError(provider="sso", error_msg="none"), "expired", "aws sso login"),
    (sdk.RefreshWithMFAUnsupportedError(), "expired", "aws sts get-caller-identity --profile student"),
    (sdk.CredentialRetrievalError(provider="process", error_msg="boom"), "no_credentials", "get-caller-identity"),
    (sdk.ConfigParseError(path="config"), "bad_aws_config", "aws configure list"),
    (service_error("ExpiredToken"), "expired", "aws login --profile student"),
    (service_error("RequestExpired", "Request has expired."), "expired", "aws login --profile student"),
    (service_error("RequestExpired", behind_s=600), "clock", "network time"),
    (service_error("SignatureDoesNotMatch", behind_s=600), "clock", "network time"),
    (service_error("AuthFailure", behind_s=-900), "clock", "network time"),
    (service_error("AuthFailure"), "bad_key", "secret"),
    (service_error("SignatureDoesNotMatch"), "bad_key", "secret"),
    (service_error("InvalidClientTokenId"), "bad_key", "access key"),
    (service_error("AuthFailure.ServiceLinkedRoleCreationNotPermitted"), "denied", "spot.amazonaws.com"),
]


@pytest.mark.parametrize(
    ("error", "code", "hint"), SIGN_IN, ids=lambda v: code_of(v) if isinstance(v, Exception) else None
)
def test_each_way_of_not_being_signed_in_is_told_apart(error: Exception, code: str, hint: str) -> None:
    ours = told(error)
    assert isinstance(ours, SignInError) and ours.exit_code == 4
    assert ours.code == code and ours.hint and hint in ours.hint
    assert ours.consequence == NOTHING
    assert ours.message[0] in 'Aant"t' and not ours.message.endswith(".") and "\n" not in ours.message


def test_an_mfa_code_that_aws_does_not_accept_is_no_missing_right() -> None:
    text = "MultiFactorAuthentication failed with invalid MFA one time pass code."
    ours = told(service_error("AccessDenied", text, 403))
    assert isinstance(ours, SignInError) and ours.code == "mfa" and '"student"' in ours.message


def test_a_denial_of_the_organization_speaks_of_the_tags_that_it_may_demand() -> None:
    what = "arn:aws:ec2:us-east-1:123456789012:volume/*"
    text = f"not authorized to perform: ec2:RunInstances on {what} with an explicit deny in a service control policy"
    ours = told(service_error("UnauthorizedOperation", text, 403))
    assert "--tag KEY=VALUE" in str(ours.hint) and "--private-ip" in str(ours.hint)
    assert f"AWS says: {text.replace('12345678', '...')}" in str(ours.detail) and "123456789012" not in str(ours.detail)


def test_a_wrong_clock_is_named_with_its_error() -> None:
    assert "10 min behind" in told(service_error("RequestExpired", behind_s=600)).message
    assert "15 min ahead" in told(service_error("AuthFailure", behind_s=-900)).message


def test_the_default_profile_needs_no_flag() -> None:
    assert "--profile" not in str(told(sdk.NoCredentialsError(), None).hint)
    assert "--profile" not in str(told(sdk.NoCredentialsError(), "default").hint)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "User: arn:x is not authorized to perform: ec2:RunInstances on y because no identity-based policy",
            "no policy",
        ),
        (
            "not authorized to perform: ec2:RunInstances with an explicit deny in a service control policy",
            "organization",
        ),
        ("not authorized to perform: ec2:RunInstances because no permissions boundary allows it", "boundary"),
        ("not authorized to perform: ec2:RunInstances with an explicit deny in an identity-based policy", "explicitly"),
    ],
)
def test_a_missing_right_is_named_and_its_reason_told(text: str, why: str) -> None:
    ours = told(
        service_error("UnauthorizedOperation", f"{text}. Encoded authorization failure message: {'x' * 500}", 403)
    )
    assert isinstance(ours, SignInError) and ours.code == "denied"
    assert (
        "ec2:RunInstances" in ours.message and why in f"{ours.detail}" and "xxx" not in f"{ours.message}{ours.detail}"
    )
    assert "arn:" not in ours.message


@pytest.mark.parametrize(
    ("error", "failure", "kind", "code"),
    [
        (service_error("InsufficientInstanceCapacity", status=500), Failure.CAPACITY, NoCapacity, "no_capacity"),
        (service_error("InsufficientFreeAddressesInSubnet"), Failure.CAPACITY, NoCapacity, "no_capacity"),
        (service_error("Unsupported"), Failure.CAPACITY, NoCapacity, "no_capacity"),
        (service_error("VcpuLimitExceeded"), Failure.QUOTA, QuotaExceeded, "quota"),
        (service_error("MaxSpotInstanceCountExceeded"), Failure.QUOTA, QuotaExceeded, "quota"),
        (service_error("RequestLimitExceeded", status=503), Failure.THROTTLED, ConnectionFailed, "throttled"),
        (service_error("ThrottlingException"), Failure.THROTTLED, ConnectionFailed, "throttled"),
        (service_error("InternalError", status=500), Failure.UNKNOWN_EFFECT, ConnectionFailed, "aws_unavailable"),
        (service_error("Unavailable", status=503), Failure.UNKNOWN_EFFECT, ConnectionFailed, "aws_unavailable"),
        (ResponseParserError("<html>"), Failure.UNKNOWN_EFFECT, ConnectionFailed, "aws_unavailable"),
        (sdk.ConnectionClosedError(endpoint_url="u"), Failure.UNKNOWN_EFFECT, ConnectionFailed, "aws_unavailable"),
        (sdk.ReadTimeoutError(endpoint_url="u"), Failure.UNKNOWN_EFFECT, ConnectionFailed, "aws_unavailable"),
        (sdk.EndpointConnectionError(endpoint_url="u"), Failure.UNKNOWN_EFFECT, ConnectionFailed, "aws_unreachable"),
        (service_error("IdempotentParameterMismatch"), Failure.MISMATCH, Refused, "aws_refused"),
        (service_error("IdempotentInstanceTerminated"), Failure.SPENT, Refused, "aws_refused"),
        (service_error("InvalidInstanceID.NotFound"), Failure.ABSENT, UsageError, "aws_refused"),
        (service_error("InvalidGroup.Duplicate"), Failure.DUPLICATE, UsageError, "aws_refused"),
        (service_error("DependencyViolation"), Failure.IN_USE, Refused, "aws_refused"),
        (service_error("VPCIdNotSpecified"), Failure.FINAL, Refused, "no_vpc"),
        (service_error("OptInRequired"), Failure.FINAL, Refused, "account"),
        (service_error("PendingVerification"), Failure.FINAL, Refused, "account"),
        (
            service_error("InvalidParameterCombination", "The specified type is not eligible for Free Tier"),
            Failure.FINAL,
            Refused,
            "free_plan",
        ),
        (service_error("InvalidBlockDeviceMapping", "too small"), Failure.FINAL, UsageError, "aws_refused"),
    ],
    ids=lambda v: code_of(v) if isinstance(v, Exception) else None,
)
def test_each_failure_has_its_meaning(
    error: Exception, failure: Failure, kind: type[CloudtrainError], code: str
) -> None:
    assert failure_of(error) is failure
    ours = told(error)
    assert type(ours) is kind and ours.code == code


def test_ours_pass_unchanged_and_strangers_too() -> None:
    mine = Refused("no")
    with pytest.raises(Refused) as caught, translated("launch"):
        raise mine
    assert caught.value is mine
    with pytest.raises(ZeroDivisionError), translated("launch"):
        raise ZeroDivisionError
    with pytest.raises(ConnectionFailed) as failed, translated("look up x", consequence="nothing was changed"):
        raise sdk.ConnectionClosedError(endpoint_url="u")
    assert failed.value.consequence == "nothing was changed" and "look up x" in failed.value.message
    assert isinstance(failed.value.__cause__, sdk.ConnectionClosedError)


@given(code=st.text() | st.sampled_from(CODES), text=st.text(), status=st.integers(400, 599))
def test_whatever_aws_says_is_one_error_of_ours(code: str, text: str, status: int) -> None:
    ours = told(service_error(code, text * 200, status))
    assert isinstance(ours, CloudtrainError) and len(ours.message) < 2500
    assert ours.message == screen_safe(ours.message) and "\n" not in ours.message


def test_the_text_is_one_line() -> None:
    assert text_of(service_error("X", "a\n b. ")) == "a b"


def test_an_address_of_no_region_names_the_one_that_was_probably_meant() -> None:
    def hint(region: str) -> str | None:
        return told(sdk.EndpointConnectionError(endpoint_url=f"https://ec2.{region}.amazonaws.com/")).hint

    assert hint("us-eats-1") == "did you mean us-east-1?"
    assert "check the network" in str(hint("us-east-1")) and "check the network" in str(hint("xx-nowhere-9"))

"""What AWS and its SDK raise, told apart once and turned into our own errors. No other module knows foreign codes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from enum import Enum, auto

import botocore.session
from botocore import exceptions as sdk
from botocore.parsers import ResponseParserError

from cloudtrain.core.errors import (
    CloudtrainError,
    ConnectionFailed,
    NoCapacity,
    QuotaExceeded,
    Refused,
    SignInError,
    UsageError,
)
from cloudtrain.core.text import nearest, screen_safe

NOTHING = "nothing was created"
# What a call to AWS may raise.
FOREIGN = (sdk.BotoCoreError, sdk.ClientError, ResponseParserError, ConnectionError)
# Characters of AWS's sentence, and of its code, that are read: an answer may be anything.
_TEXT, _CODE = 2000, 100
# Why a call is denied that nothing forbids.
NO_POLICY = "no policy allows it"
# AWS refuses a signature whose time is 15 minutes off; some services refuse sooner.
CLOCK_TOLERANCE_S = 240


class Failure(Enum):
    """What a failed call means for the next one."""

    CAPACITY = auto()
    """This zone has none of this type now: ask another zone."""
    QUOTA = auto()
    """The account may not have more of this kind."""
    THROTTLED = auto()
    """Too many calls; this one had no effect: ask again, later."""
    UNKNOWN_EFFECT = auto()
    """It may or may not have been done: ask again with the same token, then look."""
    MISMATCH = auto()
    """This token was used with another request before."""
    SPENT = auto()
    """This token's instance has ended already."""
    ABSENT = auto()
    """What it names does not exist, or not yet."""
    DUPLICATE = auto()
    """What it makes is there already."""
    IN_USE = auto()
    """Something still holds what it would delete."""
    FINAL = auto()
    """Asking again changes nothing."""


_CAPACITY = {
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "UnfulfillableCapacity",
    "InsufficientFreeAddressesInSubnet",
    "Unsupported",
    "ReservationCapacityExceeded",
    "SpotMaxPriceTooLow",
}
_QUOTA = {"VcpuLimitExceeded", "InstanceLimitExceeded", "MaxSpotInstanceCountExceeded"}
_THROTTLED = {
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "TooManyRequestsException",
    "EC2ThrottledException",
    "BandwidthLimitExceeded",
    "PriorRequestNotComplete",
}
_CLOCK = {"RequestExpired", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "InvalidSignatureException", "AuthFailure"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
_BAD_KEY = {
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
}
_DENIED = {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "NotAuthorized"}
_ACCOUNT = {
    "OptInRequired": "this account is not enabled for EC2 in this Region",
    "SubscriptionRequiredException": "this account is not enabled for this service",
    "PendingVerification": "AWS is still verifying this account; it may take up to 4 hours",
    "Blocked": "AWS has blocked this account",
}


def code_of(error: BaseException) -> str:
    """AWS's own code of a failed call ("VcpuLimitExceeded"), or the name of the SDK's exception."""
    if isinstance(error, sdk.ClientError):
        return screen_safe(str(error.response.get("Error", {}).get("Code", ""))[:_CODE]) or "Unknown"
    return type(error).__name__


def text_of(error: BaseException) -> str:
    """AWS's sentence about a failed call, in one line, without the encoded blob that follows a denial."""
    said = error.response.get("Error", {}).get("Message", "") if isinstance(error, sdk.ClientError) else error
    text = screen_safe(" ".join(str(said)[:_TEXT].split()))
    return " ".join(re.sub(r"Encoded authorization failure message:.*", "", text, flags=re.DOTALL).split()).rstrip(". ")


def failure_of(error: BaseException) -> Failure:
    """What `error` means for the next call. Codes come before the HTTP status: lack of capacity arrives as a 500."""
    code = code_of(error)
    if code in _CAPACITY:
        return Failure.CAPACITY
    if code in _QUOTA:
        return Failure.QUOTA
    if code in _THROTTLED:
        return Failure.THROTTLED
    if code in ("IdempotentParameterMismatch", "IdempotencyParameterMismatch"):
        return Failure.MISMATCH
    if code == "IdempotentInstanceTerminated":
        return Failure.SPENT
    if code.endswith((".NotFound", "NotFoundException", "ParameterNotFound")) or code == "NoSuchEntity":
        return Failure.ABSENT
    if code.endswith(".Duplicate"):
        return Failure.DUPLICATE
    if code in ("DependencyViolation", "ResourceInUse", "InvalidGroup.InUse"):
        return Failure.IN_USE
    if isinstance(error, sdk.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return Failure.UNKNOWN_EFFECT if status >= 500 else Failure.FINAL
    broken = (sdk.HTTPClientError, sdk.ConnectionError, sdk.IncompleteReadError, sdk.ResponseStreamingError)
    if isinstance(error, (*broken, ResponseParserError, ConnectionError)):
        return Failure.UNKNOWN_EFFECT
    return Failure.FINAL


@contextmanager
def translated(action: str, *, profile: str | None = None, consequence: str | None = NOTHING) -> Iterator[None]:
    """Turn what AWS or its SDK raises inside into one of our errors; ours pass unchanged.

    Args:
        action: what was being done, to follow "could not": "look up the image".
        profile: named in hints about signing in.
        consequence: what a failure here means for money and data.
    """
    try:
        yield
    except (sdk.BotoCoreError, sdk.ClientError, ResponseParserError) as error:
        raise translate(error, action, profile=profile, consequence=consequence) from error


def translate(
    error: Exception, action: str, *, profile: str | None = None, consequence: str | None = NOTHING
) -> CloudtrainError:
    """Our error for a foreign one; the arguments are those of `translated`."""
    if isinstance(error, sdk.ClientError):
        ours = _from_service(error, action, profile)
    else:
        ours = _signing_in(error, profile) or _from_sdk(error, action)
    ours.consequence = consequence
    return ours


def about_something_else(code: object, text: object) -> bool:
    """EC2's `AuthFailure` is also its word for an image that is not shared with this account."""
    return code == "AuthFailure" and bool(text) and "credential" not in str(text).lower()


def with_profile(command: str, profile: str | None) -> str:
    """`command` for this profile."""
    return command if profile in (None, "default") else f"{command} --profile {profile}"


def profile_text(profile: str | None) -> str:
    """A profile in a sentence."""
    return f'profile "{profile}"' if profile else "the default profile"


def _signing_in(error: Exception, profile: str | None) -> SignInError | None:
    """Each way in which credentials can be missing or stale, by the SDK's class; None: it is not about credentials."""
    named, login = profile_text(profile), with_profile("aws login", profile)
    begin = f"{login} (or: aws configure); without an account: cloudtrain run --model 3 --dry-run"
    sso = with_profile("aws sso login", profile)
    who = with_profile("aws sts get-caller-identity", profile)
    fetched = f"the credentials of {named} could not be fetched: {text_of(error)[:300]}"
    crt = 'reinstall cloudtrain, or: pip install "botocore[crt]"'
    mfa = sdk.RefreshWithMFAUnsupportedError
    single = (sdk.SSOError, sdk.TokenRetrievalError, sdk.NoAuthTokenError)
    no_source = (sdk.CredentialRetrievalError, sdk.MetadataRetrievalError)
    settings = (sdk.InvalidConfigError, sdk.ConfigParseError, sdk.UnknownCredentialError)
    rows: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, str, str], ...] = (
        (sdk.NoCredentialsError, "no AWS credentials were found", begin, "no_credentials"),
        (
            sdk.PartialCredentialsError,
            "the AWS credentials are incomplete",
            "set both key id and secret",
            "no_credentials",
        ),
        (
            sdk.ProfileNotFound,
            f"there is no AWS {_missing_profile(error) or named}",
            _profiles_there_are(),
            "no_profile",
        ),
        (sdk.MissingDependencyException, '"aws login" credentials need one more package', crt, "missing_crt"),
        (sdk.LoginInsufficientPermissions, "this sign-in may not be refreshed", login, "expired"),
        (sdk.LoginError, f"the AWS session of {named} has expired", login, "expired"),
        (single, f"the AWS single sign-on session of {named} has expired", sso, "expired"),
        (mfa, f"the AWS session of {named} needs a new MFA code", f"sign in again: {who}", "expired"),
        (no_source, fetched, f"{who} shows the same failure", "no_credentials"),
        (
            settings,
            f"the AWS settings of {named} cannot be used: {text_of(error)[:300]}",
            "aws configure list shows what is set where",
            "bad_aws_config",
        ),
    )
    for kinds, message, hint, code in rows:
        if isinstance(error, kinds):
            return SignInError(message, hint=hint, code=code)
    return None


def _profiles_there_are() -> str:
    try:
        names = botocore.session.Session().available_profiles
    except sdk.BotoCoreError:
        return "aws configure list-profiles shows those there are"
    return f"there are: {', '.join(sorted(names))}" if names else "aws configure creates one; there is none yet"


def _another_region(error: Exception) -> str | None:
    """The hint where the Region of an address is none that the SDK knows, but is like one that it does."""
    found = re.search(r"\.([a-z]{2,4}(?:-[a-z]+)+-\d{1,2})\.", str(getattr(error, "kwargs", {}).get("endpoint_url")))
    known = botocore.session.Session().get_available_regions("ec2") if found else []
    near = nearest(found[1], known) if found and found[1] not in known else None
    return f"did you mean {near}?" if near else None


def _missing_profile(error: Exception) -> str | None:
    name = getattr(error, "kwargs", {}).get("profile")
    return f'profile "{name}"' if name else None


def _from_sdk(error: Exception, action: str) -> CloudtrainError:
    if isinstance(error, sdk.NoRegionError):
        return UsageError("no AWS Region is set", hint="--region us-east-1", code="no_region")
    if failure_of(error) is Failure.UNKNOWN_EFFECT:
        if isinstance(
            error, (sdk.EndpointConnectionError, sdk.ConnectTimeoutError, sdk.ProxyConnectionError, sdk.SSLError)
        ):
            return ConnectionFailed(
                f"could not {action}: AWS cannot be reached",
                hint=_another_region(error) or "check the network, the proxy, and the name of the Region",
                code="aws_unreachable",
                detail=text_of(error),
            )
        return ConnectionFailed(
            f"could not {action}: AWS broke off without a usable answer",
            hint="run the same command again",
            code="aws_unavailable",
            detail=text_of(error)[:500],
        )
    return CloudtrainError(f"could not {action}: {text_of(error)[:300]}", code="aws")


def clock_skew_s(error: sdk.ClientError) -> float | None:
    """Seconds that this computer's clock is ahead of the `Date` of AWS's answer; None if it has none."""
    date = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return time.time() - parsedate_to_datetime(str(date)).timestamp() if date else None
    except ValueError:
        return None


def _from_service(error: sdk.ClientError, action: str, profile: str | None) -> CloudtrainError:
    code, text = code_of(error), text_of(error)
    named, login = profile_text(profile), with_profile("aws login", profile)
    if code.startswith("AuthFailure.ServiceLinkedRole"):
        return SignInError(
            "the first spot request of an account needs the right iam:CreateServiceLinkedRole",
            hint="aws iam create-service-linked-role --aws-service-name spot.amazonaws.com, or run without --spot",
            code="denied",
        )
    if code in _CLOCK and not about_something_else(code, text):
        return _clock_or_key(error, code, named, login)
    if code in _EXPIRED:
        return SignInError(f"the AWS session of {named} has expired", hint=login, code="expired")
    if code in _BAD_KEY:
        return SignInError(
            f"AWS does not know the access key of {named}",
            hint=f"{login}, or make a new access key",
            code="bad_key",
        )
    if "MultiFactorAuthentication failed" in text:
        return SignInError(
            f"AWS did not accept the MFA code for {named}",
            hint="run the same command again with the next code",
            code="mfa",
        )
    if code in _DENIED:
        return _denied(error, action, text)
    if code in _ACCOUNT:
        return Refused(_ACCOUNT[code], hint=text or None, code="account")
    if "free tier" in text.lower() or "free plan" in text.lower():
        return Refused(
            "a free-plan account may not launch this instance type",
            hint="upgrade to the paid plan in the billing console; free here: cloudtrain run --model 3 --dry-run",
            code="free_plan",
        )
    return _by_failure(error, action, code, text)


def _by_failure(error: sdk.ClientError, action: str, code: str, text: str) -> CloudtrainError:
    said = f"could not {action}: {text or code} ({code})"
    failure = failure_of(error)
    if failure is Failure.CAPACITY:
        return NoCapacity(said, hint="--instance g4dn.xlarge,g6.xlarge tries both")
    if failure is Failure.QUOTA:
        return QuotaExceeded(said, hint="cloudtrain doctor prints the quota and the command")
    if failure is Failure.THROTTLED:
        return ConnectionFailed(
            f"could not {action}: AWS is throttling this account's calls ({code})",
            hint="run the same command again in a minute",
            code="throttled",
        )
    if failure is Failure.UNKNOWN_EFFECT:
        return ConnectionFailed(
            f"could not {action}: AWS has a failure of its own ({code})",
            hint="run the same command again; https://health.aws.amazon.com shows known failures",
            code="aws_unavailable",
            detail=text or None,
        )
    if code in ("VPCIdNotSpecified", "DefaultVpcDoesNotExist", "InvalidVpcID.NotFound"):
        return Refused(
            "this Region has no default network (VPC)",
            hint="aws ec2 create-default-vpc, or --subnet subnet-...",
            code="no_vpc",
        )
    if failure is Failure.ABSENT or code.startswith(("Invalid", "Malformed")) or code.endswith(".Malformed"):
        return UsageError(said, code="aws_refused")
    return Refused(said, code="aws_refused")


def _clock_or_key(error: sdk.ClientError, code: str, named: str, login: str) -> SignInError:
    """A few codes mean a wrong clock, a session that is over, or a wrong key; the date of the answer tells which."""
    skew = clock_skew_s(error)
    timed = code in ("RequestExpired", "RequestTimeTooSkewed")
    if re.search(r"Signature (expired|not yet current)", text_of(error)):
        # Said of a signature's time alone. A service that is not exact about its own `Date` may still say it.
        timed, skew = True, skew if skew and abs(skew) > CLOCK_TOLERANCE_S else None
    if (skew is not None and abs(skew) > CLOCK_TOLERANCE_S) or (timed and skew is None):
        off = "is wrong" if skew is None else f"is {abs(skew) / 60:.0f} min {'ahead' if skew > 0 else 'behind'}"
        return SignInError(
            f"AWS refused the signature's time: this computer's clock {off}",
            hint=f"set the clock to network time; if it is right, sign in again: {login}",
            code="clock",
        )
    if timed:
        # EC2's word for a temporary session that is over: the clocks agree.
        return SignInError(f"the AWS session of {named} has expired", hint=login, code="expired")
    return SignInError(
        f"AWS does not accept the credentials of {named} ({code})",
        hint=f"{login}, or check key id and secret",
        code="bad_key",
    )


def _denied(error: sdk.ClientError, action: str, text: str) -> SignInError:
    found = re.search(r"not authorized to perform:? ([a-z0-9-]+:[A-Za-z]+)", text)
    # EC2 alone says UnauthorizedOperation, and names no right.
    prefix = "ec2:" if code_of(error) == "UnauthorizedOperation" else ""
    right = found.group(1) if found else f"{prefix}{error.operation_name}"
    if "service control policy" in text:
        # Which of its rules it is AWS does not say, but what it was denied on; account numbers as they may be shown.
        why = "the organization's policy forbids it. AWS says: " + re.sub(r"\d{8}(?=\d{4}:)", "...", text)
        hint = "if it requires tags: --tag KEY=VALUE (setting tags); if it forbids public addresses: --private-ip;"
        hint += " else ask its administrator"
    elif "permissions boundary" in text:
        why, hint = "the permissions boundary forbids it", "ask the administrator to widen the permissions boundary"
    elif "explicit deny" in text:
        why, hint = "a policy denies it explicitly", "ask the account's administrator"
    else:
        why, hint = NO_POLICY, "add the right; docs/iam-policy.json lists all that a run needs"
    return SignInError(
        f"not allowed to {action}: the right {right} is missing",
        hint=hint,
        code="denied",
        detail=why,
    )

"""Who may ask the region: whoever signs with its key (AWS's Signature Version 4), from a program and not a web page."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from datetime import UTC, datetime, timedelta
from wsgiref.types import WSGIEnvironment

from cloudtrain.emulator.aws.replies import ApiError

FRESH = timedelta(minutes=15)
_STAMP = "%Y%m%dT%H%M%SZ"
_SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/\s,]+)/(\d{8})/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request, ?"
    r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})"
)


def new_key() -> tuple[str, str]:
    """A random access key id and its secret, in the form that AWS gives them."""
    id = "AKIA" + "".join(secrets.choice(string.ascii_uppercase + "234567") for _ in range(16))
    return id, secrets.token_urlsafe(30)


def same(one: str, other: str) -> bool:
    """Whether two texts are equal, told in a time that does not say how much of them is."""
    return hmac.compare_digest(one.encode(), other.encode())


def scope(environ: WSGIEnvironment) -> tuple[str, str]:
    """Region and service that a request says it is for, signed or not."""
    found = _SIGNED.fullmatch(str(environ.get("HTTP_AUTHORIZATION", "")))
    # Without one, the protocol at least is that of the question.
    return (found[3], found[4]) if found else ("", "" if "HTTP_X_AMZ_TARGET" in environ else "ec2")


def check_sender(environ: WSGIEnvironment) -> None:
    """Turn web pages away: a browser names the page's origin, and a name that leads here is not this address.

    Raises:
        ApiError: it may be one.
    """
    own = f"127.0.0.1:{environ['SERVER_PORT']}"
    if "HTTP_ORIGIN" in environ or environ.get("HTTP_HOST") != own or environ["REQUEST_METHOD"] == "OPTIONS":
        raise ApiError("AccessDenied", f"The emulated region is {own} by no other name, and not for web pages.", 403)


def check(environ: WSGIEnvironment, body: bytes, key: tuple[str, str], now: datetime | None = None) -> None:
    """Verify that a request was signed with `key`, all of it, at most 15 minutes from `now`.

    Raises:
        ApiError: it was not.
    """
    header = environ.get("HTTP_AUTHORIZATION")
    if header is None:
        raise ApiError("MissingAuthenticationToken", "Request is missing Authentication Token", 403)
    found = _SIGNED.fullmatch(str(header))
    # All that AWS's SDKs ask for goes there; elsewhere are moto's own pages.
    if found is None or (environ["REQUEST_METHOD"], environ.get("RAW_URI")) != ("POST", "/"):
        raise _mismatch()
    id, day, region, service, names, signature = found.groups()
    if not same(id, key[0]):
        code = "InvalidClientTokenId" if service in ("ec2", "sts") else "UnrecognizedClientException"
        raise ApiError(code, "The security token included in the request is invalid.", 403)
    headers = {_header(name): str(value) for name, value in environ.items() if name.startswith(("HTTP_", "CONTENT_"))}
    signed, stamp = names.split(";"), headers.get("x-amz-date", "")
    needed = {"host", "x-amz-date", *(name for name in headers if name.startswith("x-amz-"))}
    if not needed <= set(signed) <= set(headers):
        raise _mismatch()
    lines = [f"{name}:{' '.join(headers[name].split())}\n" for name in signed]
    asked = "\n".join(["POST", "/", "", "".join(lines), names, hashlib.sha256(body).hexdigest()])
    within = f"{day}/{region}/{service}/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, within, hashlib.sha256(asked.encode()).hexdigest()])
    made = f"AWS4{key[1]}".encode()
    for word in (*within.split("/"), text):
        made = hmac.digest(made, word.encode(), "sha256")
    if not same(made.hex(), signature) or not stamp.startswith(day):
        raise _mismatch()
    _check_date(stamp, now or datetime.now(UTC))


def _check_date(stamp: str, now: datetime) -> None:
    try:
        at = datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
    except ValueError:
        raise _mismatch() from None
    if abs(now - at) > FRESH:
        words = f"Signature expired: {stamp} is more than 15 minutes from {now:{_STAMP}}"
        raise ApiError("SignatureDoesNotMatch", words, 403)


def _header(name: str) -> str:
    return name.removeprefix("HTTP_").replace("_", "-").lower()


def _mismatch() -> ApiError:
    words = "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
    return ApiError("SignatureDoesNotMatch", f"{words}Access Key and signing method.", 403)

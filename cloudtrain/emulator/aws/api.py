"""The door of the region: a WSGI layer that lets in who has its key, records every call, strikes with faults, and
passes the rest to moto."""

from __future__ import annotations

import gzip
import io
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from cloudtrain.emulator.aws import answers, signature
from cloudtrain.emulator.aws.core import Core
from cloudtrain.emulator.aws.replies import ApiError, error_body, words_of
from cloudtrain.emulator.faults import STATUS

MOST_BYTES = 1 << 20
_READS = ("Describe", "Get", "List", "Decode", "Search")
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Call:
    """One call as the region saw it.

    Attributes:
        at: unix seconds when it came; `seconds`: until it was answered.
        status: HTTP status of the answer, None where the connection was closed instead.
        error: AWS error code of the answer, or None.
        effect: whether it changed something (a launch answered again by its token did not).
        fault: the fault that struck, as written, or None.
    """

    service: str
    action: str
    region: str
    parameters: dict[str, Any]
    at: float
    seconds: float = 0.0
    status: int | None = None
    error: str | None = None
    effect: bool = False
    fault: str | None = None


@dataclass(slots=True)
class _Reply:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    error: str | None = None

    def __post_init__(self) -> None:
        self.headers.append(("Content-Length", str(len(self.body))))


@dataclass
class Api:
    """The WSGI application.

    Args:
        core: the region.
        inner: moto.
        pages: `/_region/NAME` by method and name, each given the request body.
        token: secret for those pages.
        access_key: id and secret that every other request is signed with.
    """

    core: Core
    inner: WSGIApplication
    pages: Mapping[tuple[str, str], Callable[[bytes], Any]]
    token: str
    access_key: tuple[str, str]
    calls: list[Call] = field(default_factory=list)
    last_call: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = str(environ.get("PATH_INFO", ""))
        try:
            signature.check_sender(environ)
            body = _body(environ)
            if path.startswith("/_region/"):
                return self._page(environ, path, body, start_response)
            signature.check(environ, body, self.access_key)
        except ApiError as error:
            # It is not this user who asks: neither recorded nor a sign of life.
            return _sent(_refused(signature.scope(environ)[1], error), start_response)
        call = _read_call(environ, body)
        with self._lock:
            self.calls.append(call)
            self.last_call = time.monotonic()
        reply = self._answer(call, environ)
        call.seconds = time.time() - call.at
        if reply is None:
            # The effect stands, the answer never arrives.
            raise ConnectionResetError("the answer is lost")
        call.status, call.error = reply.status, reply.error
        return _sent(reply, start_response)

    def recorded(self) -> list[dict[str, Any]]:
        """Every AWS call so far, JSON-ready."""
        with self._lock:
            return [asdict(call) for call in self.calls]

    def _page(self, environ: WSGIEnvironment, path: str, body: bytes, start_response: StartResponse) -> Iterable[bytes]:
        # Only this user can read it: the record holds the private keys of user data.
        if not signature.same(str(environ.get("HTTP_X_REGION_TOKEN", "")), self.token):
            return _sent(_Reply(403, [], b""), start_response)
        found = self.pages.get((str(environ["REQUEST_METHOD"]), path.removeprefix("/_region/").rstrip("/")))
        if found is None:
            return _sent(_Reply(404, [], b""), start_response)
        try:
            status, answer = 200, found(body)
        except Exception as error:  # a bad fault script, told to whoever sent it
            status, answer = 400, {"error": str(error)}
        text = json.dumps(answer, default=str).encode()
        return _sent(_Reply(status, [("Content-Type", "application/json")], text), start_response)

    def _answer(self, call: Call, environ: WSGIEnvironment) -> _Reply | None:
        faults = self.core.faults
        try:
            self._credentials(call)
            if slow := faults.take("slow-api", call.action):
                call.fault = slow.text
                time.sleep(slow.number(0, 0))
            if refused := faults.take("error", call.action):
                call.fault = refused.text
                code = refused.values[0]
                raise ApiError(code, words_of(code, call.action), STATUS[code])
            if page := faults.take("html500", call.action):
                call.fault = page.text
                html = b"<!doctype html><html><body><h1>Internal Server Error</h1></body></html>"
                return _Reply(500, [("Content-Type", "text/html")], html, "html")
            if call.service == "ssm" and (denied := faults.find("ssm-denied")):
                call.fault = denied.text
                raise ApiError("AccessDeniedException", f"User is not authorized to perform: ssm:{call.action}")
            if call.service == "ec2" and call.action.startswith(_READS) and call.parameters.get("DryRun") == "true":
                raise ApiError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
            reply = self._served(call, environ)
        except ApiError as error:
            return _refusal(call, error)
        except NotImplementedError as error:
            return _refusal(call, _unknown(call, str(error)))
        except Exception as error:  # a fault of the emulator itself must look like AWS, not like a traceback in HTML
            _log.exception("%s %s", call.service, call.action)
            return _refusal(call, ApiError("InternalFailure", f"the emulated region failed: {error!r}", 500))
        if reply.status >= 300:
            return reply
        call.effect = not call.action.startswith(_READS) and not getattr(self.core.replayed, "value", False)
        if lost := faults.take("lost-response", call.action):
            call.fault = lost.text
            return None
        if broken := faults.take("internal-after-effect", call.action):
            call.fault = broken.text
            return _refusal(call, ApiError("InternalError", "An internal error has occurred", 500))
        return reply

    def _credentials(self, call: Call) -> None:
        faults, query = self.core.faults, call.service == "ec2"
        expired = faults.find("expired-token")
        if expired and time.monotonic() - self.core.opened >= expired.number(0, 0):
            call.fault = expired.text
            raise ApiError(
                "RequestExpired" if query else "ExpiredTokenException",
                "The security token included in the request is expired",
            )
        if skew := faults.find("clock-skew"):
            call.fault = skew.text
            if query:
                raise ApiError("RequestExpired", "Request has expired.")
            raise ApiError(
                "SignatureDoesNotMatch",
                "Signature expired: the request is 10 minutes older than this service's clock allows",
                403,
            )
        if bad := faults.find("bad-credentials"):
            call.fault = bad.text
            if query:
                raise ApiError("AuthFailure", "AWS was not able to validate the provided access credentials", 401)
            code = "InvalidClientTokenId" if call.service == "sts" else "UnrecognizedClientException"
            raise ApiError(code, "The security token included in the request is invalid.", 403)

    def _served(self, call: Call, environ: WSGIEnvironment) -> _Reply:
        if call.service in answers.SERVICES:
            found = answers.answer(
                call.service, call.action, call.parameters, self.core.quotas, call.region, self.core.account
            )
            return _Reply(200, [("Content-Type", "application/x-amz-json-1.1")], json.dumps(found).encode())
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = self.core.account
        self.core.replayed.value = False
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            started[:] = [(status, headers)]
            return lambda data: None

        chunks = self.inner(environ, start)
        body = b"".join(chunks)
        status, headers = started[0]
        number = int(status.split(" ", 1)[0])
        kind = next((v for k, v in headers if k.lower() == "content-type"), "")
        told = body.startswith(b"{") or b"<Response" in body or b"<ErrorResponse" in body
        if number >= 400 and "html" in kind and not told:
            raise _unknown(call, f"HTTP {number}")
        if call.action == "SendSSHPublicKey" and number == 200:
            # moto says yes to everybody; the machine itself must hear of the key.
            self.core.lives.let_in(str(call.parameters["InstanceId"]), str(call.parameters["SSHPublicKey"]))
        kept = [(k, v) for k, v in headers if k.lower() not in ("content-length", "connection")]
        return _Reply(number, kept, body, _error_code(body) if number >= 300 else None)


def _body(environ: WSGIEnvironment) -> bytes:
    """Read the body, which moto will read again.

    Raises:
        ApiError: it is longer than AWS takes, or does not say how long it is.
    """
    length = str(environ.get("CONTENT_LENGTH") or 0)
    known = re.fullmatch("[0-9]{1,7}", length) and "HTTP_TRANSFER_ENCODING" not in environ
    if not known or int(length) > MOST_BYTES:
        raise ApiError("RequestEntityTooLarge", "The request is longer than the emulated region reads.", 413)
    body: bytes = environ["wsgi.input"].read(int(length))
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _sent(reply: _Reply, start_response: StartResponse) -> list[bytes]:
    start_response(f"{reply.status} {'OK' if reply.status < 300 else 'Refused'}", reply.headers)
    return [reply.body]


def _read_call(environ: WSGIEnvironment, body: bytes) -> Call:
    region, service = signature.scope(environ)
    target = str(environ.get("HTTP_X_AMZ_TARGET", ""))
    if environ.get("HTTP_CONTENT_ENCODING") == "gzip":
        body = gzip.decompress(body)
    parameters: dict[str, Any] = {}
    if target:
        action = target.rpartition(".")[2]
        try:
            loaded = json.loads(body or b"{}")
            parameters = loaded if isinstance(loaded, dict) else {}
        except ValueError:
            parameters = {}
    else:
        parameters = dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
        action = str(parameters.pop("Action", ""))
        parameters.pop("Version", None)
    return Call(service, action, region, parameters, time.time())


def _refusal(call: Call, error: ApiError) -> _Reply:
    reply = _refused(call.service, error)
    if call.fault == "clock-skew":
        fast = datetime.now(UTC) + timedelta(minutes=10)
        reply.headers.append(("Date", fast.strftime("%a, %d %b %Y %H:%M:%S GMT")))
    return reply


def _refused(service: str, error: ApiError) -> _Reply:
    body, kind = error_body(service, error)
    return _Reply(error.status, [("Content-Type", kind)], body, error.code)


def _unknown(call: Call, detail: str) -> ApiError:
    if "ilter" in detail:
        return ApiError("InvalidParameterValue", f"The filter is not known to the emulated region: {detail[:120]}")
    return ApiError(
        "InvalidAction", f"The action {call.action} is not valid for {call.service} in the emulated region."
    )


def _error_code(body: bytes) -> str:
    if body.startswith(b"{"):
        try:
            return str(json.loads(body).get("__type", "")).rpartition("#")[2]
        except ValueError:
            return ""
    match = re.search(rb"<Code>([^<]+)</Code>", body)
    return match[1].decode() if match else ""

"""A stand-in for AWS's answers about keys and roles, which no emulated region gives: STS, and an EC2 that refuses."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

# Not enabled in the account.
OFF = "me-central-1"
CODE = "123456"
WHO = (
    "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/me</Arn>"
    "<UserId>AIDA</UserId><Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
)
ROLE = (
    "<AssumeRoleResponse><AssumeRoleResult><AssumedRoleUser><AssumedRoleId>AROA:s</AssumedRoleId>"
    "<Arn>arn:aws:sts::123456789012:assumed-role/dev/s</Arn></AssumedRoleUser><Credentials>"
    "<AccessKeyId>ASIAXXXXXXXXXXXXXXXX</AccessKeyId><SecretAccessKey>x</SecretAccessKey><SessionToken>t</SessionToken>"
    "<Expiration>{}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
)
STS_ERROR = "<ErrorResponse><Error><Type>Sender</Type><Code>{}</Code><Message>{}</Message></Error></ErrorResponse>"
EC2_ERROR = "<Response><Errors><Error><Code>AuthFailure</Code><Message>{}</Message></Error></Errors></Response>"


class Aws(ThreadingHTTPServer):
    """One account.

    Attributes:
        good: whether any Region knows the key.
        ec2_says: what EC2 says with its AuthFailure.
        codes: the MFA codes that AssumeRole was called with.
        url: its endpoint.
    """

    def __init__(self) -> None:
        self.good = True
        self.ec2_says = "AWS was not able to validate the provided access credentials"
        self.codes: list[str] = []
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def answer(self, service: str, region: str, asked: dict[str, list[str]]) -> tuple[int, str]:
        """Status and body."""
        if service == "ec2":
            return 401, EC2_ERROR.format(self.ec2_says)
        if service != "sts":
            return 400, "{}"
        if region == OFF or not self.good:
            return 403, STS_ERROR.format("InvalidClientTokenId", "The security token in the request is invalid.")
        if asked["Action"] != ["AssumeRole"]:
            return 200, WHO
        self.codes += asked["TokenCode"]
        if asked["TokenCode"] != [CODE]:
            return 403, STS_ERROR.format(
                "AccessDenied", "MultiFactorAuthentication failed with invalid MFA one time pass code."
            )
        return 200, ROLE.format((datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"))


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Aws)
        asked = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        found = re.search(r"Credential=[^/]+/\d+/([^/]+)/([^/]+)/", self.headers.get("Authorization", ""))
        assert found is not None
        status, text = self.server.answer(found[2], found[1], asked)
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: object) -> None:
        """Not on the test's stderr."""


@contextmanager
def opened() -> Iterator[Aws]:
    """The stand-in, until the block ends."""
    server = Aws()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""Requests to a region as somebody sends them: signed by botocore with a key of one's choice, or as they are."""

from __future__ import annotations

import contextlib
import http.client
from urllib.parse import urlencode, urlsplit

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from cloudtrain.emulator.region import Region

FORM = "application/x-www-form-urlencoded; charset=utf-8"
KNOWN = ("AKIAREHEARSAL0000000", "rehearsal")  # what every region took once
LOOK = urlencode({"Action": "DescribeVpcs", "Version": "2016-11-15"})

Answer = tuple[int, str, dict[str, str]]


def signed(
    region: Region, body: str = LOOK, *, key: tuple[str, str] | None = None, path: str = "/", **headers: str
) -> dict[str, str]:
    """Headers of a POST as botocore signs it; `headers` are signed as well."""
    given = {"Content-Type": FORM, "Host": urlsplit(region.endpoint_url).netloc}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    request = AWSRequest("POST", region.endpoint_url + path, headers=given, data=body.encode())
    botocore.auth.SigV4Auth(Credentials(*(key or region.access_key)), "ec2", "us-east-1").add_auth(request)
    return dict(request.headers.items())


def send(url: str, headers: dict[str, str], body: str = LOOK, *, method: str = "POST", path: str = "/") -> Answer:
    """Send it as it is: status, text and headers of the answer."""
    link = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    with contextlib.closing(link):
        link.request(method, path, body, headers)
        answer = link.getresponse()
        told = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, answer.read().decode(), told

"""Who may ask a region and its machines: who has its key, from no browser."""

from __future__ import annotations

import contextlib
import http.client
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.auth
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtrain.emulator.aws import signature
from cloudtrain.emulator.aws.replies import ApiError
from cloudtrain.emulator.region import Region
from tests.region.emulator.asking import KNOWN, LOOK, Answer, send, signed


def refused(region: Region, answer: Answer, code: str) -> None:
    """The answer says no, by this code and to nobody's browser, and nothing has come of the question."""
    status, text, headers = answer
    assert status == 403 and code in text, (status, text)
    assert not [name for name in headers if name.startswith("access-control")]
    assert region.calls() == [] and not region.inventory()["instances"]


@pytest.fixture
def region(tmp_path: Path) -> Iterator[Region]:
    with Region(tmp_path / "region") as opened:
        yield opened


def test_what_the_key_signed_is_answered_and_each_region_has_its_own(region: Region, tmp_path: Path) -> None:
    assert send(region.endpoint_url, signed(region))[0] == 200
    assert [call["action"] for call in region.calls()] == ["DescribeVpcs"]
    with Region(tmp_path / "other") as other:
        assert re.fullmatch("AKIA[A-Z2-7]{16}", other.access_key[0]) and other.access_key != region.access_key
        refused(other, send(other.endpoint_url, signed(other, key=region.access_key)), "InvalidClientTokenId")


def changed(what: str, headers: dict[str, str]) -> tuple[dict[str, str], str, str, str]:
    """A signed request with one part altered: headers, body, method, path."""
    body, method, path, word = LOOK, "POST", "/", headers["Authorization"]
    match what:
        case "body":
            body = LOOK.replace("DescribeVpcs", "DescribeImages")
        case "no body":
            body = ""
        case "method":
            method = "PUT"
        case "path":
            path = "/moto-api/reset"
        case "query":
            path = "/?Action=RunInstances"
        case "content type":
            headers["Content-Type"] = "text/plain"
        case "date":
            headers["X-Amz-Date"] = headers["X-Amz-Date"][:-2] + ("1Z" if headers["X-Amz-Date"][-2] != "1" else "2Z")
        case "no date":
            del headers["X-Amz-Date"]
        case "another target":
            headers["X-Amz-Target"] = "AmazonSSM.GetParameter"
        case "a token":
            headers["X-Amz-Security-Token"] = "added"
        case "region":
            headers["Authorization"] = word.replace("/us-east-1/", "/eu-west-1/")
        case "service":
            headers["Authorization"] = word.replace("/ec2/", "/ssm/")
        case "day":
            headers["Authorization"] = re.sub(r"/\d{8}/", "/20200101/", word)
        case "key id":
            headers["Authorization"] = re.sub(r"=AKIA\w+", "=AKIAREHEARSAL0000000", word)
        case "names":
            headers["Authorization"] = word.replace("SignedHeaders=content-type;", "SignedHeaders=")
        case "a name of nothing":
            headers["Authorization"] = word.replace("SignedHeaders=", "SignedHeaders=accept-charset;")
        case "signature":
            headers["Authorization"] = word[:-1] + ("0" if word[-1] != "0" else "1")
        case "no signature":
            headers["Authorization"] = word.partition(", Signature")[0]
        case "scheme":
            headers["Authorization"] = "Bearer x"
        case "nothing":
            del headers["Authorization"]
    return headers, body, method, path


PARTS = {
    "nothing": "MissingAuthenticationToken",
    "key id": "InvalidClientTokenId",
    **dict.fromkeys(
        ("body", "no body", "method", "path", "query", "content type", "date", "no date", "another target", "a token",
         "region", "service", "day", "names", "a name of nothing", "signature", "no signature", "scheme"),
        "SignatureDoesNotMatch",
    ),
}  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_a_request_that_was_altered_in_any_part_is_refused(region: Region, part: str) -> None:
    headers, body, method, path = changed(part, signed(region))
    refused(region, send(region.endpoint_url, headers, body, method=method, path=path), PARTS[part])


def test_what_another_secret_or_no_hash_of_the_body_signed_is_refused(region: Region) -> None:
    guess = signed(region, key=(region.access_key[0], "rehearsal"))
    refused(region, send(region.endpoint_url, guess), "SignatureDoesNotMatch")
    open_end = signed(region, X_Amz_Content_SHA256="UNSIGNED-PAYLOAD")
    refused(region, send(region.endpoint_url, open_end), "SignatureDoesNotMatch")
    refused(region, send(region.endpoint_url, signed(region, key=KNOWN)), "InvalidClientTokenId")


@pytest.mark.parametrize("minutes", [-16, -14, 14, 16])
def test_a_signature_lasts_a_quarter_of_an_hour(
    region: Region, monkeypatch: pytest.MonkeyPatch, minutes: float
) -> None:
    then = datetime.now(UTC).replace(tzinfo=None) + timedelta(minutes=minutes)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *ignored, **also: then)
    answer = send(region.endpoint_url, signed(region))
    if abs(minutes) < 15:
        assert answer[0] == 200
    else:
        refused(region, answer, "Signature expired")


def test_a_session_token_is_signed_like_all_else(region: Region) -> None:
    assert send(region.endpoint_url, signed(region, X_Amz_Security_Token="any"))[0] == 200


@pytest.mark.parametrize(
    "sender",
    [
        {"Origin": "http://127.0.0.1:{port}"},
        {"Origin": "null"},
        {"Host": "localhost:{port}"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1"},
    ],
)
def test_a_browser_is_refused_even_with_a_signature(region: Region, sender: dict[str, str]) -> None:
    port = str(urlsplit(region.endpoint_url).port)
    odd = {name: value.replace("{port}", port) for name, value in sender.items()}
    host = {"Host": odd["Host"]} if "Host" in odd else {}
    refused(region, send(region.endpoint_url, {**signed(region, **host), **odd}), "AccessDenied")
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization", **odd}
    refused(region, send(region.endpoint_url, preflight, method="OPTIONS"), "AccessDenied")
    status, text, _ = send(region.endpoint_url, {"X-Region-Token": region._token, **odd}, path="/_region/stop")
    assert status == 403 and not region.wait_until_stopped(0), text


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("path", ["/moto-api/reset", "/moto-api/data.json", "/latest/meta-data/", "/ec2_us-east-1/x"])
def test_motos_own_pages_are_shut_to_the_owner_as_well(region: Region, method: str, path: str) -> None:
    refused(region, send(region.endpoint_url, {}, method=method, path=path), "")
    refused(region, send(region.endpoint_url, signed(region, path=path), method=method, path=path), "")


@pytest.mark.parametrize("token", [{}, {"X-Region-Token": "0" * 32}, {"X-Region-Token": "\xe9"}])
def test_the_regions_record_is_for_who_can_read_its_folder(region: Region, token: dict[str, str]) -> None:
    for page in ("calls", "inventory", "faults", "ping", "nothing"):
        assert send(region.endpoint_url, token, method="GET", path=f"/_region/{page}")[:2] == (403, "")
    for page in ("faults", "stop"):
        assert send(region.endpoint_url, token, '{"faults": ["no-banner"]}', path=f"/_region/{page}")[0] == 403
    assert region.faults.texts() == [] and not region.wait_until_stopped(0)


def test_a_request_that_is_too_long_or_of_no_length_is_not_read(region: Region) -> None:
    for length in (str(1 << 40), "-1", "x"):
        link = http.client.HTTPConnection(urlsplit(region.endpoint_url).netloc, timeout=20)
        with contextlib.closing(link):
            link.putrequest("POST", "/")
            link.putheader("Content-Length", length)
            link.endheaders()
            assert link.getresponse().status == 413
    assert region.calls() == []


_heads = st.text(max_size=200) | st.from_regex(signature._SIGNED, fullmatch=True)
_heads |= st.builds(
    "AWS4-HMAC-SHA256 Credential={}/{}/us-east-1/ec2/aws4_request, SignedHeaders={}, Signature={}".format,
    st.just(KNOWN[0]),
    st.from_regex(r"[0-9]{8}", fullmatch=True),
    st.sampled_from(["host;x-amz-date", "x-amz-date;host", "host", "host;x-amz-date;x-amz-date", "host;x-amz-date;x"]),
    st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
)


@given(header=_heads, stamp=st.text(max_size=20) | st.from_regex(r"\A\d{8}T\d{6}Z\Z"), body=st.binary(max_size=50))
def test_no_header_gets_in_or_breaks_it(header: str, stamp: str, body: bytes) -> None:
    asked = {"REQUEST_METHOD": "POST", "RAW_URI": "/", "HTTP_HOST": "127.0.0.1:1", "HTTP_AUTHORIZATION": header}
    with pytest.raises(ApiError):
        signature.check({**asked, "HTTP_X_AMZ_DATE": stamp}, body, KNOWN)


# -- a machine's own port ----------------------------------------------------------------------------------------------


def test_a_machines_port_answers_its_own_programs_alone(account: Any) -> None:
    instance = account.launch()
    said = account.run(instance, "echo $AWS_EC2_METADATA_SERVICE_ENDPOINT; systemctl is-active none")[1].decode()
    url = said.split()[0]
    secret, own = urlsplit(url).path, {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    assert said.split()[1:] == ["inactive"] and re.fullmatch("/[0-9a-f]{32}", secret)
    assert send(url, own, method="PUT", path=f"{secret}/latest/api/token")[0] == 200
    for place in ("", f"/{'0' * 32}", secret[:-1], "//", "/%C3%A9"):
        assert send(url, own, method="PUT", path=f"{place}/latest/api/token")[:2] == (403, "")
        assert send(url, {}, method="GET", path=f"{place}/latest/user-data")[:2] == (403, "")
        assert send(url, {"X-Machine": secret[1:]}, "poweroff", path=f"{place}/systemctl")[:2] == (403, "")
    for sender in ({"Origin": "null"}, {"Host": "localhost"}, {"Host": f"evil.example:{urlsplit(url).port}"}):
        assert send(url, {**own, **sender}, method="PUT", path=f"{secret}/latest/api/token")[:2] == (403, "")
        assert send(url, sender, "poweroff", path=f"{secret}/systemctl")[:2] == (403, "")
    assert account.look(instance)["State"]["Name"] == "running"

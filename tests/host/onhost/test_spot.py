"""A spot instance that EC2 takes back: the job is told in time, and its end is on the disk before the machine goes."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.host.onhost.conftest import wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="spot instances are Linux machines")

SAVES = """\
import os, signal, sys, time
def save(*_):
    open(os.path.join(os.environ["CLOUDTRAIN_OUT"], "saved"), "w").write("all of it")
    print("saved", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""
DEAF = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(600)\n"
)


class Metadata(ThreadingHTTPServer):
    """The metadata service of one machine, IMDSv2 alone; `pages` are below meta-data/."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.pages: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []
        self.broken = False
        self.ahead = 0.0  # of the host's clock, in seconds
        self.token = "t0"
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def announce(self, seconds: float) -> float:
        ends = float(int(time.time() + self.ahead + seconds))
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends))
        self.pages["spot/instance-action"] = json.dumps({"action": "terminate", "time": at})
        return ends


class Page(BaseHTTPRequestHandler):
    server: Metadata

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(time.time() + self.server.ahead)

    def answer(self, status: int, text: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_PUT(self) -> None:
        self.server.asked.append(("PUT", self.path))
        if self.server.broken:
            return self.answer(503)
        good = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        return self.answer(200 if good else 400, self.server.token)

    def do_GET(self) -> None:
        self.server.asked.append(("GET", self.path))
        if self.server.broken or self.headers["X-aws-ec2-metadata-token"] != self.server.token:
            return self.answer(503 if self.server.broken else 401)
        text = self.server.pages.get(self.path.removeprefix("/latest/meta-data/"))
        return self.answer(404) if text is None else self.answer(200, text)


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    """The service that the host's supervisors ask; a proxy of the user's is in its way."""
    server = Metadata()
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    yield server
    server.shutdown()
    server.server_close()
    server.thread.join()


def notices(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.splitlines() if line.startswith(b'{"k": "notice"')]


def test_the_job_is_told_saves_and_its_end_says_spot(host: Any, metadata: Metadata) -> None:
    host.start(SAVES, spot=True)
    host.wait_for_log(b"ready")
    assert host.poll()["stop"] is None and not (host.run_dir() / "notice.json").exists()
    ends = metadata.announce(60)
    record = host.finished()
    assert (record["code"], record["stop"]) == (143, "spot") and record["at"] < ends - 20
    assert record["log_sha256"] == hashlib.sha256(host.log()).hexdigest() and host.log().endswith(b"saved\n")
    manifest = json.loads((host.run_dir() / "out" / "MANIFEST.json").read_bytes())
    assert [entry["name"] for entry in manifest["files"]] == ["saved"]
    stop = json.loads((host.run_dir() / "stop.json").read_bytes())
    assert stop["reason"] == "spot" and 30 < stop["grace"] < 55
    assert host.poll()["stop"] == "spot"
    (told,) = notices(host.call("follow").stdout)
    assert told == {"k": "notice", "kind": "spot", "t": told["t"], "ends": ends}
    assert (host.run_dir() / "supervisor.log").read_bytes() == b""
    host.nothing_left()


def test_a_job_that_does_not_listen_is_killed_before_the_machine_goes(host: Any, metadata: Metadata) -> None:
    ends = metadata.announce(9)
    host.start(DEAF, spot=True)
    record = host.finished()
    assert (record["code"], record["stop"]) == (-9, "spot")
    assert ends - 5 < record["at"] < ends
    assert (host.run_dir() / "out" / "MANIFEST.json").exists()
    host.nothing_left()


def test_a_notice_whose_time_is_over_leaves_the_job_a_moment(host: Any, metadata: Metadata) -> None:
    """A checkpoint is worth two seconds."""
    metadata.announce(-600)
    host.start(SAVES, spot=True)
    assert (host.finished()["code"], host.poll()["stop"]) == (143, "spot")


@pytest.mark.parametrize("ahead", [-7200.0, 7200.0])
def test_a_host_whose_clock_is_wrong_has_the_time_that_the_service_says(
    host: Any, metadata: Metadata, ahead: float
) -> None:
    metadata.ahead = ahead
    metadata.announce(60)
    host.start(SAVES, spot=True)
    assert host.finished()["code"] == 143
    assert 30 < json.loads((host.run_dir() / "stop.json").read_bytes())["grace"] < 55


@pytest.mark.parametrize("text", ['{"action": "terminate", "time": "soon"}', '{"action": "terminate"}'])
def test_a_notice_without_a_time_counts(host: Any, metadata: Metadata, text: str) -> None:
    metadata.pages["spot/instance-action"] = text
    host.start(SAVES, spot=True)
    assert host.finished()["stop"] == "spot"
    (told,) = notices(host.call("follow").stdout)
    assert told["ends"] is None


def test_the_first_reason_stands_and_the_machines_end_bounds_its_grace(host: Any, metadata: Metadata) -> None:
    host.start(DEAF, spot=True)
    host.wait_for_log(b"ready")
    asked = threading.Thread(target=host.ask, args=("stop", "--reason", "user", "--grace", "600"))
    asked.start()
    wait_until((host.run_dir() / "stop.json").exists, "stop.json")
    ends = metadata.announce(9)
    record = host.finished()
    assert (record["code"], record["stop"]) == (-9, "user") and record["at"] < ends
    asked.join(60)
    assert not asked.is_alive()


def test_advice_to_move_is_told_and_nothing_else(host: Any, metadata: Metadata) -> None:
    metadata.pages["events/recommendations/rebalance"] = '{"noticeTime": "2026-11-23T08:22:00Z"}'
    host.start(SAVES, spot=True)
    wait_until((host.run_dir() / "notice.json").exists, "notice.json")
    time.sleep(1)
    assert host.poll()["state"] == "running" and host.poll()["stop"] is None
    metadata.announce(60)
    assert host.finished()["stop"] == "spot"
    assert [told["kind"] for told in notices(host.call("follow").stdout)] == ["spot"]


def test_a_token_that_has_expired_is_fetched_anew(host: Any, metadata: Metadata) -> None:
    host.start(SAVES, spot=True)
    wait_until(lambda: len(metadata.asked) >= 3, "the first look")
    metadata.token = "t1"
    metadata.announce(60)
    assert host.finished()["stop"] == "spot"
    assert [method for method, _ in metadata.asked].count("PUT") == 2


def test_a_service_that_fails_is_silent_and_asked_again(host: Any, metadata: Metadata) -> None:
    metadata.broken = True
    host.start(SAVES, spot=True)
    wait_until(lambda: len(metadata.asked) >= 2, "it was asked again")
    assert host.poll()["state"] == "running"
    assert (host.run_dir() / "supervisor.log").read_bytes() == b""
    metadata.broken = False
    metadata.announce(60)
    assert host.finished()["stop"] == "spot"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "http://[bad"])
def test_without_a_service_the_job_just_runs(host: Any, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
    host.start("import time\ntime.sleep(1)\nprint('done')\n", spot=True)
    assert (host.finished()["code"], host.log()) == (0, b"done\n")
    assert (host.run_dir() / "supervisor.log").read_bytes() == b""
    host.nothing_left()


def test_only_a_spot_run_asks(host: Any, metadata: Metadata) -> None:
    metadata.announce(60)
    host.start("import time\ntime.sleep(1)\n")
    assert host.finished()["stop"] is None and metadata.asked == []


def test_spot_is_a_yes_or_no(host: Any) -> None:
    assert host.ask("start", stdin=host.spec("print()", spot="yes"))["code"] == "bad_spec"

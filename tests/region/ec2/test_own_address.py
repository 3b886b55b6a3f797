"""This computer's own address behind a proxy: asked directly first, and with the bundle of certificates that is set."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cloudtrain.provider.ec2 import network


@pytest.fixture
def says() -> Iterator[Callable[[str], str]]:
    """Opens a server that answers every question with this text; its URL."""
    with ExitStack() as stack:

        def make(text: str) -> str:
            class Answer(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(text.encode())

                def log_message(self, *args: object) -> None:
                    pass

            server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield make


@pytest.fixture(autouse=True)
def usual(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_the_proxy_is_asked_only_where_there_is_no_other_way(
    says: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    direct, proxy = says("198.51.100.7\n"), says("203.0.113.7\n")
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.setenv("http_proxy", proxy)
    assert network.ask_address(direct) == "198.51.100.7"
    assert network.ask_address("http://nowhere.invalid/") == "203.0.113.7"


def test_without_a_proxy_no_answer_is_an_error() -> None:
    with pytest.raises(OSError):
        network.ask_address("http://127.0.0.1:9/", timeout=2)


def test_the_bundle_of_certificates_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(OSError):
        network.ask_address("https://127.0.0.1:9/", timeout=2)
    asked = []
    real = network.ssl.create_default_context
    monkeypatch.setattr(network.ssl, "create_default_context", lambda cafile=None: asked.append(cafile) or real())
    with pytest.raises(OSError):
        network.ask_address("https://127.0.0.1:9/", timeout=2)
    assert asked == [str(tmp_path / "none.pem")]

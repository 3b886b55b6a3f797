"""The address book of one machine on loopback: instance metadata (IMDSv2), and where its `systemctl` calls.

On EC2 only the machine itself reaches it. Here its address has a secret that only the machine's programs are told.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cloudtrain.emulator.machine.systemd import Answer


@dataclass(eq=False)
class MetadataService:
    """One HTTP server per machine; asks for a session token as IMDSv2 does.

    Args:
        pages: what there is to read now, by path below `/latest/`; a page that is absent answers 404.
        systemctl: what the machine's init system answers.
        tokens_required: whether reading without a token is refused (`HttpTokens=required`).
    """

    pages: Callable[[], Mapping[str, str]]
    systemctl: Callable[[list[str]], Answer]
    tokens_required: Callable[[], bool]

    def __post_init__(self) -> None:
        self._tokens: dict[str, float] = {}
        self._server: asyncio.Server | None = None
        self._requests: set[asyncio.Task[None]] = set()
        self.secret = secrets.token_hex(16)
        self.port = 0

    async def open(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            self._server = None

    @property
    def url(self) -> str:
        """Base address, for `AWS_EC2_METADATA_SERVICE_ENDPOINT`."""
        return f"http://127.0.0.1:{self.port}/{self.secret}"

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Closed by a callback: a task that is cancelled before it begins gets to no `finally` of its own.
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)
        task.add_done_callback(lambda _: writer.close())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(
            ConnectionError, TimeoutError, asyncio.IncompleteReadError, ValueError, asyncio.LimitOverrunError
        ):
            async with asyncio.timeout(20):
                await self._exchange(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:])}
        length = int(headers.get("content-length", "0"))
        body = await reader.readexactly(length) if 0 < length <= 1 << 20 else b""
        status, text = self._answer(method, path.partition("?")[0], headers, body)
        payload = text.encode()
        writer.write(f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nConnection: close\r\n".encode())
        writer.write(f"Content-Length: {len(payload)}\r\n\r\n".encode() + payload)
        await writer.drain()

    def _answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[str, str]:
        secret, _, page = path.removeprefix("/").partition("/")
        path = f"/{page}"
        known = secrets.compare_digest(secret.encode(), self.secret.encode())
        if not known or "origin" in headers or headers.get("host") != f"127.0.0.1:{self.port}":
            return "403 Forbidden", ""
        if (method, path) == ("POST", "/systemctl"):
            code, text = self.systemctl(body.decode().split("\0"))
            return "200 OK", f"{code}\n{text}"
        if (method, path) == ("PUT", "/latest/api/token"):
            seconds = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
            if not seconds.isdigit() or not 1 <= int(seconds) <= 21600:
                return "400 Bad Request", ""
            fresh = secrets.token_urlsafe(32)
            self._tokens[fresh] = time.monotonic() + int(seconds)
            return "200 OK", fresh
        if method != "GET":
            return "405 Method Not Allowed", ""
        token = headers.get("x-aws-ec2-metadata-token")
        if (token is None and self.tokens_required()) or (
            token is not None and self._tokens.get(token, 0) < time.monotonic()
        ):
            return "401 Unauthorized", ""
        return self._page(path)

    def _page(self, path: str) -> tuple[str, str]:
        pages = self.pages()
        name = path.removeprefix("/latest/").rstrip("/")
        if name in pages:
            return "200 OK", pages[name]
        below = sorted({page[len(name) + 1 :].split("/")[0] for page in pages if page.startswith(f"{name}/")})
        return ("200 OK", "\n".join(below)) if below else ("404 Not Found", "")

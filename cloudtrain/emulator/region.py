"""An emulated EC2 region as a context manager: the API on a loopback port, the machines, and the record of it all."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from cloudtrain.core.disk import private_dir, write_durably
from cloudtrain.emulator import faults
from cloudtrain.emulator.aws import catalogue, signature
from cloudtrain.emulator.aws.core import Core, TimedLifecycle, Timing
from cloudtrain.emulator.service import client_environment, sweep

T = TypeVar("T")
_accounts = itertools.count(123456789012)


@dataclass(frozen=True, slots=True)
class MachineView:
    """A machine as a test wants to see it.

    Attributes:
        address, port: where its sshd listens; None while it is down.
        host_key: ed25519 public host key on its disk, OpenSSH format, or None.
        root: the folder that is its disk.
        timers: unix times at which its active timers elapse.
    """

    id: str
    state: str
    address: str | None
    port: int | None
    host_key: str | None
    root: Path
    timers: Mapping[str, float]
    console: str


class Region:
    """One region. Only its folder and loopback ports are touched; leaving the context ends every machine and port.

    Args:
        folder: where machines and the record live; what a dead region left there is swept first.
        script: faults from the start (`faults.describe()`).
        timing: how long things take.
        quotas: vCPUs by quota code, over the defaults.
        data: folder told to sessions as `CLOUDTRAIN_DATA`.
        name: AWS Region of `environment()`; every Region answers.

    Attributes:
        access_key: id and secret that its clients sign with; nothing else is answered.
    """

    def __init__(
        self,
        folder: Path,
        *,
        script: Iterable[str] = (),
        timing: Timing | None = None,
        quotas: Mapping[str, float] | None = None,
        data: Path | None = None,
        name: str = "us-east-1",
    ) -> None:
        self.folder = Path(folder).absolute()
        self.faults = faults.Faults(script)
        self.name = name
        self._timing = timing or Timing()
        self._quotas = {q.code: q.vcpus for q in catalogue.QUOTAS} | dict(quotas or {})
        self._extra = {"CLOUDTRAIN_DATA": str(data)} if data else {}
        self._token = secrets.token_hex(16)
        self.access_key = signature.new_key()
        self.account = str(next(_accounts))
        self.endpoint_url = ""
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        from cloudtrain.emulator import loading

        loading.share()
        from moto.moto_server import werkzeug_app as moto_server
        from werkzeug.serving import make_server

        from cloudtrain.emulator.aws import account, models, state
        from cloudtrain.emulator.aws.api import Api

        self._record, self._state = account, state

        private_dir(self.folder).chmod(0o700)
        sweep(self.folder)
        models.patch()
        self._loop = asyncio.new_event_loop()
        self._loop_thread = threading.Thread(target=self._loop.run_forever, name="machines", daemon=True)
        self._loop_thread.start()
        mark = secrets.token_hex(8)
        self.core = Core(
            folder=self.folder,
            account=self.account,
            mark=mark,
            faults=self.faults,
            timing=self._timing,
            quotas=self._quotas,
            extra=self._extra,
            loop=self._loop,
            opened=time.monotonic(),
        )
        self.core.lives = TimedLifecycle(self.core, self._save)
        self._apply_quota_fault()
        state.REGIONS[self.account] = self.core
        # moto would let every web page ask it, and read the answers.
        moto_server.DISABLE_GLOBAL_CORS = True
        inner = moto_server.DomainDispatcherApplication(moto_server.create_backend_app)
        self.api = Api(self.core, inner, self._pages(), self._token, self.access_key)
        reader = _quiet(moto_server.MotoRequestHandler)
        self._server = make_server("127.0.0.1", 0, self.api, threaded=True, request_handler=reader)
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        self._connections = _Connections(self._server)
        self._server_thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="api", daemon=True
        )
        self._server_thread.start()
        self.endpoint_url = f"http://127.0.0.1:{self._server.server_port}"
        self._save()
        told = {"pid": os.getpid(), "endpoint_url": self.endpoint_url, "mark": mark, "name": self.name}
        # The file is this user's alone (mode 0600), and so are token and key.
        self._write("region.json", {**told, "token": self._token, "access_key": self.access_key})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server_thread.join(10)
        self._server.server_close()
        self._connections.close()
        self.wait_for(self.core.lives.close())
        self.wait_for(_end_the_rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._loop_thread.join(10)
        self._loop.close()
        self._state.REGIONS.pop(self.account, None)
        self._record.forget(self.account)
        shutil.rmtree(self.folder / "machines", ignore_errors=True)
        (self.folder / "region.json").unlink(missing_ok=True)

    def environment(self) -> dict[str, str]:
        """What a client of this region needs in its environment."""
        return client_environment(self.endpoint_url, self.name, self.access_key)

    def calls(self, action: str | None = None) -> list[dict[str, Any]]:
        """Every AWS call so far, or those of one action: the fields of `api.Call`."""
        return [call for call in self.api.recorded() if action in (None, call["action"])]

    def inject(self, *script: str) -> None:
        """Put further faults in force.

        Raises:
            UsageError: one is not a fault.
        """
        self.faults.add(*script)
        self._apply_quota_fault()

    def machines(self) -> dict[str, MachineView]:
        """Every machine by instance id."""
        from moto.ec2.models import ec2_backends

        states = {
            i.id: i.state for backend in list(ec2_backends[self.account].values()) for i in backend.all_instances()
        }
        found = {}
        for key, machine in list(self.core.lives.machines.items()):
            keys = [k for k in machine.host_keys() if k.startswith("ssh-ed25519")]
            found[key] = MachineView(
                id=key,
                state=states.get(key, "forgotten"),
                address=machine.sshd.address if machine.sshd else None,
                port=machine.sshd.port if machine.sshd else None,
                host_key=keys[0] if keys else None,
                root=machine.root,
                timers=machine.systemd.timers(),
                console=machine.console,
            )
        return found

    def inventory(self) -> dict[str, list[dict[str, Any]]]:
        """What exists and would cost money or clutter the account; all lists empty means nothing is left."""
        with self.core.lock:
            return self._record.inventory(self.account)

    def histories(self) -> list[dict[str, Any]]:
        """See `account.histories`."""
        with self.core.lock:
            return self._record.histories(self.account)

    @property
    def idle_for(self) -> float:
        """Seconds since the last AWS call; 0 while an instance lives."""
        return 0.0 if self.inventory()["instances"] else time.monotonic() - self.api.last_call

    @property
    def quiet_for(self) -> float:
        """Seconds since the last AWS call."""
        return time.monotonic() - self.api.last_call

    def wait_until_stopped(self, timeout: float) -> bool:
        """Wait for `POST /_region/stop`."""
        return self._stopping.wait(timeout)

    def wait_for(self, work: Coroutine[Any, Any, T], timeout: float = 60.0) -> T:
        """Run `work` in the machines' event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def _apply_quota_fault(self) -> None:
        fault = self.faults.find("quota")
        if fault is not None:
            self._quotas.update({q.code: fault.number(0, 0) for q in catalogue.QUOTAS if q.families})

    def _pages(self) -> dict[tuple[str, str], Callable[[bytes], Any]]:
        def replace(body: bytes) -> dict[str, Any]:
            self.faults.replace([str(text) for text in json.loads(body)["faults"]])
            self._apply_quota_fault()
            return {"faults": self.faults.texts()}

        def stop(body: bytes) -> dict[str, Any]:
            self._stopping.set()
            return {"stopping": True}

        return {
            ("GET", "calls"): lambda body: self.api.recorded(),
            ("GET", "inventory"): lambda body: self.inventory(),
            ("GET", "histories"): lambda body: self.histories(),
            ("GET", "faults"): lambda body: {
                "faults": self.faults.texts(),
                "language": [row[:2] for row in faults.describe()],
            },
            ("GET", "ping"): lambda body: {"pid": os.getpid()},
            ("POST", "faults"): replace,
            ("POST", "stop"): stop,
        }

    def _save(self) -> None:
        """Write the inventory down, for whoever looks after this process has died."""
        with contextlib.suppress(OSError), self.core.lock:
            self._write("inventory.json", self.inventory())

    def _write(self, name: str, value: Any) -> None:
        write_durably(self.folder / name, json.dumps(value, indent=1, default=str).encode())


class _Connections:
    """The open connections of a server, whose threads nobody joins: a caller may keep one for its next call."""

    def __init__(self, server: Any) -> None:
        self._open: set[Any] = set()
        self._lock = threading.Lock()
        begin, end = server.process_request, server.shutdown_request

        def process(request: Any, address: Any) -> None:
            with self._lock:
                self._open.add(request)
            begin(request, address)

        def shut(request: Any) -> None:
            with self._lock:
                self._open.discard(request)
            end(request)

        server.process_request, server.shutdown_request = process, shut

    def close(self) -> None:
        """End those that are still open."""
        with self._lock:
            left, self._open = self._open, set()
        for request in left:
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)
            request.close()


def _quiet(reader: type[Any]) -> type[Any]:
    """moto's request reader, without a line on stderr for each call."""

    class Quiet(reader):  # type: ignore[misc]
        _headers_buffer: list[bytes]

        def log(self, type: str, message: str, *args: Any) -> None:
            pass

        def connection_dropped(self, error: BaseException, environ: Any = None) -> None:
            # An answer that is lost ends its connection: kept open, the caller would wait for its own time limit.
            self.close_connection = True

        def send_header(self, keyword: str, value: str) -> None:
            if keyword == "Date":
                # The server writes its own first; the one of the answer stands.
                self._headers_buffer = [line for line in self._headers_buffer if not line.startswith(b"Date:")]
            super().send_header(keyword, value)

    return Quiet


async def _end_the_rest() -> None:
    """End what still goes on in this event loop, a request to a machine that is gone, say, so that all is closed."""
    for _ in range(3):
        await _some_turns()  # in which tasks begin for connections that were just accepted
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest, timeout=2)
    await _some_turns()  # in which what was closed goes


async def _some_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0.002)

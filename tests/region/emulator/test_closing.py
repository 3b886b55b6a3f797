"""What a region leaves open when it closes: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from cloudtrain.emulator.aws.core import Timing
from cloudtrain.emulator.faults import Faults
from cloudtrain.emulator.machine.metadata import MetadataService
from cloudtrain.emulator.machine.sshd import SshServer
from cloudtrain.emulator.machine.systemd import end_tasks
from cloudtrain.emulator.region import Region


def hang(folder: Path) -> socket.socket:
    """Begin a request to a machine's address book, and close the region over it."""
    with contextlib.ExitStack() as stack:
        region = stack.enter_context(Region(folder, timing=Timing(pending_s=0.1)))
        pages = MetadataService(dict, lambda words: (0, ""), tokens_required=lambda: True)
        region.wait_for(pages.open())
        stack.callback(lambda: region.wait_for(pages.close()))
        caller = socket.create_connection(("127.0.0.1", pages.port), timeout=5)
        caller.sendall(b"GET /latest/meta-data/ HTTP/1.1\r\n")  # and nothing more
        deadline = time.monotonic() + 20
        while not pages._requests and time.monotonic() < deadline:
            time.sleep(0.01)
    return caller


@contextlib.contextmanager
def nothing_left_open() -> Iterator[None]:
    gc.collect()  # what others have left is not ours
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert not [str(one.message) for one in told if issubclass(one.category, ResourceWarning)]


def test_a_request_that_hangs_is_closed_with_its_region(tmp_path: Path) -> None:
    with nothing_left_open():
        hang(tmp_path).close()


async def knock(folder: Path, faults: Faults, *, admitted: bool, moments: int) -> None:
    """Close an SSH server so many turns of the loop after it accepted a connection."""
    server = SshServer(
        "127.0.0.1",
        root=folder,
        environment=lambda user, home: {},
        prefix=list,
        admits=lambda address: admitted,
        faults=faults,
    )
    (folder / "etc" / "ssh").mkdir(parents=True, exist_ok=True)
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(folder / "etc" / "ssh" / "ssh_host_ed25519_key")
    server.open()
    with socket.create_connection((server.address, server.port), timeout=5) as caller:
        while not server._tasks:
            await asyncio.sleep(0)
        for _ in range(moments):
            await asyncio.sleep(0)
        await server.close()
        caller.setblocking(False)
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionResetError):
                while await asyncio.get_running_loop().sock_recv(caller, 4096):
                    pass


@pytest.mark.parametrize(
    ("faults", "admitted"), [((), True), (("freeze:30",), True), (("no-banner",), True), ((), False)]
)
def test_a_login_that_just_began_is_closed_with_its_machine(
    faults: tuple[str, ...], admitted: bool, tmp_path: Path
) -> None:
    with nothing_left_open():  # half a second each time: once for all moments
        for moments in range(6):
            asyncio.run(knock(tmp_path, Faults(faults), admitted=admitted, moments=moments))


def test_a_task_that_has_lost_a_cancellation_is_told_again() -> None:
    async def deaf_once() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)
        await asyncio.sleep(600)

    async def play() -> bool:
        task = asyncio.create_task(deaf_once())
        await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await end_tasks([task])
        return task.cancelled()

    assert asyncio.run(play())

"""What a region leaves open when it closes: nothing."""

from __future__ import annotations

import contextlib
import gc
import socket
import time
import warnings
from pathlib import Path

from cloudtrain.emulator.core import Timing
from cloudtrain.emulator.metadata import MetadataService
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


def test_a_request_that_hangs_is_closed_with_its_region(tmp_path: Path) -> None:
    gc.collect()  # what others have left is not ours
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        hang(tmp_path).close()
        gc.collect()
    assert not [str(one.message) for one in told if issubclass(one.category, ResourceWarning)]

"""A sign of life where nothing is redrawn: whoever reads a pipe must see that a quiet minute is no hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pulse:
    """Calls `beat` whenever nothing was said for `every_s` seconds, on a thread of its own, until it answers False.

    Args:
        beat: says something if there is something to wait for, and whether there is.
    """

    def __init__(self, beat: Callable[[], bool], every_s: float) -> None:
        self._beat, self._every_s = beat, every_s
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._due = 0.0
        self._times = 0
        self._stopped = False

    def said(self) -> None:
        """Something was said just now; it begins to count, or begins anew."""
        with self._change:
            self._due = time.monotonic() + self._every_s
            self._times += 1
            self._stopped = False
            if self._thread is None:
                # It must not keep a command alive that has nothing more to do.
                self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Nothing is waited for any more. Returns once the thread has ended, unless it is the caller."""
        with self._change:
            self._stopped = True
            thread = self._thread
            self._change.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)

    def _run(self) -> None:
        while True:
            with self._change:
                left = self._due - time.monotonic()
                if not self._stopped and left > 0:
                    self._change.wait(left)
                    continue
                if self._stopped:
                    self._thread = None
                    return
                self._due = time.monotonic() + self._every_s
                times = self._times
            if not self._beat():
                with self._change:
                    if times == self._times:  # else something began meanwhile
                        self._thread = None
                        return

"""What all modules of the program share: late imports, refusals, and limits."""

from __future__ import annotations

import errno
import sys
import time

TYPE_CHECKING = False  # What `typing` has by this name, without the import of it.
if TYPE_CHECKING:
    from typing import Any, Dict, Optional

LINUX = sys.platform.startswith("linux")
CHUNK = 256 * 1024
HEADER_LIMIT = 64 * 1024 * 1024
TREE_WAIT_S = 60.0
# A process in an uninterruptible system call survives SIGKILL until the call returns; nobody waits longer for it.
UNKILLABLE_S = 30.0
# Before a program: it runs in a scope of the user's own manager, which outlives the login where lingering is on.
IN_SCOPE = ["systemd-run", "--user", "--scope", "--quiet", "--"]


class Later:
    """A module that is imported when something of it is first used: most verbs need few, and each must start fast."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        value = getattr(__import__(self._name), name)
        setattr(self, name, value)
        return value


class Options:
    """The verb and its options, as attributes."""

    def __init__(self, verb: str, values: Dict[str, Any]) -> None:
        self.verb = verb
        self._values = values

    def __getattr__(self, name: str) -> Any:
        return self._values[name]


class Failure(Exception):
    """A refusal that the client can act on: `code` is stable, `message` is one line for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def uptime() -> float:
    """Seconds since this machine was started, those that it slept included. Its clock may be wrong; this is not."""
    for clock in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"):
        if hasattr(time, clock):
            return time.clock_gettime(getattr(time, clock))
    return time.monotonic()


def whole_number(text: str) -> Optional[int]:
    """The number that a foreign text is, None if it is none: what `isdigit` likes, `int` may refuse."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 13 else None


def from_os(error: OSError) -> Failure:
    """The failure that an operating system error means."""
    where = " (%s)" % error.filename if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Failure("disk_full", "the disk of the host is full%s" % where)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Failure("not_writable", "the host refuses access: %s%s" % (error.strerror, where))
    return Failure("host_error", "the host failed: %s%s" % (error.strerror or error, where))

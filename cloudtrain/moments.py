"""Points in time for people, by the clock and the calendar of this computer. All take unix seconds."""

from __future__ import annotations

import time


def time_of_day(at: float, now: float) -> str:
    """A moment ahead as a time of day, with its day where it is a day away or more."""
    return time.strftime("%H:%M" if at - now < 86400 else "%a %H:%M", time.localtime(at))


def date_and_time(at: float) -> str:
    """ "2026-11-23 15:04"."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))

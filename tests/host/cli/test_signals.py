"""A signal that asks a command to leave arrives, wherever it strikes."""

from __future__ import annotations

import gc
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from cloudtrain.cli import signals

CASES = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, signals.Leave)]


class Thing:
    """Something that can be collected."""


def in_a_weak_reference(strike: Callable[[], None]) -> None:
    thing = Thing()
    kept = weakref.ref(thing, lambda _: strike())
    del thing
    assert kept() is None


def in_a_collection(strike: Callable[[], None]) -> None:
    def deleted(_: Thing) -> None:
        strike()

    thing = type("Last", (), {"__del__": deleted})()
    thing.itself = thing
    del thing
    gc.collect()


def in_a_callback_of_the_collector(strike: Callable[[], None]) -> None:
    def called(phase: str, _: object) -> None:
        if phase == "stop":
            gc.callbacks.remove(called)
            strike()

    gc.callbacks.append(called)
    gc.collect()


def in_a_generator_that_is_dropped(strike: Callable[[], None]) -> None:
    def generator() -> Iterator[None]:
        try:
            yield
        finally:
            strike()

    next(begun := generator())
    del begun


DROPPED = [
    in_a_weak_reference,
    in_a_collection,
    in_a_callback_of_the_collector,
    in_a_generator_that_is_dropped,
]


@pytest.mark.parametrize(("number", "raised"), CASES, ids=["ctrl-c", "term"])
@pytest.mark.parametrize("where", DROPPED)
def test_a_signal_that_python_drops_comes_again(
    number: int, raised: type[BaseException], where: Callable[[Callable[[], None]], None]
) -> None:
    struck: list[float] = []

    def strike() -> None:
        struck.append(time.monotonic())
        signal.raise_signal(number)

    with signals.raised():
        where(strike)
        assert struck, "the signal was sent, and nobody has noticed"
        with pytest.raises(raised):
            threading.Event().wait(5)
    assert time.monotonic() - struck[0] < 4
    assert signal.getsignal(signal.SIGTERM) is not None


def test_other_exceptions_that_python_drops_are_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[BaseException] = []
    monkeypatch.setattr("sys.unraisablehook", lambda what: told.append(what.exc_value))

    def fail() -> None:
        raise ValueError("dropped")

    with signals.raised():
        in_a_weak_reference(fail)
    assert [str(error) for error in told] == ["dropped"]


def test_whoever_was_told_to_outlive_the_terminal_does() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.raised():
            signal.raise_signal(signal.SIGHUP)  # as after `nohup`
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)

"""Anything in any field of what hosts, jobs, accounts and damaged files say, through everything that reads or shows it.

`python -m tests.hostile 5000` tries so many inputs on each parser, of those that take longer so many fewer, and prints
the table of docs/hostile.md.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from cloudtrain.console.pages import failure
from cloudtrain.core.error_codes import CODES
from cloudtrain.core.errors import CloudtrainError
from tests.hostile import aws, folders, here, host, programs, pulled, runs
from tests.hostile.odd import no_escapes

PARSERS = {
    name: attack
    for subject in (host, runs, folders, pulled, aws, programs, here)
    for name, attack in subject.PARSERS.items()
}

MOST_SHOWN = 10_000
"""Characters of a failure's lines on a screen, whatever somebody said."""


def attacked(parser: str, inputs: int, *, fresh: bool = True) -> tuple[int, int]:
    """Try a parser with about `inputs`, or so many times fewer as they cost: how many that were, and how many failed
    otherwise than with a documented error.

    `fresh`: other inputs each time.
    """
    attack = PARSERS[parser]
    tried, failed = 0, 0

    @settings(
        max_examples=max(20, inputs // attack.costs),
        deadline=None,
        database=None,
        derandomize=not fresh,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(attack.inputs)
    def one(value: Any) -> None:
        nonlocal tried, failed
        tried += 1
        try:
            attack.tried(value)
        except CloudtrainError as error:
            assert error.code in CODES
            shown = "\n".join(failure.lines(error))
            no_escapes(shown)
            assert len(shown) < MOST_SHOWN, len(shown)
        except BaseException:
            failed += 1
            raise

    one()
    return tried, failed

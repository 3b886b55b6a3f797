"""What a row of the fault matrix declares, and the one judge of all of them: docs/faults.md is made from the same."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloudtrain.provider.ec2.tags import EXPIRES_AT, utc_seconds, utc_text
from tests.region.whole_path.test_story import sums_hold

if TYPE_CHECKING:
    from tests.region.faults.scene import Scene

TERMINATED = "terminated, nothing is billed any more"
NOTHING = "nothing is billed"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row, or one of several ways in which a row can be met.

    Attributes:
        row: number in the matrix; `way` tells cases of one row apart.
        fault: in a user's words. `how`: how the test produces it.
        script: faults that the region plays from the beginning of the case; each of them must have struck.
        own: the region is made for this case alone, because the fault is there before anything else.
        environment: of the commands, beside the usual one.
        hurried: the commands wait for less long than the product does (`tests/region/faults/hurried.py`), and do
            nothing else differently.
        play: what the user does, and what happens meanwhile.
        sees: what must stand on the screen, word for word. `code`: exit code of the last command.
        money: the sentence on the screen that says what is billed now.
        alive: words on the screen that say why an instance lives on; none: nothing at all is left in the account. Where
            one lives, the moment at which it ends by itself must be on the screen, too.
        mend: what the user does next about what is left; afterwards nothing is. `then`: the same for people.
        launches: how many launches took effect; one for each place that was asked at most.
        log: "whole": the log here is the host's, byte for byte; "part": it is the beginning of it; "any": the
            case says nothing about it; "": nothing has trained.
        also: tests of the same row at a lower level, as PATH::NAME.
        cap_s: it must be over by then.
    """

    row: int
    fault: str
    how: str
    play: Callable[[Scene], None]
    sees: tuple[str, ...]
    code: int
    money: str
    way: str = ""
    script: tuple[str, ...] = ()
    own: bool = False
    environment: tuple[tuple[str, str], ...] = ()
    hurried: bool = False
    alive: str = ""
    mend: Callable[[Scene], None] | None = None
    then: str = ""
    launches: int = 1
    log: str = "whole"
    also: tuple[str, ...] = ()
    cap_s: float = 120.0

    @property
    def id(self) -> str:
        """As the test is called."""
        return f"{self.row:02}{'-' if self.way else ''}{self.way.replace(' ', '-')}"


def judge(case: Case, scene: Scene) -> None:
    """Hold what happened against what the case declares.

    Raises:
        AssertionError: something is not as declared.
    """
    told = f"{case.id}: {{}}\n{scene.screen}"
    assert scene.unstruck() == [], told.format(f"the fault never struck: {scene.unstruck()}")
    assert scene.code == case.code, told.format(f"exit code {scene.code}, not {case.code}")
    for words in (*case.sees, case.money):
        assert words in scene.screen, told.format(f"not on the screen: {words!r}")
    if case.code in range(2, 8):
        errors = [line for line in scene.last.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and not errors[0].endswith("."), told.format(f"not one clear error: {errors}")
    if "nothing was created" in case.money:
        assert not scene.folder.exists(), told.format("a run that never was has a folder")
    live = scene.region.inventory()["instances"]
    if not case.alive:
        assert not any(scene.region.inventory().values()), told.format(scene.region.inventory())
    else:
        assert len(live) == 1, told.format(f"{len(live)} instances live")
        assert live[0]["tags"]["cloudtrain:managed"] == "true"
        assert case.alive in scene.screen, told.format(f"not on the screen: {case.alive!r}")
        ends = utc_seconds(live[0]["tags"][EXPIRES_AT])
        assert ends is not None
        known = (utc_text(ends), time.strftime("%H:%M", time.localtime(ends)))
        # A table of what is left says how long it still lives.
        shown = any(text in scene.screen for text in known) or re.search(r"  ends in \d+h \d\dm  ", scene.screen)
        assert shown, told.format(f"its end, {known}, is not on the screen")
    made = [call for call in scene.calls("RunInstances") if call["effect"]]
    assert len(made) == case.launches, told.format(f"{len(made)} launches took effect, not {case.launches}")
    tokens = [call["parameters"]["ClientToken"] for call in made]
    assert len(set(tokens)) == len(tokens), told.format("two launches of one attempt")
    scene.check_log(case.log)
    if case.log == "whole" and not case.alive:
        sums_hold(scene.folder)
    assert scene.seconds < case.cap_s, told.format(f"it took {scene.seconds:.0f} s")


def mend(case: Case, scene: Scene) -> None:
    """Do what the case says about what is left, and see that it is gone."""
    if case.mend is None:
        assert not case.alive, "a case that leaves an instance says what ends it"
        return
    scene.region.faults.replace([])
    case.mend(scene)
    assert not any(scene.region.inventory().values()), f"{case.id}: left for good: {scene.region.inventory()}"
    made = [call for call in scene.calls("RunInstances") if call["effect"]]
    assert len(made) == case.launches, f"{case.id}: mending launched something"

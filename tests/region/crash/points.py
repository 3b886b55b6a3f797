"""The crash points, what a command killed there leaves, and what ends it: read by the tests and by docs/faults.md."""

from __future__ import annotations

from dataclasses import dataclass

from cloudtrain.core.crash import POINTS

DONE = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One crash point, at one passage of it.

    Attributes:
        passage: which one; 1 where a launch comes there once.
        group, machine: whether a security group and an instance of the run are in the account.
        kept: whether `clean --yes` leaves the instance alone, since it may hold what exists nowhere else.
        judged: words of `clean` on the instance, or on the group where there is no instance; none: nothing is listed.
        command: the natural next command; RUN stands for the run's name.
        exit_code: of that command, which takes the run to its end.
    """

    point: str
    passage: int = 1
    group: bool = True
    machine: bool = True
    kept: bool = False
    judged: str = "its run never began to train"
    command: tuple[str, ...] = ("logs", "RUN")
    exit_code: int = DONE

    @property
    def name(self) -> str:
        """As `CLOUDTRAIN_CRASH_AT` has it."""
        return self.point if self.passage == 1 else f"{self.point}:{self.passage}"

    @property
    def done(self) -> str:
        """What had just happened, for people."""
        told = POINTS[self.point]
        return f"{told.done} ({told.passages[self.passage - 1]})" if told.passages else told.done

    @property
    def left(self) -> str:
        """What is in the account, for people."""
        if self.machine:
            return "1 instance with its lease, 1 security group"
        return "1 security group, which costs nothing" if self.group else "nothing"

    @property
    def settled(self) -> str:
        """What ends it, for people: `clean`, and the next command on the run."""
        going_on = f"`cloudtrain {' '.join(self.command)}` takes the run to its end, with one launch in all"
        if self.kept:
            return f"{going_on}; `clean` keeps it: {self.judged}"
        return f"{going_on}; `clean --yes` ends it" if self.group else going_on


CASES = (
    # No row yet: the same command once more begins anew.
    Case(point="K0", group=False, machine=False, judged="", command=("run", "--name", "RUN")),
    Case(point="K1", group=False, machine=False, judged=""),
    Case(point="K1", passage=2, machine=False, judged="no instance uses it"),
    Case(point="K2", machine=False, judged="no instance uses it"),
    Case(point="K3"),
    Case(point="K4"),
    Case(point="K5", command=("run", "--name", "RUN")),
    Case(point="K5", passage=2),
    Case(point="K6", kept=True, judged="is not pulled: cloudtrain pull"),
    Case(point="K6", passage=2, kept=True, judged="is not pulled: cloudtrain pull"),
    Case(point="K7", judged="its results are pulled", command=("pull", "RUN")),
    Case(point="K8", judged="its results are pulled", command=("stop", "RUN", "--yes")),
)
# The same of a takeover (`run --on`): what there is, is the machine of either run.
TAKEOVER = (
    Case(point="K9", kept=True, judged="kept until"),
    Case(point="K10", judged="its run never began to train"),
    Case(point="K11", judged="its run never began to train"),
)

"""The states of a run and of the instance under it, and the moves between them that are legal."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """Where a run is in its story (`lifecycle/story.py`). The last five are final."""

    PLANNED = "planned"
    PROVISIONING = "provisioning"
    BOOTING = "booting"
    SYNCING = "syncing"
    RUNNING = "running"
    PULLING = "pulling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"
    LOST = "lost"

    @property
    def final(self) -> bool:
        """Whether the story has ended."""
        return self in FINAL

    @property
    def trains(self) -> bool:
        """Whether training has begun and the story goes on: the job runs, or what it made is being pulled."""
        return self in (RunState.RUNNING, RunState.PULLING)


FINAL = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.STOPPED, RunState.INTERRUPTED, RunState.LOST})

# What ends the story may happen at any point of it; forward steps go one at a time. BOOTING goes back to PROVISIONING
# when an instance dies before it answers and the next zone is tried. A spot instance may be taken back as soon as there
# is one, and INTERRUPTED goes back to PROVISIONING when the run trains on, on another machine.
_ENDS = frozenset({RunState.FAILED, RunState.STOPPED, RunState.LOST, RunState.INTERRUPTED})
MOVES: dict[RunState, frozenset[RunState]] = {
    RunState.PLANNED: (frozenset({RunState.PROVISIONING}) | _ENDS) - {RunState.INTERRUPTED},
    RunState.PROVISIONING: frozenset({RunState.BOOTING}) | _ENDS,
    RunState.BOOTING: frozenset({RunState.SYNCING, RunState.PROVISIONING}) | _ENDS,
    RunState.SYNCING: frozenset({RunState.RUNNING}) | _ENDS,
    RunState.RUNNING: frozenset({RunState.PULLING}) | _ENDS,
    RunState.PULLING: frozenset({RunState.SUCCEEDED}) | _ENDS,
    RunState.SUCCEEDED: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.STOPPED: frozenset(),
    RunState.INTERRUPTED: frozenset({RunState.PROVISIONING}),
    RunState.LOST: frozenset(),
}


class InstanceLife(StrEnum):
    """What is known of the machine under a run; NONE for machines that cloudtrain does not own."""

    NONE = "none"
    LAUNCHING = "launching"
    RUNNING = "running"
    PARKED = "parked"
    TERMINATED = "terminated"

    @property
    def may_be_up(self) -> bool:
        """Whether there may be a machine that cloudtrain owns and that is billed by the hour: coming up, or up."""
        return self in (InstanceLife.LAUNCHING, InstanceLife.RUNNING)

    @property
    def may_exist(self) -> bool:
        """Whether there may be a machine that cloudtrain owns: coming up, up or parked."""
        return self.may_be_up or self is InstanceLife.PARKED


def may_move(old: RunState, new: RunState) -> bool:
    """Whether a run may go from `old` to `new`."""
    return new in MOVES[old]

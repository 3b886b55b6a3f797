"""Tier 1: which moves are legal."""

from __future__ import annotations

from itertools import pairwise

from cloudtrain.core.states import FINAL, MOVES, RunState, may_move


def test_every_state_has_its_moves_and_only_interrupted_leaves_an_end() -> None:
    assert set(MOVES) == set(RunState)
    for state in FINAL - {RunState.INTERRUPTED}:
        assert not MOVES[state]
    assert MOVES[RunState.INTERRUPTED] == {RunState.PROVISIONING}


def test_the_story_runs_forward_to_success() -> None:
    story = ["planned", "provisioning", "booting", "syncing", "running", "pulling", "succeeded"]
    assert all(may_move(RunState(a), RunState(b)) for a, b in pairwise(story))


def test_success_needs_the_pull() -> None:
    assert [state for state in RunState if may_move(state, RunState.SUCCEEDED)] == [RunState.PULLING]


def test_every_living_state_can_fail_stop_and_be_lost() -> None:
    for state in set(RunState) - FINAL:
        assert {RunState.FAILED, RunState.STOPPED, RunState.LOST} <= MOVES[state]

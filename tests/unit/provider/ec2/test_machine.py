"""What a wake can cost."""

from __future__ import annotations

from cloudtrain.provider.ec2.machine import told_of_wake


def test_what_a_wake_can_cost_is_said_before_it_costs() -> None:
    told = (
        "starting it at $0.526 an hour for 30 min at most, to fetch what its disk holds; at most $0.27 beyond the plan"
    )
    assert told_of_wake(0.526) == told
    assert "; at most $0.26 beyond" in told_of_wake(0.52)
    assert told_of_wake(None) == "starting it for 30 min at most, to fetch what its disk holds"

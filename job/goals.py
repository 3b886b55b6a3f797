"""What a run should reach, and whether it did."""

from __future__ import annotations

from typing import Any

TEST_ACCURACY = 99.4  # percent, of the last epoch: no picking on the test set
PARAMETERS = 8000  # fewer than
EPOCHS = 15  # at most

TEXTS = (f"test accuracy >= {TEST_ACCURACY} %", f"parameters < {PARAMETERS}", f"epochs <= {EPOCHS}")


def judge(test_accuracy: float | None, parameters: int, epochs: int) -> list[dict[str, Any]]:
    """Each goal with the value reached and `met`; `test_accuracy` None (no epoch done, or a subset) is not met."""
    values = (test_accuracy, parameters, epochs)
    met = (test_accuracy is not None and test_accuracy >= TEST_ACCURACY, parameters < PARAMETERS, epochs <= EPOCHS)
    return [
        {"goal": goal, "value": value, "met": reached} for goal, value, reached in zip(TEXTS, values, met, strict=True)
    ]

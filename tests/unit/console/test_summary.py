"""The last lines of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtrain.console.pages.summary import ending_lines
from cloudtrain.core.errors import ExitCode
from cloudtrain.core.states import RunState
from cloudtrain.run_folder.outcome import Result


@pytest.mark.parametrize(
    ("further", "told"),
    [({}, "the best epoch is picked on the test set"), ({"final_val_acc": 99.5}, "the test set was opened once")],
)
def test_where_the_best_epoch_was_picked_is_told(tmp_path: Path, further: dict[str, float], told: str) -> None:
    metrics = {"final_test_acc": 99.4, **further}
    result = Result(
        run="brave-otter", state=RunState.SUCCEEDED, exit_code=ExitCode.DONE, folder=tmp_path, metrics=metrics
    )
    (line,) = [line for line in ending_lines(result) if line.startswith("last ")]
    assert line == f"last     test accuracy 99.40 in the last epoch; {told}"

"""The lines of a plan, and the last ones of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.console.pages.summary import ending_lines, plan_lines
from cloudtrain.core.errors import ExitCode
from cloudtrain.core.plan import CodeSummary, OfferDetails, make_plan
from cloudtrain.core.spec import Ec2Spec, Target
from cloudtrain.core.states import RunState
from cloudtrain.run_folder.outcome import Result
from tests import plans


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


def test_the_plan_names_image_port_and_the_files_that_decided(tmp_path: Path) -> None:
    details = OfferDetails(image_id="ami-1", image_name="Deep Learning", image_owner="123456789012")
    file = str(tmp_path / "cloudtrain.toml")
    ec2 = Ec2Spec(region="us-east-1", ssh_cidr="0.0.0.0/0")
    spec = plans.spec(tmp_path, target=Target.EC2, ec2=ec2)
    plan = make_plan(spec, replace(plans.offer(0.5), details=details), CodeSummary(files=1, bytes=1))
    lines = plan_lines(replace(plan, origins={"ssh_cidr": file, "instance": file, "region": "/etc/x.toml"}))
    assert "  image    ami-1 of account 123456789012, Deep Learning" in lines
    assert "  ssh      open to 0.0.0.0/0" in lines
    assert f"  from     {file}: instance, ssh_cidr" in lines and "  from     /etc/x.toml: region" in lines
    changes: list[tuple[dict[str, Any], str]] = [
        ({"ssh_cidr": None}, "your address alone"),
        ({"security_group": "sg-1"}, "whoever sg-1 lets in"),
    ]
    for change, door in changes:
        other = replace(plan, spec=replace(spec, ec2=replace(ec2, **change)))
        assert f"  ssh      open to {door}" in plan_lines(other)
    tagged = replace(ec2, private_ip=True, tags={"team": "vision\x1b[2J", "cost": "42"})
    lines = plan_lines(replace(plan, spec=replace(spec, ec2=tagged)))
    assert "  ssh      at its private address, open to 0.0.0.0/0" in lines
    assert any(line.startswith("  tags     team=vision") and line.endswith(", cost=42") for line in lines)
    assert "\x1b" not in "".join(lines)
    existing = replace(plan, spec=replace(spec, ec2=replace(ec2, instance_id="i-1")))
    assert not [line for line in plan_lines(existing) if line.startswith(("  image", "  ssh"))]

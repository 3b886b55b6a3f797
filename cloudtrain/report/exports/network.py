"""ONNX and torch.export: the network is rebuilt by the run's own code, in a process of its own.

cloudtrain imports neither torch nor a training package. It gives `program.py` the folder of the code that the run ran
(its digest was checked) and the weights (their sha256 was checked), and takes over what that program has compared with
the original.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cloudtrain.core import disk
from cloudtrain.core.errors import CloudtrainError, UsageError
from cloudtrain.report.exports import Exported
from cloudtrain.report.facts import Facts
from cloudtrain.report.reading import mapping

LIMIT_S = 600.0
# Module -> what brings it, as pip wants it; pyproject.toml says the same in its extras.
PACKAGES = {
    "torch": "torch==2.13.0",
    "safetensors": "safetensors>=0.6",
    "numpy": "numpy>=2.0",
    "onnx": "onnx>=1.19",
    "onnxscript": "onnxscript>=0.5",
    "tensorboard": "tensorboard>=2.20",
}
NEEDS = {"pt2": ("torch", "safetensors", "numpy"), "onnx": ("torch", "safetensors", "numpy", "onnx", "onnxscript")}


def export(facts: Facts, to: str, folder: Path, which: str, code: Callable[[], Path]) -> Exported:
    """`model.onnx` or `model.pt2` in `folder`, compared with the original on pictures of its own making.

    Raises:
        UsageError: weights, code or a package are missing.
        CloudtrainError: it was not written, or what was written answers differently.
    """
    absent = [module for module in NEEDS[to] if importlib.util.find_spec(module) is None]
    if absent:
        raise missing(absent, f"--to {to} rebuilds the network on this computer")
    weights = verified_weights(facts, which)
    source = code()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=folder) as aside:
        made = Path(aside) / f"model.{to}"
        told = _run(
            {
                "root": str(source.parent),
                "package": str(facts.train.get("module", "")).partition(".")[0],
                "model": facts.settings.get("model", facts.train.get("model")),
                "weights": str(weights),
                "to": to,
                "out": str(made),
            },
            facts,
        )
        path = made.replace(folder / made.name)
    difference = told["difference"]
    compared = f"differ from the original's by {difference:.1g} at most" if difference else "are the original's"
    return Exported(path, f"weights of the {which} epoch; loaded back, its answers {compared}")


def verified_weights(facts: Facts, which: str) -> Path:
    """The weights of the best or the last epoch, whose sha256 is that of the receipt.

    Raises:
        UsageError: they are not here, or not what they were.
    """
    path = facts.weights(which)
    if path is None:
        raise UsageError(
            f"{facts.name} has no weights of the {which} epoch here",
            hint=f"cloudtrain pull {facts.name}",
            consequence="nothing was written",
            code="no_weights",
        )
    if disk.sha256(path) != facts.artifacts[f"weights/{which}.safetensors"]:
        raise UsageError(
            f"the weights {path} are not those that the run left: their sha256 is another one",
            hint=f"cloudtrain pull {facts.name} fetches them again where its machine is still there",
            consequence="nothing was written",
            code="verify_failed",
        )
    return path


def missing(modules: Sequence[str], why: str) -> UsageError:
    """That packages are missing on this computer, with the command that brings them."""
    wanted = " ".join(f'"{PACKAGES[module]}"' for module in modules)
    return UsageError(
        f"{' and '.join(modules)} {'is' if len(modules) == 1 else 'are'} not installed here: {why}",
        hint=f"python -m pip install {wanted}",
        consequence="nothing was written",
        code="no_extra",
    )


def _run(order: dict[str, Any], facts: Facts) -> dict[str, Any]:
    """What `program.py` says when it has done `order`."""
    program = Path(__file__).with_name("program.py")
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(program)],
            input=json.dumps(order).encode(),
            capture_output=True,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(facts, f"it took longer than {LIMIT_S / 60:.0f} minutes", None) from error
    try:
        told = mapping(json.loads(done.stdout))
    except ValueError:
        told = {}
    if told.get("ok") is True and isinstance(told.get("difference"), float):
        return dict(told)
    if told.get("code") == "no_network":
        raise UsageError(
            f"the code of {facts.name} cannot be asked for its network: {told.get('message')}",
            hint="give the training package a models.py with a function build(model)",
            consequence="nothing was written",
            code="no_network",
        )
    last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-12:]
    raise _failed(facts, str(told.get("message") or f"exit code {done.returncode}"), "\n".join(last) or None)


def _failed(facts: Facts, why: str, detail: str | None) -> CloudtrainError:
    return CloudtrainError(
        f"the network of {facts.name} could not be exported: {why}",
        hint="the weights themselves are in weights/, as safetensors and as a state_dict",
        consequence="nothing was written",
        code="export_failed",
        detail=detail,
    )

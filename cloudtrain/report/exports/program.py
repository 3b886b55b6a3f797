"""A program, run by `network.py` in a process of its own: rebuild a network, export it, load it back, compare.

Reads an order as JSON from stdin and answers with one JSON line on stdout:
`{"root", "package", "model", "weights", "to", "out"}` -> `{"ok": true, "difference": float}`, the largest difference
of any output, or `{"ok": false, "code", "message"}`. The convention for training packages:
`PACKAGE.models.build(model)` gives the network, which takes N x 1 x 28 x 28 floats.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from typing import Any

# Differences of exported networks are roundings of 32-bit floats: 3e-7 was seen.
MOST_DIFFERENCE = 1e-4
BATCHES = (1, 2, 7)


class NoNetwork(Exception):
    """The code cannot be asked for its network, or the weights are not for it."""


def answer(order: dict[str, Any]) -> dict[str, Any]:
    """Do what `order` says.

    Raises:
        NoNetwork: there is no network to export.
    """
    build = builder(order)  # before torch, which takes seconds: a package that has none is told at once
    import torch

    torch.set_num_threads(1)
    network = rebuild(order, build)
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(count, 1, 28, 28, generator=generator) for count in BATCHES]
    write = {"onnx": write_onnx, "pt2": write_pt2}[order["to"]]
    run = write(network, batches[1], order["out"])
    with torch.inference_mode():
        difference = max((torch.as_tensor(run(batch)) - network(batch)).abs().max().item() for batch in batches)
    if not difference <= MOST_DIFFERENCE:
        return {"ok": False, "code": "differs", "message": f"its answers differ from the original by {difference:.2g}"}
    return {"ok": True, "difference": float(difference)}


def builder(order: dict[str, Any]) -> Any:
    """`build` of the training package's `models`."""
    sys.path.insert(0, order["root"])
    try:
        return importlib.import_module(f"{order['package']}.models").build
    except (ImportError, AttributeError) as error:
        raise NoNetwork(f"{order['package']}.models.build: {error!r}") from error


def rebuild(order: dict[str, Any], build: Any) -> Any:
    """The network with the run's weights, in evaluation mode."""
    import safetensors.torch

    try:
        network = build(order["model"])
        network.load_state_dict(safetensors.torch.load_file(order["weights"]), strict=True)
    except (AttributeError, KeyError, TypeError, RuntimeError) as error:
        raise NoNetwork(f"{order['package']}.models.build({order['model']!r}): {str(error).splitlines()[0]}") from error
    return network.eval()


def write_onnx(network: Any, example: Any, path: str) -> Any:
    """One file, weights and all. What runs it: the reference implementation of the ONNX project."""
    import onnx
    import onnx.reference
    import torch

    torch.onnx.export(
        network,
        (example,),
        path,
        dynamo=True,
        external_data=False,
        input_names=["pictures"],
        output_names=["log_probabilities"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    onnx.checker.check_model(path, full_check=True)
    session = onnx.reference.ReferenceEvaluator(path)

    def run(batch: Any) -> Any:
        return session.run(None, {"pictures": batch.numpy()})[0]

    return run


def write_pt2(network: Any, example: Any, path: str) -> Any:
    """A program for `torch.export.load`, for any number of pictures."""
    import torch

    with torch.inference_mode(False):
        exported = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(exported, path)
    return torch.export.load(path).module()


def main() -> int:
    """Read the order, keep stdout for the answer alone."""
    order = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            told = answer(order)
        except NoNetwork as error:
            told = {"ok": False, "code": "no_network", "message": str(error)}
    sys.stdout.write(json.dumps(told) + "\n")
    return 0 if told["ok"] else 1


if __name__ == "__main__":
    raise SystemExit(main())

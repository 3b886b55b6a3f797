"""The result files below the run's `out/` folder, and what is written into them of the network and the computer.

Each file arrives by rename, so what can be seen is whole. What stands in `env/` is made to be published beside the
results: no path, no index or its password, no serial number.
"""

from __future__ import annotations

import csv
import io
import json
import math
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from job.events import finite
from job.files import write_whole

COLUMNS = ("step", "timestamp", "epoch", "train_loss", "train_acc", "test_loss", "test_acc", "lr", "seconds")
WIDTH = 64  # columns of the layer table
MEBIBYTE_OF_FLOATS = 4 / 1024**2
SMI_LIMIT_S = 15.0  # the first call on a machine whose driver is still asleep took 4 s
# Names of one machine in a world: kept out by key and, for keys to come, by the look of the value.
_ONE_MACHINE = re.compile(r"serial|uuid|guid|\bpdi\b|host ?id|host ?name|chassis", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

State = dict[str, Tensor]


@dataclass(frozen=True)
class Layer:
    """One call of a module that holds no other: `shape` without the batch, `parameters` of its weight and bias."""

    name: str
    shape: tuple[int, ...]
    parameters: int
    trainable: bool


@dataclass(frozen=True)
class Summary:
    """What the layer table shows: a row for each layer in the order it runs, and totals.

    Sizes are in MB as the table counts them: 4 bytes a number, 2**20 bytes a MB.
    """

    layers: tuple[Layer, ...]
    parameters: int
    trainable_parameters: int
    input_mb: float
    pass_mb: float
    parameters_mb: float

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "total_mb": self.input_mb + self.pass_mb + self.parameters_mb}

    def table(self) -> str:
        """The table as text, no line break at the end."""
        thin, thick = "-" * WIDTH, "=" * WIDTH
        lines = [thin, _row("Layer (type)", "Output Shape", "Param #"), thick]
        for number, layer in enumerate(self.layers, start=1):
            lines.append(_row(f"{layer.name}-{number}", str([-1, *layer.shape]), f"{layer.parameters:,}"))
        lines += [
            thick,
            f"Total params: {self.parameters:,}",
            f"Trainable params: {self.trainable_parameters:,}",
            f"Non-trainable params: {self.parameters - self.trainable_parameters:,}",
            thin,
            f"Input size (MB): {self.input_mb:.2f}",
            f"Forward/backward pass size (MB): {self.pass_mb:.2f}",
            f"Params size (MB): {self.parameters_mb:.2f}",
            f"Estimated Total Size (MB): {self.input_mb + self.pass_mb + self.parameters_mb:.2f}",
            thin,
        ]
        return "\n".join(lines)


def _row(name: str, shape: str, parameters: str) -> str:
    return f"{name:>20}  {shape:>25} {parameters:>15}"


class Outputs:
    """Writes into `folder`, which need not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.pt"

    def environment(self, *, gpu: bool) -> None:
        """env/requirements.txt, and with `gpu` env/gpu.txt where `nvidia-smi` answers."""
        write_whole(self.folder / "env" / "requirements.txt", requirements())
        told = gpu_report() if gpu else None
        if told is not None:
            write_whole(self.folder / "env" / "gpu.txt", told)

    def summary(self, summary: Summary) -> None:
        write_whole(self.folder / "model_summary.txt", summary.table() + "\n")
        self._json("model_summary.json", summary.as_json())

    def weights(self, name: str, state: State) -> None:
        """`state` as weights/NAME.safetensors and as weights/NAME.pt, a plain state_dict."""
        write_whole(self.folder / "weights" / f"{name}.safetensors", safetensors.torch.save(state))
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_whole(self.folder / "weights" / f"{name}.pt", buffer.getvalue())

    def predictions(self, labels: Tensor, predicted: Tensor, confidence: Tensor) -> None:
        """One row a test image, in the data set's order; confidence is the probability given to the answer."""
        rows = zip(labels.tolist(), predicted.tolist(), confidence.tolist(), strict=True)
        lines = [f"{index},{label},{answer},{sure:.6f}" for index, (label, answer, sure) in enumerate(rows)]
        write_whole(self.folder / "predictions.csv", "index,label,predicted,confidence\n" + "\n".join(lines) + "\n")

    def metrics(self, rows: list[dict[str, Any]], document: dict[str, Any]) -> None:
        """metrics.jsonl and metrics.csv from `rows`, one an epoch, and metrics.json from `document`."""
        lines = [json.dumps(finite(row), allow_nan=False) for row in rows]
        write_whole(self.folder / "metrics.jsonl", "".join(f"{line}\n" for line in lines))
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            utc = datetime.fromtimestamp(row["t"], timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")  # noqa: UP017 (3.10)
            writer.writerow([{**row, "timestamp": utc}[column] for column in COLUMNS])
        write_whole(self.folder / "metrics.csv", table.getvalue())
        self._json("metrics.json", document)

    def _json(self, name: str, document: dict[str, Any]) -> None:
        write_whole(self.folder / name, json.dumps(finite(document), indent=2, allow_nan=False) + "\n")


def on_cpu(state: State) -> State:
    """A copy of `state` on the CPU that later training does not change."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}


# the network


def summarise(model: nn.Module, shape: tuple[int, ...] = (1, 28, 28)) -> Summary:
    """Run one picture of `shape` through `model` and note every layer that answers.

    The model is left as it was: same mode, same BatchNorm statistics, same random state.
    """
    layers: list[Layer] = []

    def note(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        own = [getattr(module, name, None) for name in ("weight", "bias")]
        held = [value for value in own if isinstance(value, torch.Tensor)]
        layers.append(
            Layer(
                name=type(module).__name__,
                shape=tuple(output.shape[1:]),
                parameters=sum(value.numel() for value in held),
                trainable=any(value.requires_grad for value in held),
            )
        )

    leaves = [module for module in model.modules() if next(module.children(), None) is None]
    hooks = [leaf.register_forward_hook(note) for leaf in leaves]
    was_training = model.training
    device = next(model.parameters()).device
    try:
        model.eval()
        with torch.inference_mode():
            model(torch.zeros(1, *shape, device=device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    total = sum(layer.parameters for layer in layers)
    return Summary(
        layers=tuple(layers),
        parameters=total,
        trainable_parameters=sum(layer.parameters for layer in layers if layer.trainable),
        input_mb=math.prod(shape) * MEBIBYTE_OF_FLOATS,
        pass_mb=2 * sum(math.prod(layer.shape) for layer in layers) * MEBIBYTE_OF_FLOATS,  # values and their gradients
        parameters_mb=total * MEBIBYTE_OF_FLOATS,
    )


# the computer


def requirements(found: Iterable[metadata.Distribution] | None = None) -> str:
    """`name==version` of each package that this interpreter would import, sorted, for `pip install -r`.

    A package that was installed from a folder or a repository is on no index, so its line is a comment.

    Args:
        found: the packages; None: those on this interpreter's path.
    """
    lines: dict[str, str] = {}
    for package in metadata.distributions() if found is None else found:
        told = _requirement(package)
        if told is None:
            continue
        name, line = told
        lines.setdefault(re.sub(r"[-_.]+", "-", name).lower(), line)  # the first on the path is the one imported
    head = f"# Python {platform.python_version()}, {platform.system()} {platform.machine()}\n"
    return head + "".join(f"{line}\n" for _, line in sorted(lines.items()))


def _requirement(package: metadata.Distribution) -> tuple[str, str] | None:
    """Name and line of a package; None for the remains of one that was not removed whole."""
    try:
        # Its head alone: `package.metadata` would parse the whole page of text below it, six times as slow.
        head = (package.read_text("METADATA") or package.read_text("PKG-INFO") or "").partition("\n\n")[0]
        origin = json.loads(package.read_text("direct_url.json") or "{}")
    except (OSError, ValueError):
        return None
    found = [re.search(rf"^{key}: ([\w.+!-]+)$", head, re.MULTILINE) for key in ("Name", "Version")]
    if found[0] is None or found[1] is None:
        return None
    name = found[0][1]
    line = f"{name}=={found[1][1]}"
    local = isinstance(origin, dict) and ("dir_info" in origin or "vcs_info" in origin)
    return name, f"# {line} (from a folder or a repository)" if local else line


def gpu_report() -> str | None:
    """What `nvidia-smi -q` says, made public; None where there is none, or no GPU, or no answer within 15 s."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        done = subprocess.run([program, "-q"], stdin=subprocess.DEVNULL, capture_output=True, timeout=SMI_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    told = done.stdout.decode("utf-8", "replace")
    answered = done.returncode == 0 and re.search(r"^GPU [0-9A-Fa-f:.]+", told, re.MULTILINE)
    return public_gpu_report(told) if answered else None


def public_gpu_report(told: str) -> str:
    """The output of `nvidia-smi -q` without numbers that belong to one device, and without its processes.

    Processes are named by path, and there may be those of other people.
    """
    kept: list[str] = []
    processes: int | None = None  # how far the heading of the list that is being left out stands from the margin
    for line in told.splitlines():
        indent = len(line) - len(line.lstrip())
        if processes is not None and (indent > processes or not line.strip()):
            continue
        processes = None
        key, _, value = line.strip().partition(" : ")
        if re.fullmatch(r"(?:accounted )?processes", key.strip(), re.IGNORECASE):
            processes = indent
        elif not (_ONE_MACHINE.search(key) or _UUID.search(value)):
            kept.append(line.rstrip())
    return "\n".join(kept).strip() + "\n"

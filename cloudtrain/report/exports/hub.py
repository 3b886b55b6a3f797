"""A model card folder, ready to be uploaded anywhere: weights, layer table, card. Nothing is uploaded here."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cloudtrain import disk
from cloudtrain.report import words
from cloudtrain.report.exports import Exported
from cloudtrain.report.exports.network import verified_weights
from cloudtrain.report.facts import Epoch, Facts
from cloudtrain.report.markdown import escaped, fenced

WEIGHTS = "model.safetensors"


def card(facts: Facts, folder: Path, which: str, code: Callable[[], Path]) -> Exported:
    """`README.md` with YAML front matter, `model.safetensors`, `config.json` and, where it stands alone, `models.py`.

    Raises:
        UsageError: the weights are not here or not what they were, or the code of the run is gone.
    """
    weights = verified_weights(facts, which)
    models = _network_code(code()) if facts.shipped else None
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, folder / WEIGHTS)
    if models is not None:
        disk.write_durably(folder / "models.py", models, mode=0o644)
    told = {"settings": dict(facts.settings), "run": facts.name, "weights": which}
    disk.write_durably(folder / "config.json", (json.dumps(told, indent=2) + "\n").encode(), mode=0o644)
    text = _text(facts, which, standalone=models is not None)
    disk.write_durably(folder / "README.md", text.encode("utf-8", "replace"), mode=0o644)
    return Exported(folder, f"weights of the {which} epoch, model card; add a licence before you publish it")


def _network_code(source: Path) -> bytes | None:
    """`models.py` of the training package, if it needs nothing else of it."""
    try:
        data = (source / "models.py").read_bytes()
        tree = ast.parse(data)
    except (OSError, SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "." if not node.level else "."]
        if any(name.startswith(".") or name.split(".")[0] == source.name for name in names):
            return None
    return data


def _text(facts: Facts, which: str, *, standalone: bool) -> str:
    epoch = facts.best if which == "best" else facts.last
    subject = words.subject(facts)
    blocks = [
        f"---\n{_yaml(_front_matter(facts, epoch))}---",
        f"# {escaped(facts.name)}",
        f"{escaped(subject)} of cloudtrain, trained on MNIST: 28 x 28 pictures of handwritten digits, ten classes."
        if facts.shipped
        else f"{escaped(subject)}, trained with cloudtrain.",
        _results(facts, epoch, which),
        "## How to load it",
        fenced(_loading(facts, standalone)).replace("```\n", "```python\n", 1),
        "Pictures are N x 1 x 28 x 28 floats: bytes as fractions of 255, less 0.1307, over 0.3081. "
        "What comes out are the logarithms of the ten probabilities."
        if facts.shipped
        else "",
        "## How it was trained",
        "\n".join(f"- {escaped(label)}: {escaped(value)}" for label, value in _rows(facts)),
        f"## Layers\n\n{fenced(facts.layers)}" if facts.layers else "",
        "## Licence\n\nNone was chosen yet: add `license:` to the front matter and say it here.",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _rows(facts: Facts) -> list[tuple[str, str]]:
    return [*words.setting_rows(facts), *words.environment_rows(facts)]


def _results(facts: Facts, epoch: Epoch | None, which: str) -> str:
    lines = ["## Results", ""]
    if epoch is not None and epoch.test_acc is not None:
        picked = ", picked on the test set" if which == "best" else ""
        lines.append(f"- Test accuracy: {words.percent(epoch.test_acc)} (epoch {epoch.epoch}{picked})")
    if facts.parameters is not None:
        lines.append(f"- Parameters: {facts.parameters:,}")
    lines += [f"- {escaped(goal.goal)}: {words.goal_verdict(goal)} (judged on the last epoch)" for goal in facts.goals]
    note = words.subset_note(facts)
    return "\n".join([*lines, *(["", note] if note else [])])


def _loading(facts: Facts, standalone: bool) -> str:
    lines = ["import safetensors.torch"]
    if facts.shipped:
        lines += [
            "from models import build" if standalone else "from job.models import build  # cloudtrain's own package",
            f"network = build({facts.settings.get('model')})",
            f'network.load_state_dict(safetensors.torch.load_file("{WEIGHTS}"))',
            "network.eval()",
        ]
    else:
        lines += [f'state = safetensors.torch.load_file("{WEIGHTS}")']
    return "\n".join(lines)


def _front_matter(facts: Facts, epoch: Epoch | None) -> dict[str, Any]:
    front: dict[str, Any] = {
        "library_name": "pytorch",
        "tags": ["pytorch", "cloudtrain", *(["image-classification", "mnist"] if facts.shipped else [])],
    }
    if not facts.shipped:
        return front
    front |= {"pipeline_tag": "image-classification", "datasets": ["mnist"], "metrics": ["accuracy"]}
    # An accuracy on a part of the test set is none of MNIST, and no leaderboard should read it as one.
    if epoch is not None and epoch.test_acc is not None and facts.subset is None:
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"name": "MNIST", "type": "mnist", "split": "test"},
            "metrics": [{"type": "accuracy", "value": round(epoch.test_acc / 100, 6)}],
        }
        front["model-index"] = [{"name": facts.name, "results": [result]}]
    return front


def _yaml(values: Mapping[str, Any]) -> str:
    """One key a line, its value in YAML's flow style, which is JSON."""
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())

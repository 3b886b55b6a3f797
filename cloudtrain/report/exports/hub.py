"""A model card folder, ready to be uploaded anywhere: weights, layer table, card. Nothing is uploaded here."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cloudtrain import disk
from cloudtrain.report import tables, words
from cloudtrain.report.exports import Exported
from cloudtrain.report.exports.network import verified_weights
from cloudtrain.report.facts import Epoch, Facts
from cloudtrain.report.markdown import escaped, fenced

WEIGHTS = "model.safetensors"


def card(facts: Facts, folder: Path, which: str, code: Callable[[], Path]) -> Exported:
    """`README.md` with YAML front matter, `model.safetensors`, `config.json` and the code of the network.

    Raises:
        UsageError: the weights are not here or not what they were, or the code of the run is gone.
    """
    weights = verified_weights(facts, which)
    source = code()
    modules = network_code(source)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, folder / WEIGHTS)
    for name, data in modules.items():
        path = folder / source.name / name
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.write_durably(path, data, mode=0o644)
    told = {"settings": dict(facts.settings), "run": facts.name, "weights": which}
    disk.write_durably(folder / "config.json", (json.dumps(told, indent=2) + "\n").encode(), mode=0o644)
    text = _text(facts, which, source.name if modules else None)
    disk.write_durably(folder / "README.md", text.encode("utf-8", "replace"), mode=0o644)
    return Exported(folder, f"weights of the {which} epoch, model card; add a licence before you publish it")


def network_code(source: Path) -> dict[str, bytes]:
    """`models.py` of a training package and all that it needs of it, by path; empty where it has no `build`."""
    found: dict[str, bytes] = {}
    wanted = ["__init__", "models"] if source.name.isidentifier() else []
    while wanted:
        module = wanted.pop()
        path = module.replace(".", "/")
        name = f"{path}/__init__.py" if (source / path).is_dir() else f"{path}.py"
        if name in found:
            continue
        try:
            data = (source / name).read_bytes()
            tree = ast.parse(data)
        except (OSError, SyntaxError, ValueError):
            if module == "models":
                return {}
            continue
        if module == "models" and not any(isinstance(n, ast.FunctionDef) and n.name == "build" for n in tree.body):
            return {}
        found[name] = data
        wanted += _imported(tree, source.name)
    return found


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Modules of `package` that one of its top modules imports; names that are no modules are among them."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(part for part in (package if node.level else "", node.module or "") if part)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        yield from (name.removeprefix(f"{package}.") for name in names if name.startswith(f"{package}."))


def _text(facts: Facts, which: str, package: str | None) -> str:
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
        fenced(_loading(facts, package)).replace("```\n", "```python\n", 1),
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
    return [*tables.settings(facts), *tables.environment(facts)]


def _results(facts: Facts, epoch: Epoch | None, which: str) -> str:
    lines = ["## Results", ""]
    if epoch is not None and epoch.test_acc is not None:
        picked = ", picked on the test set" if which == "best" else ""
        lines.append(f"- Test accuracy: {words.percent(epoch.test_acc)} (epoch {epoch.epoch}{picked})")
    if facts.parameters is not None:
        lines.append(f"- Parameters: {facts.parameters:,}")
    lines += [f"- {escaped(goal.goal)}: {words.goal_verdict(goal)}" for goal in facts.goals]
    note = words.subset_note(facts)
    return "\n".join([*lines, *(["", note] if note else [])])


def _loading(facts: Facts, package: str | None) -> str:
    load = f'safetensors.torch.load_file("{WEIGHTS}")'
    if package is None:
        return f"import safetensors.torch\nstate = {load}"
    lines = [
        "import safetensors.torch",
        f"from {package}.models import build",
        f"network = build({facts.settings.get('model', facts.train.get('model'))!r})",
        f"network.load_state_dict({load})",
        "network.eval()",
    ]
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

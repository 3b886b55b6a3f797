"""A model card folder, ready to be uploaded anywhere: weights, layer table, card. Nothing is uploaded here."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from cloudtrain.core import disk
from cloudtrain.report import card
from cloudtrain.report.exports import Exported
from cloudtrain.report.exports.network import verified_weights
from cloudtrain.report.facts import Facts

WEIGHTS = "model.safetensors"


def write(facts: Facts, folder: Path, which: str, code: Callable[[], Path]) -> Exported:
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
    text = card.text(facts, which, _loading(facts, source.name if modules else None))
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

"""Settings and environment of a run as rows of a table: label and value, human-readable. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from cloudtrain.report import words
from cloudtrain.report.facts import Facts
from cloudtrain.report.reading import mapping, text, whole


def flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as rows: (augment.degrees, 10)."""
    rows: list[tuple[str, str]] = []
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, Mapping):
            rows += flat(inner, f"{name}.")
        else:
            rows.append((name, plain(inner)))
    return rows


def plain(value: Any) -> str:
    """A setting's value, human-readable."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(plain(inner) for inner in value) or "none"
    return text(str(value)) or "none"


def settings(facts: Facts) -> list[tuple[str, str]]:
    """The settings that matter first, in words."""
    told, train = facts.settings, facts.train
    labels = {"batch_size": "batch size", "lr": "peak learning rate"}
    rows = []
    for key in ("model", "epochs", "batch_size", "seed", "lr", "recipe") if facts.shipped or told else ():
        value = told.get(key, train.get(key))
        if value is not None:
            rows.append((labels.get(key, key), plain(value)))
    if facts.subset is not None:
        rows.append(("training pictures", f"the first {facts.subset:,}"))
    elif facts.shipped and told:
        rows.append(("training pictures", "all but those held out" if facts.held_out else f"all {words.MNIST_TRAIN:,}"))
    if facts.held_out:
        rows.append(("epochs scored on", facts.scored_on))
    args = train.get("args")
    if isinstance(args, list) and args:
        rows.append(("arguments", shlex.join(map(str, args))))
    if facts.command:
        rows.append(("command", plain(shlex.join(facts.command))))
    elif not facts.shipped:
        rows.append(("training package", plain(train.get("module"))))
    return rows


def recipe(facts: Facts) -> list[tuple[str, str]]:
    """Every hyper-parameter of the recipe that `settings` does not have."""
    known = {"name", "epochs", "batch_size", "lr"}
    rows = flat(mapping(facts.settings.get("hyperparameters")))
    return [(name.replace("_", " "), value) for name, value in rows if name not in known]


def environment(facts: Facts) -> list[tuple[str, str]]:
    """What it ran on and with."""
    machine, told, receipt = facts.machine, facts.settings, facts.receipt
    gpus = machine.get("gpus")
    names = [text(mapping(gpu).get("name")) for gpu in gpus] if isinstance(gpus, list) else []
    code = mapping(receipt.get("code"))
    git = mapping(code.get("git"))
    commit = text(git.get("commit"))
    places = [text(machine.get(key)) for key in ("zone", "market")]
    cpus = whole(machine.get("cpus"))
    attempts = receipt.get("attempts")
    earlier = len(attempts) if isinstance(attempts, list) else 0
    rows = [
        ("machines before", f"{earlier}: the run went on from its last checkpoint" if earlier else None),
        ("where", words.where(facts) + "".join(f", {place}" for place in places if place)),
        ("trained by", words.device(facts)),
        ("GPU", ", ".join(name for name in names if name) or None),
        ("driver", text(machine.get("driver"))),
        ("CUDA", text(machine.get("cuda"))),
        ("processors", str(cpus) if cpus else None),
        ("PyTorch", text(told.get("torch")) or text(machine.get("torch"))),
        ("Python", text(machine.get("python"))),
        ("system", text(machine.get("os"))),
        ("image", text(machine.get("image_name"))),
        ("code", _short(code.get("digest"), "sha256 ")),
        ("git", f"{commit[:12]}{', with changes' if git.get('dirty') else ''}" if commit else None),
        ("data", _data(mapping(receipt.get("data")))),
        ("cloudtrain", text(receipt.get("cloudtrain"))),
    ]
    return [(label, value) for label, value in rows if value]


def _short(value: Any, before: str) -> str | None:
    found = text(value)
    return f"{before}{found[:12]}…" if found else None


def _data(data: Mapping[str, Any]) -> str | None:
    hashes = mapping(data.get("sha256"))
    if not hashes:
        return None
    name = "MNIST" if "t10k-images-idx3-ubyte" in hashes else "data set"
    return f"{name}, {len(hashes)} files checked by sha256"

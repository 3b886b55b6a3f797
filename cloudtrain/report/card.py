"""The model card: README.md of a run's folder. YAML front matter, then Markdown.

No licence is chosen: that is for whoever trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cloudtrain.report import tables, words
from cloudtrain.report.facts import Epoch, Facts
from cloudtrain.report.markdown import escaped, fenced


def of_folder(facts: Facts) -> str | None:
    """The card that lies in the run's own folder; None for a run that left no weights."""
    # Of a run that opened the test set once, the weights that it was opened with.
    order = ("last", "best") if facts.held_out else ("best", "last")
    which = next((which for which in order if facts.weights(which)), None)
    return text(facts, which, _loading(facts, which)) if which else None


def text(facts: Facts, which: str, loading: str) -> str:
    """The card.

    Args:
        which: best or last: the epoch whose weights it describes.
        loading: lines of Python that load them, run in the card's folder.
    """
    epoch = facts.best if which == "best" else facts.last
    if facts.held_out:  # its figures are none of the test set, but for the one look at it
        opened = facts.opened
        epoch = opened if opened and epoch and opened.epoch == epoch.epoch else None
    subject = words.subject(facts)
    rows = [*tables.settings(facts), *tables.environment(facts)]
    unfinished = facts.receipt.get("ended_how") != "finished"
    blocks = [
        f"---\n{_yaml(_front_matter(facts, epoch))}---",
        f"# {escaped(facts.name)}",
        f"{escaped(subject)} of cloudtrain, trained on MNIST: 28 x 28 pictures of handwritten digits, ten classes."
        if facts.shipped
        else f"{escaped(subject)}, trained with cloudtrain.",
        escaped(words.status(facts)[1]) if unfinished else "",
        _results(facts, epoch, which),
        "## How to load it",
        fenced(loading).replace("```\n", "```python\n", 1),
        "Pictures are N x 1 x 28 x 28 floats: bytes as fractions of 255, less 0.1307, over 0.3081. "
        "What comes out are the logarithms of the ten probabilities."
        if facts.shipped
        else "",
        "## How it was trained",
        "\n".join(f"- {escaped(label)}: {escaped(value)}" for label, value in rows),
        f"## Layers\n\n{fenced(facts.layers)}" if facts.layers else "",
        "## Licence\n\nNone was chosen yet: add `license:` to the front matter and say it here.",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _loading(facts: Facts, which: str) -> str:
    """For the run's own folder: the network is in the copy of the code that was sent, unless that was not kept."""
    load = f'safetensors.torch.load_file("weights/{which}.safetensors")'
    if not (facts.shipped and (facts.folder / "code.tar.gz").is_file()):
        return f"import safetensors.torch\nstate = {load}"
    lines = [
        "import shutil, sys, tempfile, safetensors.torch",
        'shutil.unpack_archive("code.tar.gz", code := tempfile.mkdtemp(), filter="data")',
        "sys.path.insert(0, code)  # the network, as it was trained",
        "from job.models import build",
        f"network = build({facts.settings.get('model', facts.train.get('model'))!r}).eval()",
        f"network.load_state_dict({load})",
    ]
    return "\n".join(lines)


def _results(facts: Facts, epoch: Epoch | None, which: str) -> str:
    lines = ["## Results", ""]
    if epoch is not None and epoch.test_acc is not None:
        picked = ", picked on the test set" if which == "best" and not facts.held_out else ""
        lines.append(f"- Test accuracy: {words.percent(epoch.test_acc)} (epoch {epoch.epoch}{picked})")
    if facts.parameters is not None:
        lines.append(f"- Parameters: {facts.parameters:,}")
    lines += [f"- {escaped(goal.goal)}: {words.goal_verdict(goal)}" for goal in facts.goals]
    for note in filter(None, (words.subset_note(facts), words.held_out_note(facts))):
        lines += ["", note]
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

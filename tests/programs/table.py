"""Small programs of the shapes of public ones, as their authors would have them: none knows of cloudtrain."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
# In names: what is another one each time.
_VARIES = re.compile(
    r"\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=tfevents\.).*"
)  # fmt: skip


@dataclass(frozen=True)
class Program:
    """One of them.

    Attributes:
        folder: where it lies, below this one.
        command: what is typed after `cloudtrain run`.
        leaves: what it leaves, where `*` stands for a day, a number, ...
        varies: those of it whose content is another one each time.
        here: how it is started without cloudtrain; "": by the command itself.
        needs: a package without which it cannot run.
        ignored: what its .gitignore says; git has all of it all the same.
    """

    folder: str
    command: str
    leaves: tuple[str, ...]
    varies: tuple[str, ...] = ()
    here: str = ""
    needs: str | None = None
    ignored: str | None = None

    def export(self, to: Path) -> Path:
        """A fresh copy of it, as `git clone` would make it; its folder."""
        made = to / self.folder
        shutil.copytree(FOLDER / self.folder, made, ignore=shutil.ignore_patterns("__pycache__"))
        if self.ignored:
            (made / ".gitignore").write_text(f"{self.ignored}\n")
            for words in (["init", "-q"], ["add", "-f", "."]):
                subprocess.run(["git", *words], cwd=made, check=True)
        return made

    def files(self, folder: Path, known: Collection[str] = ()) -> dict[str, str]:
        """Name of each file and link below `folder` but of caches and those `known`, and its sha256 or destination."""
        found = {}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if name in known or path.is_dir() or "__pycache__" in name or name.startswith(".git/"):
                continue
            told = _VARIES.sub("*", name)
            if path.is_symlink():
                found[told] = f"-> {path.readlink()}"
            else:
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                found[told] = "" if told in self.varies else content
        return found


PROGRAMS = (
    Program("mnist", "python main.py --epochs 2 --lr 0.1 --no-cuda --save-model", ("mnist_cnn.pt",), needs="torch"),
    Program(
        "nanogpt", "python train.py config/train_char.py --max_iters=60", ("out-char/ckpt.pt",), ignored="data/*/*.bin"
    ),
    Program(
        "uv_project",
        "python -m tinygpt.train --steps 5",
        ("runs/adder/model.json",),
        here="uv run --offline --isolated python -m tinygpt.train --steps 5",
    ),
    Program(
        "notebook",
        "digits.ipynb -p epochs 2",
        ("digits.out.ipynb", "weights.txt"),
        here="python -m papermill digits.ipynb digits.out.ipynb -p epochs 2",
    ),
    Program("word_language_model", "python main.py --epochs 6", ("model.pt",)),
    Program(
        "imagenet",
        "python main.py -a resnet18 --dummy --epochs 3 --seed 1",
        (*(f"checkpoint-{epoch}.pth.tar" for epoch in range(3)), "model_best.pth.tar"),
    ),
    Program("ddp", "torchrun --standalone --nproc_per_node=2 multigpu.py 2 1", ("snapshot.pt",), needs="torch"),
    Program("hogwild", "python main.py --num-processes 2", ("hogwild.json", "logs/worker-0.txt", "logs/worker-1.txt")),
    Program(
        "lightning",
        "python train.py fit --trainer.max_epochs 2",
        tuple(
            f"lightning_logs/version_0/{name}"
            for name in (
                "checkpoints/epoch=0-step=10.ckpt",
                "checkpoints/epoch=1-step=20.ckpt",
                "checkpoints/last.ckpt",
                "events.out.tfevents.*",
                "hparams.yaml",
                "metrics.csv",
            )
        ),
        varies=("lightning_logs/version_0/events.out.tfevents.*",),
        needs="tensorboard",
    ),
    Program(
        "hydra",
        "python my_app.py lr=0.3",
        (
            "outputs/*/.hydra/config.yaml",
            "outputs/*/.hydra/overrides.yaml",
            "outputs/*/model.pt",
            "outputs/*/my_app.log",
        ),
        varies=("outputs/*/my_app.log",),
    ),
    Program(
        "accelerate",
        "bash run.sh",
        (
            "output/all_results.json",
            *(
                f"output/step_{step}/{name}"
                for step in (2, 4)
                for name in ("model.safetensors", "random_states_0.pkl", "random_states_1.pkl")
            ),
        ),
    ),
    Program(
        "dit",
        "python train.py --model DiT-S/2 --ckpt-every 200",
        (
            "results/000-DiT-S-2/checkpoints/0000200.pt",
            "results/000-DiT-S-2/checkpoints/0000400.pt",
            "results/000-DiT-S-2/log.txt",
        ),
        varies=("results/000-DiT-S-2/log.txt",),
        needs="tqdm",
    ),
    Program("airbench", "python airbench94.py", ("logs/*/log.pt",)),
)

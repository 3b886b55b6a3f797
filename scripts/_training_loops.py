"""One measurement of a training loop, in a process of its own: python _training_loops.py LOOP MODEL SECONDS DATA DEVICE

Prints one JSON object: `epoch_s` (seconds of an epoch of 60,000 images, by the steps done in SECONDS after a warm-up),
`steps` (that were timed), `eval_s` (seconds to score the 10,000 test images), `threads`, `versions`.

LOOP is `naive` (the loop these networks were first trained with, as a course teaches it: PIL pictures, torchvision
transforms, a DataLoader of 0 workers, one call after another, two `.item()` a step), or the name of a recipe, which
runs the job's own epoch.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

WARM_UP = 8  # steps
IMAGES = 60_000


def naive(model: int, seconds: float, data: Path, device_name: str) -> dict[str, Any]:
    import torch
    import torch.nn.functional as F

    from job.models import build

    device = torch.device(device_name)
    batch = 128 if device.type == "cuda" else 64
    train, test, version = _pictures(data)
    torch.manual_seed(1)
    loader = torch.utils.data.DataLoader(train, batch_size=batch, shuffle=True)
    net = build(model).to(device).train()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    correct, began, steps, loss_sum = 0, 0.0, 0, 0.0
    for step, (pictures, digits) in enumerate(loader):
        if step == WARM_UP:
            began = time.perf_counter()
        elif step > WARM_UP and time.perf_counter() - began >= seconds:
            break
        pictures, digits = pictures.to(device), digits.to(device)
        optimiser.zero_grad()
        scores = net(pictures)
        loss = F.nll_loss(scores, digits)
        loss.backward()
        optimiser.step()
        loss_sum += loss.item()
        correct += scores.argmax(dim=1).eq(digits).sum().item()
        steps = step + 1 - WARM_UP
    took = time.perf_counter() - began
    net.eval()
    began = time.perf_counter()
    with torch.no_grad():
        for pictures, digits in torch.utils.data.DataLoader(test, batch_size=batch):
            scores = net(pictures.to(device))
            loss_sum += F.nll_loss(scores, digits.to(device), reduction="sum").item()
            correct += scores.argmax(dim=1).eq(digits.to(device)).sum().item()
    return {
        "epoch_s": took / steps * -(-IMAGES // batch),
        "steps": steps,
        "eval_s": time.perf_counter() - began,
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "torchvision": version},
    }


def _pictures(data: Path) -> tuple[Any, Any, str]:
    """MNIST as torchvision has it, to train and to test, and torchvision's version."""
    import torch

    # Beside a torch of another build torchvision's compiled half is missing, and its import asks for these two.
    library = torch.library.Library("torchvision", "FRAGMENT")
    if not hasattr(torch.ops.torchvision, "nms"):
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision import __version__, datasets, transforms

    train_moves = transforms.Compose(
        [
            transforms.RandomApply([transforms.CenterCrop(22)], p=0.1),
            transforms.Resize((28, 28)),
            transforms.RandomRotation((-15.0, 15.0), fill=0),
            transforms.ToTensor(),
            transforms.Normalize((0.1307,), (0.3081,)),
        ]
    )
    test_moves = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for file in data.glob("*ubyte"):
            shutil.copy(file, raw)
        train = datasets.MNIST(folder, train=True, transform=train_moves)
        test = datasets.MNIST(folder, train=False, transform=test_moves)
    return train, test, __version__


def ours(recipe_name: str, model: int, seconds: float, data: Path, device_name: str) -> dict[str, Any]:
    from job import cores  # noqa: F401  # isort: skip  (before torch)

    import torch

    from job import devices, models, recipes, train
    from job.console import Console
    from job.data import load
    from job.evaluate import evaluate
    from job.events import EventLog
    from job.interrupt import Stop, Stopped
    from job.progress import Progress

    class Clock(Stop):
        """Asks for the end `seconds` after the warm-up, at the first look that comes then."""

        looks, began = 0, 0.0

        def check(self) -> None:
            self.looks += 1
            if self.looks == WARM_UP + 1:
                self.settle()
                self.began = time.perf_counter()
            elif self.looks > WARM_UP and time.perf_counter() - self.began >= seconds:
                raise Stopped

        def settle(self) -> None:
            if device.type == "cuda":
                torch.cuda.synchronize()

    device = devices.choose(device_name)
    train_split, test_split = (split.to(device) for split in load(data))
    torch.manual_seed(1)
    net = models.build(model).to(device)
    recipe = recipes.choose(recipe_name, model, device.type)
    progress = Progress(model, net, recipe, 1, device, train_split, test_split, None)
    console, clock = Console(), Clock()
    console.live = False
    way = train.way(progress, console)
    done = 0
    try:
        while True:  # a short epoch on a GPU: several of them
            train.train_epoch(progress, way, console, EventLog(None), clock)
            done += progress.step
            progress.step = 0
    except Stopped:
        clock.settle()
    took, steps = time.perf_counter() - clock.began, done + progress.step - WARM_UP
    evaluate(progress.scored, test_split.first(1000))
    began = time.perf_counter()
    evaluate(progress.scored, test_split)
    return {
        "epoch_s": took / steps * progress.steps,
        "steps": steps,
        "eval_s": time.perf_counter() - began,
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__},
    }


if __name__ == "__main__":
    loop, model, seconds, data, device = sys.argv[1:6]
    arguments = (int(model), float(seconds), Path(data), device)
    answer = sys.stdout
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  the job's own log is not wanted here
    found = naive(*arguments) if loop == "naive" else ours(loop, *arguments)
    print(json.dumps(found), file=answer)

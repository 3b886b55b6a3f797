"""A job of the standard library alone, quick to start: tells figures, writes a log and files, ends as it is told."""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--model", type=int)
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--seed", type=int)
parser.add_argument("--device")
parser.add_argument("--lines", type=int, default=20, help="log lines an epoch")
parser.add_argument("--pause", type=float, default=0.0, help="seconds after each line")
parser.add_argument("--code", type=int, default=0)
parser.add_argument("--kill", type=int, default=0, help="signal that it sends to itself at the end")
parser.add_argument("--hang", action="store_true", help="ignores SIGTERM and leaves a daemon behind")
parser.add_argument("--crash", default="")
parser.add_argument("--until", default="", help="file that it waits for before it ends")
options = parser.parse_args()

out = Path(os.environ["CLOUDTRAIN_OUT"])
events = Path(os.environ["CLOUDTRAIN_EVENTS"])


def tell(kind, **values):
    with events.open("a") as file:
        file.write(json.dumps({"v": 1, "t": time.time(), "kind": kind, **values}) + "\n")


def put(name, data):
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(data)
    aside.replace(path)


if options.hang:
    import subprocess

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # A daemon: its own session, its parent gone.
    sleeper = "import os,time; os.setsid(); os.fork() and os._exit(0); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", sleeper])
tell(
    "start", model=options.model, parameters=7902, epochs=options.epochs, batch_size=64, seed=options.seed, device="cpu"
)
for epoch in range(1, options.epochs + 1):
    for line in range(options.lines):
        print(f"epoch {epoch} line {line} [bold]žluť[/bold] \x1b]0;title\x07 \r 50%\r100%|███|", flush=True)
        tell("step", epoch=epoch, step=line + 1, steps=options.lines, loss=0.1, train_acc=90.0, rate=10.0)
        time.sleep(options.pause)
    accuracy = 98.0 + epoch / 10
    told = {"train_loss": 0.1, "train_acc": 97.5, "test_loss": 0.05, "test_acc": accuracy, "seconds": 0.1}
    tell("epoch", epoch=epoch, epochs=options.epochs, best=True, **told)
    put("weights/last.bin", os.urandom(1000) + bytes([epoch]))
    put("metrics.jsonl", json.dumps({"epoch": epoch, "test_acc": accuracy}).encode() + b"\n")
put("weights/best with space é.bin", b"\0" * 300_000)
while options.until and not Path(options.until).exists():
    time.sleep(0.05)
if options.crash:
    tell("error", code="crash", message=options.crash, hint="try again")
    sys.exit(options.crash)
if options.kill:
    os.kill(os.getpid(), options.kill)
figures = {"best_test_acc": accuracy, "best_train_acc": 97.5, "final_test_acc": accuracy}
tell("result", parameters=7902, best_epoch=options.epochs, goals={"epochs <= 15": True}, **figures)
sys.exit(options.code)

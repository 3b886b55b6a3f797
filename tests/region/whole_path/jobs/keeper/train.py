"""A job of the standard library alone that saves and goes on: what it ends with is the same however often it was ended.

Its "weights" are a hash over every step, so one step more, less or twice changes them.
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--model", type=int)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--seed", type=int)
parser.add_argument("--device")
parser.add_argument("--steps", type=int, default=10, help="steps an epoch")
parser.add_argument("--pause", type=float, default=0.0, help="seconds after each step")
parser.add_argument("--wait-at", default="", help="EPOCH:STEP after which it waits until it is asked to end")
parser.add_argument("--ballast", type=int, default=0, help="bytes of a further file, new in each epoch")
parser.add_argument("--deaf", action="store_true", help="saves at epochs' ends alone, whoever asks it to end")
parser.add_argument("--silent", action="store_true", help="tells nothing")
options = parser.parse_args()

out = Path(os.environ["CLOUDTRAIN_OUT"])
asked = []
if not options.deaf:
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))


def tell(kind, **values):
    if not options.silent:
        with Path(os.environ["CLOUDTRAIN_EVENTS"]).open("a") as file:
            file.write(json.dumps({"v": 1, "t": time.time(), "kind": kind, **values}) + "\n")


def put(name, data):
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(data)
    aside.replace(path)


def save(epoch, step, state):
    put("checkpoints/last.json", json.dumps({"epoch": epoch, "step": step, "state": state}).encode())


epoch, step, state = 0, 0, hashlib.sha256(str(options.seed).encode()).hexdigest()
resumed = os.environ.get("CLOUDTRAIN_RESUME")
if resumed:
    saved = json.loads(Path(resumed).read_text())
    epoch, step, state = saved["epoch"], saved["step"], saved["state"]
    print(f"goes on after epoch {epoch}, step {step}", flush=True)
wait_at = "" if resumed else options.wait_at
where = {"epoch": epoch, "step": step} if resumed else None
tell("start", model=options.model, parameters=7902, epochs=options.epochs, seed=options.seed, resumed=where)
while epoch < options.epochs:
    while step < options.steps:
        if asked:
            save(epoch, step, state)
            tell("checkpoint", epoch=epoch, name="checkpoints/last.json", step=step)
            sys.exit(143)
        step += 1
        state = hashlib.sha256(f"{state} {epoch} {step}".encode()).hexdigest()
        print(f"epoch {epoch + 1} step {step}", flush=True)
        tell("step", epoch=epoch + 1, step=step, steps=options.steps, loss=0.1, train_acc=90.0, rate=10.0)
        time.sleep(options.pause)
        # Nobody waits for ever, not even for a test that has died.
        until = time.monotonic() + 300
        while wait_at == f"{epoch + 1}:{step}" and not asked and time.monotonic() < until:
            time.sleep(0.05)
    epoch, step = epoch + 1, 0
    figures = {"train_loss": 0.1, "train_acc": 97.5, "test_loss": 0.05, "test_acc": 98.0 + epoch / 10, "seconds": 0.1}
    put("metrics.json", json.dumps({"epoch": epoch}).encode())
    if options.ballast:
        put("ballast.bin", os.urandom(options.ballast))
    tell("epoch", epoch=epoch, epochs=options.epochs, best=True, **figures)
    save(epoch, 0, state)
    tell("checkpoint", epoch=epoch, name="checkpoints/last.json")
put("weights.txt", state.encode())
accuracy = {"best_test_acc": 98.0 + options.epochs / 10, "best_train_acc": 97.5}
tell("result", parameters=7902, best_epoch=options.epochs, **accuracy)

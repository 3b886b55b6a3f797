"""The training program of the soak, and what it must have written when it is done: log and files are known in advance.

Copied into a folder of its own as `train.py`; standard library only, so that a run takes seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path


def log_of(mark: str, rounds: int, lines: int) -> bytes:
    """The whole console log."""
    return "".join(_line(mark, one, line) for one in range(1, rounds + 1) for line in range(lines)).encode()


def files_of(mark: str, rounds: int) -> dict[str, bytes]:
    """Every result at the end, by its name below `out/`."""
    return {"checkpoints/last.pt": _state(mark, rounds), "weights/best.bin": mark.encode() * 20_000}


def _line(mark: str, one: int, line: int) -> str:
    return f"{mark} epoch {one} line {line} [bold]žluť[/bold] \x1b]0;title\x07 \r 50%\r100%|███|\n"


def _state(mark: str, one: int) -> bytes:
    return f"{mark} after {one}\n".encode() * 500


def main() -> int:
    """Write lines and a checkpoint in each round, then the results; the ledger is for the soak's eyes alone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--mark", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--lines", type=int, required=True)
    parser.add_argument("--pause", type=float, required=True)
    parser.add_argument("--code", type=int, default=0)
    options, _ = parser.parse_known_args()
    out, events = Path(os.environ["CLOUDTRAIN_OUT"]), Path(os.environ["CLOUDTRAIN_EVENTS"])

    def tell(kind: str, **values: object) -> None:
        with events.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"v": 1, "t": time.time(), "kind": kind, **values}) + "\n")

    def put(name: str, data: bytes) -> None:
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + ".part")
        aside.write_bytes(data)
        aside.replace(path)

    def note(word: str) -> None:
        with options.ledger.open("a", encoding="utf-8") as file:
            file.write(f"{word}\n")

    note("start")
    tell("start", model=1, parameters=7902, epochs=options.rounds, batch_size=64, seed=1, device="cpu")
    for one in range(1, options.rounds + 1):
        for line in range(options.lines):
            sys.stdout.write(_line(options.mark, one, line))
            sys.stdout.flush()
            time.sleep(options.pause)
        put("checkpoints/last.pt", _state(options.mark, one))
        told = {"train_loss": 0.1, "train_acc": 97.5, "test_loss": 0.05, "test_acc": 98.0, "seconds": 0.1}
        tell("epoch", epoch=one, epochs=options.rounds, best=True, **told)
        tell("checkpoint", epoch=one, name="checkpoints/last.pt", step=0)
    for name, data in files_of(options.mark, options.rounds).items():
        put(name, data)
    note("done")
    return int(options.code)


if __name__ == "__main__":
    sys.exit(main())

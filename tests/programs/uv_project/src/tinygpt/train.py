"""A project of uv with a src layout, started as a module: it is found only where it is installed."""

import argparse
import json
from pathlib import Path

import tinygpt

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=100)
steps = parser.parse_args().steps
for step in range(1, steps + 1):
    print(json.dumps({"step": step, "loss": 1 / step}))
runs = Path("runs", "adder")
runs.mkdir(parents=True)
(runs / "model.json").write_text(json.dumps({"package": tinygpt.__name__, "steps": steps}))

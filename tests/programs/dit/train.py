"""DiT: results/NNN-MODEL is numbered by what is there; a log file of its own; a bar that is drawn over with \\r."""

import argparse
import logging
import os
from glob import glob

from tqdm import tqdm

parser = argparse.ArgumentParser()
parser.add_argument("--results-dir", default="results")
parser.add_argument("--model", default="DiT-XL/2")
parser.add_argument("--ckpt-every", type=int, default=50_000)
parser.add_argument("--steps", type=int, default=400)
args = parser.parse_args()
os.makedirs(args.results_dir, exist_ok=True)
experiment = f"{args.results_dir}/{len(glob(f'{args.results_dir}/*')):03d}-{args.model.replace('/', '-')}"
os.makedirs(f"{experiment}/checkpoints")
logging.basicConfig(
    level=logging.INFO,
    format="[%(asctime)s] %(message)s",
    handlers=[logging.StreamHandler(), logging.FileHandler(f"{experiment}/log.txt")],
)
logging.info("Experiment directory created at %s", experiment)
for step in tqdm(range(1, args.steps + 1), desc="steps", mininterval=0):
    if step % args.ckpt_every == 0:
        with open(f"{experiment}/checkpoints/{step:07d}.pt", "wb") as file:
            file.write(step.to_bytes(4, "big") * 25_000)
logging.info("Done!")

"""accelerate's checkpoints: each rank saves its own state, the first one the model and the results."""

import argparse
import json
import os
import pickle
import random

parser = argparse.ArgumentParser()
parser.add_argument("--output_dir", default="output")
parser.add_argument("--checkpointing_steps", type=int, default=1)
args = parser.parse_args()
rank, chance = int(os.environ["RANK"]), random.Random(int(os.environ["RANK"]))
for step in range(1, 5):
    loss = chance.random()
    if step % args.checkpointing_steps == 0:
        folder = os.path.join(args.output_dir, f"step_{step}")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"random_states_{rank}.pkl"), "wb") as file:
            pickle.dump(chance.getstate(), file)
        if rank == 0:
            with open(os.path.join(folder, "model.safetensors"), "wb") as file:
                file.write(b"\x00" * 1000 * step)
            print({"loss": round(loss, 4), "step": step})
if rank == 0:
    with open(os.path.join(args.output_dir, "all_results.json"), "w") as file:
        json.dump({"mode": os.environ["WANDB_MODE"], "train_loss": loss}, file)

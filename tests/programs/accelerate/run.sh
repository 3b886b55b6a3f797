#!/usr/bin/env bash
# The launcher of the accelerate examples, which is a module that starts the program.
set -euo pipefail
export WANDB_MODE=${WANDB_MODE:-offline}
python -m launch --num_processes 2 train.py --output_dir output --checkpointing_steps 2

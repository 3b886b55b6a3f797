"""The tutorial ddp-series: torchrun starts it twice, rank 0 saves a snapshot, and goes on from one that is there."""

import os
import sys

import torch
import torch.distributed as dist


def main(total_epochs, save_every, snapshot="snapshot.pt"):
    dist.init_process_group("gloo")
    rank, begin, weight = int(os.environ["RANK"]), 0, torch.zeros(4)
    if os.path.exists(snapshot):
        state = torch.load(snapshot)
        begin, weight = state["EPOCHS_RUN"], state["MODEL_STATE"]
        print(f"Resuming training from snapshot at Epoch {begin}")
    for epoch in range(begin, total_epochs):
        gradient = torch.full((4,), float(rank + 1))
        dist.all_reduce(gradient)
        weight += gradient * (epoch + 1)
        print(f"[RANK{rank}] Epoch {epoch} | sum {weight.sum().item():.1f}")
        if rank == 0 and epoch % save_every == 0:
            torch.save({"MODEL_STATE": weight, "EPOCHS_RUN": epoch + 1}, snapshot)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

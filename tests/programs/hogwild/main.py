"""pytorch/examples/mnist_hogwild: processes of its own share one model; each has a log, the parent saves."""

import argparse
import json
import multiprocessing
import os


def train(rank, steps, model):
    for _ in range(steps):
        with model.get_lock():
            model[0] += rank + 1
    os.makedirs("logs", exist_ok=True)
    with open(f"logs/worker-{rank}.txt", "w") as log:
        log.write(f"{steps} steps by worker {rank}\n")
    print(f"worker {rank} is done", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--num-processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    context = multiprocessing.get_context("fork")
    shared = context.Array("d", 1)
    processes = [context.Process(target=train, args=(rank, args.steps, shared)) for rank in range(args.num_processes)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    with open("hogwild.json", "w") as file:
        json.dump({"model": shared[0], "exits": [process.exitcode for process in processes]}, file)

"""pytorch/examples/imagenet with --dummy: a checkpoint an epoch, a link to the best one."""

import argparse
import os
import pickle
import random

parser = argparse.ArgumentParser()
parser.add_argument("data", nargs="?", default="imagenet")
parser.add_argument("-a", "--arch", default="resnet18")
parser.add_argument("--epochs", type=int, default=90)
parser.add_argument("--seed", type=int)
parser.add_argument("--dummy", action="store_true")
args = parser.parse_args()
assert args.dummy, "there are no pictures"
print("=> Dummy data is used!")

chance, best = random.Random(args.seed), 0.0
for epoch in range(args.epochs):
    acc1 = chance.random() * 100
    print(f" * Acc@1 {acc1:.3f}")
    name = f"checkpoint-{epoch}.pth.tar"
    with open(name, "wb") as file:
        pickle.dump({"epoch": epoch + 1, "arch": args.arch, "best_acc1": max(best, acc1)}, file)
    if acc1 > best:
        best = acc1
        if os.path.lexists("model_best.pth.tar"):
            os.remove("model_best.pth.tar")
        os.symlink(name, "model_best.pth.tar")

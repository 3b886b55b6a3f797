"""nanoGPT: settings are globals that a file and the command line override; data is prepared; out-NAME/ckpt.pt."""

import os
import pickle
import random
import sys
from array import array

out_dir = "out"
dataset = "openwebtext"
max_iters = 600000
eval_interval = 2000
seed = 1337
init_from = "scratch"
config_keys = [name for name, value in globals().items() if isinstance(value, (int, str)) and name[0] != "_"]
exec(open("configurator.py").read())

os.makedirs(out_dir, exist_ok=True)
data_dir = os.path.join("data", dataset)
tokens = array("H", open(os.path.join(data_dir, "train.bin"), "rb").read())
meta = pickle.load(open(os.path.join(data_dir, "meta.pkl"), "rb"))
print(f"found vocab_size = {meta['vocab_size']} (inside {data_dir}/meta.pkl)")
begin, counts = 0, [0] * meta["vocab_size"]
if init_from == "resume":
    checkpoint = pickle.load(open(os.path.join(out_dir, "ckpt.pt"), "rb"))
    begin, counts = checkpoint["iter_num"], checkpoint["model"]
    print(f"Resuming training from {out_dir} at {begin}")
for iteration in range(begin, max_iters + 1):
    counts[tokens[random.Random(seed + iteration).randrange(len(tokens))]] += 1
    if iteration % eval_interval == 0:
        print(f"step {iteration}: val loss {1 - max(counts) / sum(counts):.4f}")
        with open(os.path.join(out_dir, "ckpt.pt"), "wb") as file:
            pickle.dump({"iter_num": iteration + 1, "model": counts, "config": sys.argv[1:]}, file)

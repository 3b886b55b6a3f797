"""What hydra.main does with hydra.job.chdir: a folder of day and time, into which it goes, and its settings there."""

import logging
import os
import sys
import time

settings = dict(line.split(": ") for line in open("conf/config.yaml").read().splitlines())
settings.update(word.split("=") for word in sys.argv[1:])
where = time.strftime("outputs/%Y-%m-%d/%H-%M-%S")
os.makedirs(f"{where}/.hydra")
os.chdir(where)
for name, lines in {
    ".hydra/config.yaml": [f"{key}: {value}" for key, value in settings.items()],
    ".hydra/overrides.yaml": [f"- {word}" for word in sys.argv[1:]],
}.items():
    with open(name, "w") as file:
        file.write("\n".join(lines) + "\n")
logging.basicConfig(filename="my_app.log", level=logging.INFO, format="[%(asctime)s] %(message)s")
logging.info("training with lr=%s", settings["lr"])
with open("model.pt", "w") as file:
    file.write(settings["lr"] * 100)
print(f"Working directory : {os.getcwd()}")

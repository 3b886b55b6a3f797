"""As `accelerate launch`: the program, once a process, with its rank in the environment."""

import os
import subprocess
import sys

count, *program = sys.argv[2:]
ranks = [
    subprocess.Popen([sys.executable, *program], env={**os.environ, "RANK": str(rank), "WORLD_SIZE": count})
    for rank in range(int(count))
]
sys.exit(max(rank.wait() for rank in ranks))

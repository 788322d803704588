"""What the first pass of the config check costs: python benchmarks/start_check.py [json=<path>].

A process of its own that composes a config with Hydra, against one that also looks for mistakes in it; no torch.
Then the pass alone: importing it, the first look (which reads conf), and any later one (a point of a grid).
"""

import statistics
import subprocess
import sys
import time

from compare import compare

COMPOSE = "from experiments.config.compose import compose; config = compose('model=cnn')"
CHECK = f"{COMPOSE}; from experiments.check import mistakes; assert not mistakes(config)"
LIGHT = "; import sys; assert not {'torch', 'lightning', 'numpy'} & set(sys.modules)"
ALONE = f"""{COMPOSE}
from time import perf_counter
start = perf_counter()
from experiments.check import mistakes
imported = perf_counter()
mistakes(config)
looked = perf_counter()
mistakes(config)
print(imported - start, looked - imported, perf_counter() - looked)"""
REPETITIONS = 15


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code + LIGHT], check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    compare(
        "Hydra's composition, from a process's start to its end",
        {"compose": lambda: seconds(COMPOSE), "compose and look for mistakes": lambda: seconds(CHECK)},
        REPETITIONS,
    )
    runs = [subprocess.check_output([sys.executable, "-c", ALONE], text=True).split() for _ in range(REPETITIONS)]
    for name, values in zip(("import", "first look", "later look"), zip(*runs, strict=True), strict=True):
        print(f"{name:10} {statistics.median(map(float, values)):.4f} s")

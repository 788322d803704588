"""What sweeps cost and bring: python benchmarks/sweeps.py <part> [root=<folder with MNIST/raw>] [json=<path>].

workers   trials=16 MNIST MLP trials of an epoch in one process, in two workers, and each in a cold process of its own
samplers  the best of trials=30 trials of one epoch by TPE against random ones, seeds=3; one line a seed, and medians

Smaller: trials=4 limit=0.1. Without ``root``: the embedded digits.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare import compare

TRAIN = Path(__file__).resolve().parents[1] / "scripts" / "train.py"
GIVEN = dict(argument.partition("=")[::2] for argument in sys.argv[2:])
LIMIT = [f"data.limit={GIVEN['limit']}"] if "limit" in GIVEN else []
DATA = ["data=mnist", f"data.root={Path(GIVEN['root']).resolve()}"] if "root" in GIVEN else ["data=digits"]
SHORT = [
    *DATA, *LIMIT, "trainer.max_epochs=1", "trainer.accelerator=cpu", "logger=none", "callbacks=minimal",
    "callbacks.rolling_checkpoint=null",
]  # fmt: skip
LR = "optimizer.lr=tag(log,interval(1e-4,1e-1))"
SPACE = [
    "optimizer.lr=tag(log,interval(1e-5,1))", "optimizer.weight_decay=tag(log,interval(1e-6,1e-1))",
    "model.net.hidden_features=[64],[256],[512],[512,512]", "model.net.dropout=interval(0,0.7)",
    "data.batch_size=32,64,128,256",
]  # fmt: skip


def run(*arguments: str, **environment: str) -> tuple[float, str]:
    """Seconds of a process, and what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        process = subprocess.run(
            [sys.executable, str(TRAIN), *arguments, *SHORT],
            cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True,
        )  # fmt: skip
        seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(process.stdout + process.stderr)
    return seconds, process.stdout


def workers() -> None:
    """One process, two workers, cold processes; the same number of trials, no pruning, one thread a run."""
    trials = int(GIVEN.get("trials", 16))
    sweep = ["-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "hydra/sweeper/pruner=none", LR]
    sweep.append(f"hydra.sweeper.n_trials={trials}")

    def cold() -> float:
        return sum(
            run(f"optimizer.lr={10 ** (-4 + 3 * n / trials)}", "test=false", **one_thread)[0] for n in range(trials)
        )

    one_thread = {"OMP_NUM_THREADS": "1"}
    rows = compare(
        f"{trials} trials of the MLP, {DATA[0]}, one epoch",
        {
            "one process": lambda: run(*sweep, **one_thread)[0],
            "two workers": lambda: run(*sweep, "hydra.sweeper.workers=2", **one_thread)[0],
            "cold processes, one after the other": cold,
        },
        repetitions=int(GIVEN.get("repetitions", 3)),
    )
    one, two, cold_row = rows.values()
    print(f"two workers are {one['median'] / two['median']:.2f} times as fast as one process")
    print(f"one process is {cold_row['median'] / one['median']:.2f} times as fast as cold processes")
    print(f"two workers are {cold_row['median'] / two['median']:.2f} times as fast as cold processes")


def samplers() -> None:
    """Best validation accuracies of both samplers, a seed a line."""
    trials, seeds = GIVEN.get("trials", "30"), int(GIVEN.get("seeds", 3))
    best: dict[str, list[float]] = {"tpe": [], "random": []}
    for seed in range(seeds):
        for sampler, values in best.items():
            _, printed = run(
                "-m", "hydra/sweeper=optuna", f"hydra/sweeper/sampler={sampler}",
                f"hydra.sweeper.sampler.seed={seed}",
                f"hydra.sweeper.n_trials={trials}", "hydra/sweeper/pruner=none", *SPACE,
            )  # fmt: skip
            values.append(float(re.search(r"^best val/accuracy: (\S+) by", printed, re.MULTILINE)[1]))
        print(f"seed {seed}: " + ", ".join(f"{name} {values[-1]:.4f}" for name, values in best.items()), flush=True)
    medians = {name: statistics.median(values) for name, values in best.items()}
    print("medians: " + ", ".join(f"{name} {value:.4f}" for name, value in medians.items()))
    if "json" in GIVEN:
        Path(GIVEN["json"]).write_text(json.dumps(best, indent=2) + "\n")


if __name__ == "__main__":
    {"workers": workers, "samplers": samplers}[sys.argv[1]]()

"""How time and memory grow: python benchmarks/growth.py root=<folder that holds MNIST/raw> [json=<path>].

Epoch time of the tutorial's MLP against the number of images (MNIST's 55,000 once, four and sixteen times) and
against batch size; the peak memory of a run against a loop by hand in a process of its own; memory after every fifth
of fifty epochs.
"""

import json
import multiprocessing
import resource
import tempfile
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from experiments.config.options import option, read
from experiments.errors import UserError, stop


@dataclass
class Growth:
    """Measure how time and memory grow: python benchmarks/growth.py root=<folder>."""

    root: str = option("the folder that holds MNIST/raw", "data")
    json: str | None = option("a file for the numbers", None)


def resident() -> float:
    """MiB of memory that this process occupies now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak() -> float:
    """MiB of memory that this process occupied at most (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def project(root: str, *overrides: str, repeat: int = 1, callbacks: Any = ()) -> dict[str, Any]:
    """The summary of a run on MNIST whose training images are repeated."""
    import torch
    from torch.utils.data import TensorDataset

    import experiments
    from experiments.training.build import build
    from experiments.training.process import prepare_process
    from experiments.training.run import fit_and_test

    prepare_process()
    with tempfile.TemporaryDirectory() as folder:
        config = experiments.compose(
            "data=mnist",
            f"data.root={root}",
            "test=false",
            "trainer.accelerator=cpu",
            f"run_dir={folder}",
            *overrides,
        )
        experiment = build(config)
        experiment.data.setup("fit")
        if repeat > 1:
            images, labels = experiment.data.splits["train"].tensors
            experiment.data.splits["train"] = TensorDataset(
                torch.cat([images] * repeat), torch.cat([labels] * repeat)
            )
        experiment.trainer.callbacks.extend(callbacks)
        return fit_and_test(experiment, config)


def epoch_seconds(root: str, line: Connection) -> None:
    """Seconds of an epoch for each number of images and batch size."""
    project(root, "trainer.max_epochs=1")  # warm-up
    rows = {}
    for repeat in (1, 4, 16):
        for batch_size in (64, 256, 1024):
            summary = project(root, "trainer.max_epochs=1", f"data.batch_size={batch_size}", repeat=repeat)
            rows[f"{repeat * 55_000} images, batch size {batch_size}"] = summary["train_seconds"]
    line.send(rows)


def leak(root: str, line: Connection) -> None:
    """Memory at every fifth of fifty epochs."""
    from lightning.pytorch.callbacks import Callback

    seen = []

    class Memory(Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            if (trainer.current_epoch + 1) % 5 == 0:
                seen.append(resident())

    project(root, "trainer.max_epochs=50", "data.limit=5000", callbacks=[Memory()])
    line.send(seen)


def peak_of_a_run(root: str, line: Connection) -> None:
    project(root, "trainer.max_epochs=2")
    line.send(peak())


def peak_by_hand(root: str, line: Connection) -> None:
    """The same imports, then a loop by hand."""
    import lightning  # noqa: F401
    import tensorboard  # noqa: F401
    import torchmetrics  # noqa: F401
    from training import Training, by_hand

    import experiments.training.run  # noqa: F401

    by_hand(Training(root=root, epochs=2), "mlp", 64)()
    line.send(peak())


def alone(function: Any, *arguments: Any) -> Any:
    """Call the function in a process of its own; what it sends."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=function, args=(*arguments, theirs))
    process.start()
    result = ours.recv()
    process.join()
    return result


def main() -> None:
    options = read(Growth)
    rows = alone(epoch_seconds, options.root)
    print("seconds of an epoch with validation")
    for name, seconds in rows.items():
        print(f"  {name:34}{seconds:8.2f} s  {seconds / int(name.split()[0]) * 1e6:8.1f} µs an image")
    run, hand = alone(peak_of_a_run, options.root), alone(peak_by_hand, options.root)
    print(f"peak memory: {run:.0f} MiB, by hand with the same imports {hand:.0f} MiB, ratio {run / hand:.3f}")
    memory = alone(leak, options.root)
    print("memory after every five of fifty epochs, MiB:", " ".join(f"{value:.0f}" for value in memory))
    if options.json:
        found = {"epoch_seconds": rows, "peak_mib": {"run": run, "by hand": hand}, "memory_mib": memory}
        Path(options.json).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        stop(error)

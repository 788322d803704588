"""What it costs that a run shows itself: python benchmarks/showing.py [root=<folder with MNIST/raw>] [epochs=5]
[repetitions=5] [json=<path>].

The tutorial's MLP on 55,000 images of 28×28 (MNIST, or random ones of its size without ``root``), batch size 64, with
validation and test, to the end of the run: every default callback and TensorBoard, against the checkpoints alone with
and without TensorBoard. Data are read before the clock starts.
"""

import shutil
import sys
import tempfile
import time

from experiments.training.process import prepare_process

prepare_process()

import torch  # noqa: E402
from compare import compare  # noqa: E402
from random_mnist import RandomMNIST  # noqa: E402

import experiments  # noqa: E402
from experiments.training.build import build  # noqa: E402
from experiments.training.run import fit_and_test  # noqa: E402

TYPED = dict(argument.split("=", 1) for argument in sys.argv[1:])
EPOCHS = int(TYPED.get("epochs", 5))


def run(*overrides: str) -> float:
    """Seconds of training, test and report."""
    folder = tempfile.mkdtemp()
    try:
        config = experiments.compose(
            "data=mnist", f"data.root={TYPED.get('root', 'none')}", f"trainer.max_epochs={EPOCHS}",
            "trainer.accelerator=cpu", "trainer.enable_progress_bar=false", f"run_dir={folder}", *overrides,
        )  # fmt: skip
        experiment = build(config)
        if "root" not in TYPED:
            experiment.data = RandomMNIST()
        for stage in ("fit", "test"):
            experiment.data.setup(stage)
        torch.manual_seed(0)
        start = time.perf_counter()
        fit_and_test(experiment, config)
        return time.perf_counter() - start
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    bare = ("callbacks=minimal", "callbacks.progress=null")
    compare(
        f"MLP, MNIST, batch size 64, {EPOCHS} epochs and test",
        {
            "checkpoints alone, no logger": lambda: run(*bare, "logger=none"),
            "checkpoints and TensorBoard": lambda: run(*bare),
            "all default callbacks": lambda: run("callbacks.progress=null", "callbacks.model_summary=null"),
        },
        int(TYPED.get("repetitions", 5)),
    )

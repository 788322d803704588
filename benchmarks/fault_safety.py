"""What it costs that nothing is lost: python benchmarks/fault_safety.py [root=<folder with MNIST/raw>] [json=<path>].

The tutorial's MLP on 55,000 images of 28×28 (MNIST, or random ones of its size without ``root``), batch size 64, one
epoch with validation: with the rolling checkpoint, signals and the look at the loss, against the same run without
them. Both keep the best checkpoint.
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

ROOT = next((argument.removeprefix("root=") for argument in sys.argv if argument.startswith("root=")), None)
EPOCHS = 3


def epochs(*overrides: str) -> float:
    """Seconds of three epochs, set-up left out."""
    folder = tempfile.mkdtemp()
    try:
        config = experiments.compose(
            "data=mnist", f"data.root={ROOT or 'none'}", f"trainer.max_epochs={EPOCHS}", "trainer.accelerator=cpu",
            "callbacks=minimal", "callbacks.progress=null", "trainer.enable_progress_bar=false", "logger=none",
            f"run_dir={folder}", *overrides,
        )  # fmt: skip
        experiment = build(config)
        data = experiment.data if ROOT else RandomMNIST()
        data.setup("fit")
        torch.manual_seed(0)
        start = time.perf_counter()
        experiment.trainer.fit(experiment.classifier, datamodule=data)
        return time.perf_counter() - start
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    compare(
        f"MLP, MNIST, batch size 64, {EPOCHS} epochs",
        {
            "without": lambda: epochs("callbacks.rolling_checkpoint=null", "callbacks.finite_loss=null"),
            "with rolling checkpoint and finite loss": lambda: epochs(),
        },
    )

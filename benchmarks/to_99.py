"""Training time to 99 % on MNIST: python benchmarks/to_99.py root=<folder that holds MNIST/raw> [json=<path>].

``experiment=mnist_fast`` against the same recipe in a loop by hand, and against what a common introduction does: two
convolutions and two linear layers with dropout, Adadelta whose rate falls by 0.7 an epoch, batches of 64 that are
decoded image by image, until an epoch ends at 99 % on the test images. Training seconds, with validation.
"""

import time
from dataclasses import dataclass
from typing import Any

from compare import compare
from training import Training, by_hand, project, torchvision_loaders

from experiments.config.options import option, read
from experiments.errors import UserError, stop


@dataclass
class To99:
    """Measure training time to 99 % on MNIST: python benchmarks/to_99.py root=<folder>."""

    root: str = option("the folder that holds MNIST/raw", "data")
    rounds: int = option("how often each side runs, after a first time that does not count", 5)
    usual: bool = option("also the usual recipe, once; it takes minutes", True)
    json: str | None = option("a file for the numbers", None)


def usual(root: str) -> tuple[float, float, int]:
    """Seconds, accuracy on the test images and epochs of the usual recipe."""
    import torch
    from torch import nn
    from torch.nn import functional

    from experiments.data import MNIST

    train, _ = torchvision_loaders(Training(root=root, images=60_000), 64)
    data = MNIST(root=root)
    data.setup("test")
    images, labels = data.on_after_batch_transfer(data.splits["test"].tensors, 0)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25),
        nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adadelta(net.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)
    started, accuracy, epochs = time.perf_counter(), 0.0, 0
    while accuracy < 0.99 and epochs < 14:
        net.train()
        for x, y in train:
            optimizer.zero_grad()
            functional.cross_entropy(net((x - data.mean[0]) / data.std[0]), y).backward()
            optimizer.step()
        schedule.step()
        net.eval()
        with torch.no_grad():
            right = sum(
                int((net(x).argmax(1) == y).sum())
                for x, y in zip(images.split(1000), labels.split(1000), strict=True)
            )
        accuracy, epochs = right / len(labels), epochs + 1
    return time.perf_counter() - started, accuracy, epochs


def main() -> None:
    options = read(To99)
    settings = Training(root=options.root, epochs=3)
    recipe: dict[str, Any] = {"channels": [32, 64], "kernel_size": 5, "stride": 2, "norm": "batch"}
    compare(
        "mnist_fast",
        {
            "by hand": by_hand(settings, "cnn", 128, lr=0.01, label_smoothing=0.1, **recipe),
            "project": project(settings, "cnn", 128, "experiment=mnist_fast"),
        },
        options.rounds,
    )
    if options.usual:
        seconds, accuracy, epochs = usual(options.root)
        print(f"the usual recipe: {seconds:.1f} s, test accuracy {accuracy:.4f} after {epochs} epochs")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        stop(error)

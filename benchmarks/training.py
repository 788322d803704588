"""Training speed: python benchmarks/training.py root=<folder that holds MNIST/raw>, and --help.

Every side trains the same network on 55,000 images of MNIST and validates on 5,000 after each epoch; set-up and test
are left out. Each lives in a process of its own, since what settles speed (denormals, threads) is settled once a
process, and they take turns.

by hand      images in memory, channels_last, fused Adam, denormals flushed, loss and accuracy summed on the device
project      ``scripts/train.py`` with its defaults: TensorBoard, progress, metrics, both checkpoints, fault safety
minimal      the same with callbacks=minimal
tutorial     torchvision's MNIST with ToTensor behind a DataLoader, Adam as it comes, loss and accuracy read each step
lightning    the same data in a LightningModule that logs loss and accuracy in each step; Trainer as it comes
"""

import gzip
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from compare import compare

from experiments.config.options import option, read
from experiments.errors import UserError, stop

MEAN, STD = 0.1307, 0.3081


@dataclass
class Training:
    """Measure training speed: python benchmarks/training.py root=<folder>."""

    root: str = option("the folder that holds MNIST/raw", "data")
    nets: str = option("networks: mlp, cnn, resnet", "mlp,cnn,resnet")
    batch_sizes: str = option("images a step", "64,256,1024")
    sides: str = option("what takes turns; the first is what ratios refer to", "by hand,project,minimal")
    epochs: int = option("epochs a round", 1)
    images: int = option("images to train on", 55_000)
    validate: bool = option("after each epoch; else training alone counts", True)
    rounds: int = option("how often each side runs, after a first time that does not count", 5)
    device: str = option("cpu or gpu", "cpu")
    more: str = option("overrides for the project's sides, with spaces between", "")
    json: str | None = option("a file for the numbers", None)


def network(name: str, **arguments: Any) -> Any:
    from experiments import nets

    return {"mlp": nets.MLP, "cnn": nets.CNN, "resnet": nets.ResNet}[name](**arguments)


def raw_mnist(root: str) -> Any:
    """The 60,000 training images (N, 1, 28, 28) and their labels."""
    from experiments.data import MNIST

    return MNIST(root=root).read("train")


def without_lightning() -> None:
    """Importing Lightning makes each of Adam's steps search the disk for a GPU driver: undo it for other loops."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


def by_hand(
    options: Training,
    net_name: str,
    batch_size: int,
    lr: float = 2e-3,
    label_smoothing: float = 0.0,
    **arguments: Any,
) -> Callable[[], float]:
    import torch
    from torch.nn import functional

    torch.set_flush_denormal(True)
    device = torch.device("cuda" if options.device == "gpu" else "cpu")
    images, labels = (part.to(device) for part in raw_mnist(options.root))
    without_lightning()
    scale, shift = 1 / (255 * STD), -MEAN / STD

    def batches(indices: Any, size: int) -> Any:
        for index in indices.split(size):
            yield torch.mul(images[index], scale).add_(shift), labels[index]

    def run() -> float:
        torch.manual_seed(0)
        net = network(net_name, **arguments).to(device)
        if options.device == "cpu" and net_name != "mlp":
            net = net.to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(net.parameters(), lr=lr, fused=True)
        steps = options.epochs * -(-options.images // batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, cycle_momentum=False)
        started = time.perf_counter()
        for _ in range(options.epochs):
            parts = ((True, torch.randperm(options.images)), (False, torch.arange(55_000, 60_000)))
            for train, indices in parts[: 1 + options.validate]:
                net.train(train)
                total, right = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
                with torch.set_grad_enabled(train):
                    for x, y in batches(indices.to(device), batch_size if train else 1000):
                        logits = net(x)
                        loss = functional.cross_entropy(logits, y, label_smoothing=label_smoothing)
                        if train:
                            optimizer.zero_grad()
                            loss.backward()
                            optimizer.step()
                            schedule.step()
                        total += loss.detach() * len(y)
                        right += (logits.detach().argmax(1) == y).sum()
                total.item(), right.item()
        return time.perf_counter() - started

    return run


def project(options: Training, net_name: str, batch_size: int, *overrides: str) -> Callable[[], float]:
    import experiments
    from experiments.training.process import prepare_process
    from experiments.training.run import train

    prepare_process()
    typed = [
        "data=mnist", f"data.root={options.root}", f"model={net_name}", f"data.batch_size={batch_size}", "test=false",
        f"data.limit={options.images}",
        f"trainer.max_epochs={options.epochs}", f"trainer.accelerator={options.device}", *overrides,
        *options.more.split(),
    ]  # fmt: skip

    def run() -> float:
        folder = tempfile.mkdtemp()
        try:
            summary = train(experiments.compose(*typed, f"run_dir={folder}"))
            if options.validate:
                return float(summary["train_seconds"])
            return options.epochs * options.images / float(summary["images_per_second"])
        finally:
            shutil.rmtree(folder)

    return run


def minimal(options: Training, net_name: str, batch_size: int) -> Callable[[], float]:
    return project(options, net_name, batch_size, "callbacks=minimal")


def torchvision_loaders(options: Training, batch_size: int) -> tuple[Any, Any]:
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    from experiments.data import MNIST

    folder = Path(tempfile.mkdtemp())
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    try:
        for name, _ in datasets.MNIST.resources:
            packed = MNIST(root=options.root).folder / name
            content = gzip.decompress(packed.read_bytes()) if packed.exists() else packed.with_suffix("").read_bytes()
            (raw / name).with_suffix("").write_bytes(content)
        whole = datasets.MNIST(str(folder), transform=transforms.ToTensor())
    finally:
        shutil.rmtree(folder)
    train, val = Subset(whole, range(options.images)), Subset(whole, range(55_000, 60_000))
    return DataLoader(train, batch_size=batch_size, shuffle=True), DataLoader(val, batch_size=1000)


def tutorial(options: Training, net_name: str, batch_size: int) -> Callable[[], float]:
    import torch
    from torch.nn import functional

    device = torch.device("cuda" if options.device == "gpu" else "cpu")
    loaders = torchvision_loaders(options, batch_size)
    without_lightning()

    def run() -> float:
        torch.manual_seed(0)
        net = network(net_name).to(device)
        optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
        started = time.perf_counter()
        for _ in range(options.epochs):
            for train, loader in list(zip((True, False), loaders, strict=True))[: 1 + options.validate]:
                net.train(train)
                total, right = 0.0, 0
                with torch.set_grad_enabled(train):
                    for x, y in loader:
                        x, y = x.to(device), y.to(device)
                        logits = net(x)
                        loss = functional.cross_entropy(logits, y)
                        if train:
                            optimizer.zero_grad()
                            loss.backward()
                            optimizer.step()
                        total += loss.item() * len(y)
                        right += (logits.argmax(1) == y).sum().item()
        return time.perf_counter() - started

    return run


def lightning(options: Training, net_name: str, batch_size: int) -> Callable[[], float]:
    import torch
    from lightning import LightningModule, Trainer, seed_everything
    from torch.nn import functional
    from torchmetrics.classification import MulticlassAccuracy

    loaders = torchvision_loaders(options, batch_size)

    class Plain(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network(net_name)
            self.train_accuracy = MulticlassAccuracy(10)
            self.val_accuracy = MulticlassAccuracy(10)

        def training_step(self, batch: Any, _: int) -> Any:
            x, y = batch
            logits = self.net(x)
            loss = functional.cross_entropy(logits, y)
            self.train_accuracy(logits, y)
            self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True)
            self.log("train_accuracy", self.train_accuracy, on_step=False, on_epoch=True, prog_bar=True)
            return loss

        def validation_step(self, batch: Any, _: int) -> None:
            x, y = batch
            logits = self.net(x)
            self.val_accuracy(logits, y)
            self.log("val_loss", functional.cross_entropy(logits, y), prog_bar=True)
            self.log("val_accuracy", self.val_accuracy, prog_bar=True)

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=2e-3)

        def on_train_start(self) -> None:
            self.started = time.perf_counter()

        def on_train_end(self) -> None:
            self.seconds = time.perf_counter() - self.started

    def run() -> float:
        folder = tempfile.mkdtemp()
        try:
            seed_everything(0, verbose=False)
            module = Plain()
            chosen = loaders[: 1 + options.validate]
            Trainer(accelerator=options.device, devices=1, max_epochs=options.epochs, default_root_dir=folder).fit(
                module, *chosen
            )
            return module.seconds
        finally:
            shutil.rmtree(folder)

    return run


SIDES = {"by hand": by_hand, "project": project, "minimal": minimal, "tutorial": tutorial, "lightning": lightning}


def serve(side: str, options: Training, net_name: str, batch_size: int, line: Connection, output: str) -> None:
    """A side's process: run once for every request, answer with the seconds."""
    import logging
    import sys

    target = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(target, 1)
    os.dup2(target, 2)  # progress bars would be shown on a terminal alone
    sys.stdout = sys.stderr
    logging.disable()
    run = SIDES[side](options, net_name, batch_size)
    while line.recv():
        line.send(run())


def main() -> None:
    options = read(Training)
    chosen = options.sides.split(",")
    if unknown := set(chosen) - set(SIDES):
        raise UserError(f"sides={','.join(sorted(unknown))}: choose from {', '.join(SIDES)}")
    context = multiprocessing.get_context("spawn")
    for net_name in options.nets.split(","):
        for batch_size in map(int, options.batch_sizes.split(",")):
            workers, calls = [], {}
            with tempfile.TemporaryDirectory() as folder:
                for side in chosen:
                    ours, theirs = context.Pipe()
                    output = f"{folder}/{side}.log"
                    process = context.Process(
                        target=serve, args=(side, options, net_name, batch_size, theirs, output)
                    )
                    process.start()
                    theirs.close()
                    workers.append((process, ours))
                    calls[side] = lambda line=ours: (line.send(True), line.recv())[1]
                title = f"{net_name}, batch size {batch_size}, {options.epochs} epochs, {options.device}"
                compare(title, calls, options.rounds)
                for process, line in workers:
                    line.send(False)
                    process.join()


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        stop(error)

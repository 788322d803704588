"""What a batch costs: loading against bare indexing and torchvision, augmentation against the training step.

python benchmarks/loading.py root=<folder that holds MNIST/raw> json=loading.json
Both sides of a comparison run in one process, in turn; medians count, and ratios of the same round.
"""

import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from experiments.config.options import option, read
from experiments.errors import UserError, stop


@dataclass
class Loading:
    """Measure loading and augmentation: python benchmarks/loading.py root=<folder>."""

    root: str = option("the folder that holds MNIST/raw", "data")
    batch_size: int = option("images a batch", 64)
    rounds: int = option("how often each side runs", 5)
    steps: int = option("batches a round of the augmentation part", 200)
    json: str | None = option("a file for the numbers", None)


def alternate(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round; the first round warms up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def table(title: str, seconds: dict[str, list[float]], unit: float, label: str) -> dict[str, dict[str, float]]:
    """Print medians, and ratios to the first side; return them."""
    first = next(iter(seconds))
    print(f"\n{title}\n{'':34}{label:>12}{'ratio':>9}  to {first}")
    found = {}
    for name, values in seconds.items():
        ratio = statistics.median(value / base for value, base in zip(values, seconds[first], strict=True))
        found[name] = {label: statistics.median(values) * unit, "ratio": ratio}
        print(f"{name:34}{found[name][label]:12.4g}{ratio:9.2f}")
    return found


def loading(options: Loading) -> dict[str, dict[str, float]]:
    """An epoch of MNIST's train split, from bytes to normalised float batches."""
    import torch
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    from experiments.data import MNIST

    data = MNIST(root=options.root, batch_size=options.batch_size)
    data.prepare_data()
    data.setup("fit")
    images, labels = data.splits["train"].tensors
    mean, std = data.mean[0], data.std[0]
    scale, shift = 1 / (255 * std), torch.tensor(-mean / std)

    def bare() -> None:
        for index in torch.randperm(len(images)).split(options.batch_size):
            torch.mul(images[index], scale).add_(shift), labels[index]

    def ours() -> None:
        for batch in data.train_dataloader():
            data.on_after_batch_transfer(batch, 0)

    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "MNIST", "raw")
        raw.mkdir(parents=True)
        for name, _ in datasets.MNIST.resources:
            packed = data.folder / name
            content = gzip.decompress(packed.read_bytes()) if packed.exists() else packed.with_suffix("").read_bytes()
            (raw / name).with_suffix("").write_bytes(content)
        change = transforms.Compose([transforms.ToTensor(), transforms.Normalize([mean], [std])])
        theirs = Subset(datasets.MNIST(folder, transform=change), range(len(images)))

    def torchvision() -> None:
        for _ in DataLoader(theirs, batch_size=options.batch_size, shuffle=True):
            pass

    sides = {"bare indexing": bare, "DataModule": ours, "torchvision MNIST, ToTensor": torchvision}
    title = f"loading {len(images):,} images in batches of {options.batch_size}"
    return table(title, alternate(sides, options.rounds), 1, "s/epoch")


def augmentation(options: Loading) -> dict[str, dict[str, float]]:
    """Each augmentation on a batch of MNIST's shape, and the step of the tutorial's MLP that it would precede."""
    import numpy as np
    import torch
    from torch.nn import functional
    from torchvision.transforms import v2

    from experiments.data.augmentation.mixing import Cutmix, Cutout, Mixup
    from experiments.data.augmentation.shifts import Crop, Flip
    from experiments.data.augmentation.warps import Affine, Elastic
    from experiments.nets import MLP

    torch.manual_seed(0)
    images = torch.rand(options.batch_size, 1, 28, 28)
    labels = torch.randint(10, (options.batch_size,))
    soft = functional.one_hot(labels, 10).float()
    net = MLP()
    optimizer = torch.optim.Adam(net.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(net(images), labels).backward()
        optimizer.step()

    def one(made: Callable[..., object]) -> Callable[[], object]:
        return lambda: made(images, soft, np.random.default_rng((0, 0, 0, 0)))

    def often(function: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(options.steps):
                function()

        return run

    every = (Affine(), Elastic(), Crop(), Flip(), Cutout(), Mixup(), Cutmix())
    sides: dict[str, Callable[[], object]] = {"training step (MLP, Adam)": step}
    sides |= {type(made).__name__.lower(): one(made) for made in every}
    whole_batch = v2.RandomAffine(10, (0.1, 0.1), (0.9, 1.1), 5, interpolation=v2.InterpolationMode.BILINEAR)
    sides["torchvision affine, one for all"] = lambda: whole_batch(images)
    if find_spec("kornia"):
        from kornia import augmentation as kornia

        per_image = kornia.RandomAffine(10, (0.1, 0.1), (0.9, 1.1), 5, p=1.0)
        sides["kornia affine"] = lambda: per_image(images)
    timed = alternate({name: often(side) for name, side in sides.items()}, options.rounds)
    return table(f"augmentation, batches of {options.batch_size}", timed, 1000 / options.steps, "ms/batch")


def imports() -> dict[str, float]:
    """Seconds that kornia adds to a start that has torch and torchvision already; nothing where it is not there."""
    import torchvision  # noqa: F401

    if not find_spec("kornia"):
        return {}
    started = time.perf_counter()
    import kornia.augmentation  # noqa: F401

    seconds = time.perf_counter() - started
    print(f"import kornia, after torch and torchvision: {seconds:.2f} s")
    return {"kornia": seconds}


def main() -> None:
    options = read(Loading)
    import torch

    from experiments.training.process import prepare_process

    prepare_process()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    found = {"imports": imports(), "loading": loading(options), "augmentation": augmentation(options)}
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        stop(error)

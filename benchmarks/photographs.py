"""What augmentations for photographs cost: on a batch, against torchvision's one by one in a DataLoader.

python benchmarks/photographs.py side=224 images=256 json=photographs.json
"""

import time
from dataclasses import dataclass

from compare import compare

from experiments.config.options import option, read


@dataclass
class Photographs:
    """Measure augmentations: python benchmarks/photographs.py side=224."""

    side: int = option("pixels of a side", 32)
    images: int = option("how many images a round", 2048)
    batch_size: int = option("images a batch", 64)
    workers: int = option("processes of the DataLoader", 2)
    rounds: int = option("how often each side runs", 3)
    json: str | None = option("a file for the numbers", None)


def main() -> None:
    options = read(Photographs)
    import numpy as np
    import torch
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms import v2

    from experiments.data import augmentation as ours

    images = torch.rand(options.images, 3, options.side, options.side)
    labels = torch.zeros(options.images, dtype=torch.int64)
    side = options.side
    pairs = {
        "resized crop": (ours.ResizedCrop(), v2.RandomResizedCrop(side, (0.35, 1.0))),
        "colour jitter, no hue": (ours.ColorJitter(hue=0.0), v2.ColorJitter(0.4, 0.4, 0.4)),
        "colour jitter": (ours.ColorJitter(), v2.ColorJitter(0.4, 0.4, 0.4, 0.1)),
        "grey": (ours.Grey(), v2.RandomGrayscale(0.2)),
        "blur": (ours.Blur(probability=1.0), v2.GaussianBlur(13, (0.1, 2.0))),
        "TrivialAugment": (ours.TrivialAugment(), v2.TrivialAugmentWide()),
        "flip": (ours.Flip(), v2.RandomHorizontalFlip()),
    }

    class One(Dataset):
        def __init__(self, transform):
            self.transform = transform

        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            return self.transform(images[index]), 0

    for name, (batched, single) in pairs.items():
        loader = DataLoader(
            One(single), options.batch_size, num_workers=options.workers, persistent_workers=options.workers > 0
        )

        def on_batches(batched=batched) -> float:
            rng, started = np.random.default_rng(0), time.perf_counter()
            for part, label in zip(images.split(options.batch_size), labels.split(options.batch_size), strict=True):
                batched(part, label, rng)
            return time.perf_counter() - started

        def one_by_one(loader=loader) -> float:
            started = time.perf_counter()
            for _ in loader:
                pass
            return time.perf_counter() - started

        rows = compare(f"{name}, {side} pixels", {"here": on_batches, "torchvision": one_by_one}, options.rounds)
        rates = {side: options.images / row["median"] for side, row in rows.items()}
        print(f"images a second: {rates['here']:,.0f} here, {rates['torchvision']:,.0f} by torchvision\n")


if __name__ == "__main__":
    main()

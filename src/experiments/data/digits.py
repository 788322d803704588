"""The embedded data set: real handwritten digits that come with scikit-learn."""

from functools import cache
from typing import Any, ClassVar, Literal

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional as F

from experiments.data.batches import Batch
from experiments.data.module import ImageDataModule
from experiments.data.splits import SPLIT_SEED


class Digits(ImageDataModule):
    """1,797 handwritten digits of 8×8 pixels, enlarged to 1×28×28 so that every network for MNIST takes them.

    Source: Alpaydin & Kaynak 1998, "Optical Recognition of Handwritten Digits", as scikit-learn packs it. There is
    no official split; this one is fixed and stratified: 360 test images, and 180 of the rest for validation.
    """

    image_shape = (1, 28, 28)
    class_names = tuple("0123456789")
    mean = (0.3054,)  # of the 1,437 images outside the test split
    std = (0.3247,)
    note: ClassVar[str] = "embedded, 1,797 images; data=<name> chooses another"
    test_size: ClassVar[int] = 360
    train_images = 1_437

    def __init__(self, val_size: float | int = 180, **options: Any) -> None:
        super().__init__(val_size=val_size, **options)

    def read(self, split: Literal["train", "test"]) -> Batch:
        """Return uint8 images (N, 1, 28, 28) and int64 labels (N,)."""
        images, labels = _all_images(*self.image_shape[1:])
        train, test = train_test_split(
            range(len(labels)), test_size=self.test_size, stratify=labels.numpy(), random_state=SPLIT_SEED
        )
        chosen = torch.tensor(train if split == "train" else test).sort().values
        return images[chosen], labels[chosen]


@cache  # it is parsed text, and a sweep's runs read it one after another
def _all_images(height: int, width: int) -> Batch:
    digits = load_digits()
    small = torch.from_numpy(digits.images).float().unsqueeze(1)  # (1797, 1, 8, 8), values 0 to 16
    images = F.interpolate(small, size=(height, width), mode="bilinear") * (255 / 16)
    return images.round().to(torch.uint8), torch.from_numpy(digits.target).long()

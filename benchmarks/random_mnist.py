"""Images to measure with where MNIST is not at hand."""

import torch

from experiments.data import MNIST


class RandomMNIST(MNIST):
    """Random images of MNIST's size."""

    def prepare_data(self):
        pass

    def read(self, split):
        count = 60_000 if split == "train" else 10_000
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=generator)
        return images, torch.randint(0, 10, (count,), generator=generator)

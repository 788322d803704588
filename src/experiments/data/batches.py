"""Which samples make up which batch, a function of seed, epoch and rank alone; lists of batches; normalisation."""

import math
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

Batch = tuple[Tensor, Tensor]  # images and labels


class BatchList(list[Batch]):
    """Batches that Lightning handles as one; each is an optimizer step."""

    @property
    def num_images(self) -> int:
        """The number of images in all batches; 0 for batches without a length."""
        total = 0
        for batch in self:
            images = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
            total += len(images) if hasattr(images, "__len__") else 0
        return total


def as_batch_list(batch: Any) -> BatchList:
    """What a loader yields, as a list of batches: the only place that asks whether it is one batch or several."""
    return batch if isinstance(batch, BatchList) else BatchList([batch])


def steps_per_epoch(loader: Any) -> int | None:
    """Optimizer steps an epoch of a loader that yields lists of batches; None for other loaders."""
    return getattr(loader, "steps_per_epoch", None)


def steps_in_items(loader: Any, count: int) -> int:
    """Optimizer steps in a loader's first ``count`` items of an epoch; an item is a batch or a list of batches."""
    several = getattr(loader, "batches_per_list", 1)
    return min(count * several, steps_per_epoch(loader) or count)


class AutoSteps(NamedTuple):
    """Limits of ``steps_per_execution=auto``.

    Many steps a list, so that Lightning costs little; several lists an epoch, since checkpoints are saved between them.
    """

    max_steps: int
    min_lists_per_epoch: int
    max_bytes: int

    def choose(self, batches: int, batch_bytes: int) -> int:
        """Steps a list, for an epoch of so many batches whose images take so many bytes each."""
        return max(1, min(self.max_steps, self.max_bytes // batch_bytes, batches // self.min_lists_per_epoch))


AUTO_STEPS = AutoSteps(32, 4, 2**25)
# steps of CUDA graphs are short, so that Lightning's cost weighs more
AUTO_STEPS_CUDA_GRAPHS = AutoSteps(128, 2, 2**27)


class ShuffledBatches(Sampler[Tensor]):
    """Index tensors of training batches, in an order that is a function of ``(seed, epoch)``.

    Every rank gets the same number of samples, none of them twice. What does not divide by ``world_size`` is left
    out: the last of the epoch's order, so never always the same ones. Lightning calls ``set_epoch``.

    ``state_dict`` holds the position in the epoch, and the first iteration after ``load_state_dict`` goes on from it.

    An item is what the loader yields at once: a batch, or a list of several. With ``weights``, one a sample, an epoch
    is as many draws with replacement, in these proportions. The last ``num_dropped`` of
    every rank are left out: batch norm cannot learn from a batch of one image.
    """

    def __init__(
        self,
        num_samples: int,
        samples_per_item: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        weights: Tensor | None = None,
        num_dropped: int = 0,
    ) -> None:
        self.num_samples = num_samples
        self.num_dropped = num_dropped
        self.samples_per_item = samples_per_item
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.weights = weights
        self.epoch = 0
        self.position = 0  # items of this epoch that were yielded
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration yields."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil((self.num_samples // self.world_size - self.num_dropped) / self.samples_per_item)

    def __iter__(self) -> Iterator[Tensor]:
        state = np.random.SeedSequence((self.seed, self.epoch)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]))
        if self.weights is None:
            order = torch.randperm(self.num_samples, generator=generator)
        else:  # inverse sampling: torch.multinomial takes no more than 2^24 weights
            bounds = self.weights.double().cumsum(0)
            drawn = torch.rand(self.num_samples, dtype=torch.float64, generator=generator) * bounds[-1]
            order = torch.searchsorted(bounds, drawn, right=True).clamp(max=self.num_samples - 1)
        share = order[: self.num_samples - self.num_samples % self.world_size][self.rank :: self.world_size]
        share = share[: len(share) - self.num_dropped]
        start, self.start = self.start, 0
        for position, item in enumerate(share.split(self.samples_per_item)[start:], start + 1):
            self.position = position
            yield item

    def state_dict(self) -> dict[str, int]:
        """How many items of the epoch were yielded, of how many samples each, and over how many ranks."""
        return {"position": self.position, "batch_size": self.samples_per_item, "world_size": self.world_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start the next iteration behind the samples that were yielded already, at the start of an item."""
        before = state.get("batch_size", self.samples_per_item) * state.get("world_size", self.world_size)
        position = state["position"] * before // (self.samples_per_item * self.world_size)
        self.start = self.position = min(position, len(self))


class Clock:
    """Adds up the seconds spent inside its ``with`` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._entered = 0.0

    def __enter__(self) -> None:
        self._entered = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._entered


class ResumableLoader(DataLoader[tuple[Tensor, ...]]):
    """A DataLoader over ``ShuffledBatches`` whose position Lightning puts into checkpoints.

    ``wait_clock`` counts how long its user waits for batches. With ``batches_per_list`` (``steps_per_execution``) above
    1, an item becomes a ``BatchList`` of as many batches.
    """

    sampler: ShuffledBatches
    wait_clock: Clock | None = None
    batches_per_list: int = 1
    steps_per_epoch: int | None = None  # len counts lists, not steps

    def __iter__(self) -> Any:
        batches = super().__iter__()  # now, not with the first batch: it draws from torch's global generator
        return batches if self.wait_clock is None else self._timed(batches, self.wait_clock)

    @staticmethod
    def _timed(batches: Iterator[Any], wait_clock: Clock) -> Iterator[Any]:
        while True:
            with wait_clock:
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The sampler's position."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a position."""
        self.sampler.load_state_dict(state)


class SequentialBatches(Sampler[Tensor]):
    """Index tensors of evaluation batches: every sample exactly once over all ranks, none padded.

    Every rank gets the same number of batches, since an unequal number hangs distributed runs; batch sizes differ
    by at most one.
    """

    def __init__(self, num_samples: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if num_samples < world_size:
            raise ValueError(f"{num_samples} samples are too few for {world_size} ranks; lower trainer.devices")
        self.share = torch.arange(rank, num_samples, world_size)
        self.num_batches = math.ceil(math.ceil(num_samples / world_size) / batch_size)

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.share.tensor_split(self.num_batches)


@lru_cache
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    scale = 1 / torch.tensor(std, dtype=torch.float32, device=device).view(-1, 1, 1)
    shift = -torch.tensor(mean, dtype=torch.float32, device=device).view(-1, 1, 1) * scale
    return scale, shift


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Bring images (..., C, H, W), uint8 or float in [0, 1], to float with the given mean and std a channel."""
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), images.device)
    if images.dtype == torch.uint8:
        scale = scale / 255
    return torch.mul(images, scale).add_(shift)


def match_channels(values: Sequence[float], channels: int) -> list[float]:
    """Bring mean or std to the number of channels: average three for grey images, repeat one for colours.

    Raises:
        ValueError: if there are not as many as channels.
    """
    if channels == 1 and len(values) == 3:
        return [sum(values) / 3]
    if len(values) == 1:
        return [values[0]] * channels
    if len(values) != channels:
        raise ValueError(f"{list(values)} must be a list of {channels}, one a channel")
    return list(values)

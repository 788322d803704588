"""Images in memory behind a standard DataLoader: one uint8 tensor, whole batches fetched by index."""

import logging
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Sampler

from experiments.data.augmentation.base import Augmentation, require_fit
from experiments.data.augmentation.warps import augmented
from experiments.data.batches import (
    AUTO_STEPS,
    Batch,
    BatchList,
    Clock,
    ResumableLoader,
    SequentialBatches,
    ShuffledBatches,
    match_channels,
    normalize,
)
from experiments.data.images.cache import MappedImages
from experiments.data.memory import release_freed_memory
from experiments.data.splits import Split, are_classes, labels_of, limited, part_of, resident, train_and_val
from experiments.errors import UserError, ranges

log = logging.getLogger(__name__)


class ImageDataModule(LightningDataModule):
    """Base of the data sets: splits, folds, limits, loaders and normalisation. A data set adds ``read``.

    Batches are normalised float images (batch, C, H, W) and int64 labels (batch,), or what other targets ``read``
    returns: labels (batch, K), values (batch, K) or masks (batch, H, W). The official test split stays
    whole. Validation is a stratified part of the train split, drawn with a generator of its own: ``val_size``
    (a fraction in (0, 1) or a count), or fold ``fold`` of ``num_folds``. ``limit`` keeps a stratified part of what
    is left for training, again a fraction or a count. ``balanced`` draws every class equally often, with
    replacement. ``augment`` changes training batches, in its own order.

    With ``steps_per_execution`` above 1, what reaches a training step is a list of that many batches, fetched as one.
    """

    image_shape: tuple[int, int, int]  # channels, height, width
    class_names: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    #: How many images the official train split has, where the class knows without reading it.
    train_images: ClassVar[int | None] = None
    #: What a run's first line says about the data set.
    note: ClassVar[str] = ""

    @ranges(
        batch_size="whole, >= 1",
        eval_batch_size="whole, >= 1",
        val_size="share or count",
        limit="share or count",
        num_folds="whole, >= 2",
        fold="whole, >= 0",
        mean="list, >= 0, <= 1",
        std="list, > 0",
    )
    def __init__(
        self,
        batch_size: int = 64,
        eval_batch_size: int = 1000,
        val_size: float | int = 5000,
        limit: float | int | None = None,
        num_folds: int | None = None,
        fold: int | None = None,
        seed: int = 0,
        balanced: bool = False,
        augment: Mapping[str, Augmentation] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if (fold is None) != (num_folds is None):
            raise ValueError(f"data.fold={fold} and data.num_folds={num_folds} go together: set both or neither")
        if num_folds is not None and fold is not None and fold >= num_folds:
            raise ValueError(f"data.fold={fold} must be from 0 to {num_folds - 1}, with data.num_folds={num_folds}")
        for key, values in (("mean", mean), ("std", std)):
            if values is not None:
                setattr(self, key, match_channels(values, self.image_shape[0]))
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.val_size = val_size
        self.limit = limit
        self.num_folds = num_folds
        self.fold = fold
        self.seed = seed
        self.balanced = balanced
        self.augment = [augmentation for augmentation in (augment or {}).values() if augmentation]
        self.splits: dict[str, Split] = {}
        self.waiting = Clock()  # how long training waited for its batches
        self.steps_per_execution: int | None = 1  # None: chosen when the number of batches is known
        self.auto_steps = AUTO_STEPS

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @abstractmethod
    def read(self, split: Literal["train", "test"]) -> Batch:
        """Return the official split: uint8 images (N, C, H, W) and int64 labels (N,), or other targets (N, ...).

        Raises:
            UserError: if the files are missing or damaged.
        """

    def setup(self, stage: str) -> None:
        """Read and split what the stage needs; what was read stays."""
        if stage in ("fit", "validate") and "train" not in self.splits:
            images, labels = self.read("train")
            train, val = self.split(labels)
            train = limited(train, labels, self.limit, self.num_classes)
            self._add("train", images, labels, train)
            self._add("val", images, labels, val)
            del images  # the parts are copies, or mapped
            release_freed_memory()
        if stage == "test" and "test" not in self.splits:
            self._add("test", *self.read("test"))

    def _add(self, split: str, images: Tensor | MappedImages, labels: Tensor, indices: Tensor | None = None) -> None:
        """Keep a split, and tell which classes it has no image of; they cannot be drawn equally often."""
        if not (hasattr(self, "mean") and hasattr(self, "std")):
            raise UserError(f"data: {type(self).__name__} must state mean and std of each channel, in [0, 1]")
        self.splits[split] = part_of(images, labels, indices)
        if not are_classes(labels):
            require_fit(self.augment, labels)
            if self.balanced:
                raise UserError("data.balanced=true: the targets are no classes, which alone are drawn equally often")
            return
        counts = torch.bincount(labels_of(self.splits[split]), minlength=self.num_classes)
        if absent := [name for name, count in zip(self.class_names, counts.tolist(), strict=False) if not count]:
            message = f"the {split} split has no image of {', '.join(map(str, absent))}"
            if split == "train" and self.balanced:
                raise UserError(f"data.balanced=true: {message}")
            log.warning("%s: means over classes leave them out", message)

    def split(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the train and the validation part, both stratified, in ascending order."""
        return train_and_val(labels, self.val_size, self.num_folds, self.fold, self.num_classes)

    def class_counts(self) -> list[int]:
        """How many images, or pixels of masks, of each class there are to train on; reads them if not yet."""
        if "train" not in self.splits:
            self.prepare_data()
            self.setup("fit")
        labels = labels_of(self.splits["train"])
        if labels.ndim == 2 or labels.is_floating_point():
            raise UserError("loss: it weighs classes, and the targets of the data are none")
        return torch.bincount(labels.flatten(), minlength=self.num_classes).tolist()

    def loader(self, split: str, batches: Sampler[Tensor]) -> Any:
        """A standard DataLoader whose sampler yields whole batches of indices, so nothing is collated."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        kind = ResumableLoader if isinstance(batches, ShuffledBatches) else DataLoader
        return kind(resident(self.splits[split], device), sampler=batches, batch_size=None)

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Shuffled batches, in an order that ``seed`` and the epoch fix; none of one image, if there are others."""
        share = (size := len(self.splits["train"])) // self._ranks()[1]
        alone = int(share > self.batch_size and share % self.batch_size == 1)  # batch normalisation cannot take it
        batches = math.ceil((share - alone) / self.batch_size)
        if self.steps_per_execution is None:
            batch_bytes = 4 * self.batch_size * math.prod(self.image_shape)
            self.steps_per_execution = self.auto_steps.choose(batches, batch_bytes)
        samples_per_item, weights = self.batch_size * self.steps_per_execution, self._sample_weights()
        sampler = ShuffledBatches(size, samples_per_item, self.seed, *self._ranks(), weights, num_dropped=alone)
        loader = self.loader("train", sampler)
        loader.waiting = self.waiting
        if self.steps_per_execution > 1:
            loader.batches_per_list, loader.steps_per_epoch = self.steps_per_execution, batches
        return loader

    def state_dict(self) -> dict[str, Any]:
        """How many batches a position in the epoch counts."""
        return {"steps_per_execution": self.steps_per_execution}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it, unless something has come up that needs single steps: more devices, a profiler."""
        if self.steps_per_execution != 1:
            self.steps_per_execution = state_dict["steps_per_execution"]

    def _sample_weights(self) -> Tensor | None:
        """For each image to train on, one over the number of images of its class, if ``balanced``."""
        if not self.balanced:
            return None
        counts = torch.tensor(self.class_counts(), dtype=torch.float64)
        return (1 / counts)[labels_of(self.splits["train"])]

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Every validation image once."""
        return self.loader("val", SequentialBatches(len(self.splits["val"]), self.eval_batch_size, *self._ranks()))

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Every test image once."""
        return self.loader("test", SequentialBatches(len(self.splits["test"]), self.eval_batch_size, *self._ranks()))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalise the whole batch where it lies, on the device; in training, augment it before."""
        if isinstance(batch, Tensor):
            return self._normalized(batch)
        images, labels = batch
        if not (self.trainer and self.trainer.training):
            return self._normalized(images), labels
        several = self.steps_per_execution or 1
        first = (self.trainer.fit_loop.epoch_loop.batch_idx + 1) * several  # Lightning counts on after this hook
        with self.waiting:
            if together := images.is_cuda and not self.augment:  # fewer kernels; a CPU has one batch in its cache
                images = self._normalized(images)
            batches = list(zip(images.split(self.batch_size), labels.split(self.batch_size), strict=True))
            if not together:
                batches = [self._train_batch(*part, position) for position, part in enumerate(batches, first)]
        return BatchList(batches) if several > 1 else batches[0]

    def _train_batch(self, images: Tensor, labels: Tensor, position: int) -> Batch:
        if self.augment and self.trainer:
            images, labels = self.augmented(images, labels, self.trainer.current_epoch, position)
        return self._normalized(images), labels

    def augmented(self, images: Tensor, labels: Tensor, epoch: int, position: int) -> Batch:
        """The batch as ``augment`` changes it: float images in [0, 1], and labels that mixing makes soft.

        What is drawn is a function of the seed, the epoch, the batch's position in it and the rank alone: there is
        no state to save, and a resumed run draws what an uninterrupted one would have drawn.
        """
        rng = np.random.default_rng((self.seed, epoch, position, self._ranks()[0]))
        images = images.float().div_(255)
        if not any(augmentation.mixes for augmentation in self.augment):
            return augmented(self.augment, (images, labels), rng)
        images, labels = augmented(self.augment, (images, functional.one_hot(labels, self.num_classes).float()), rng)
        return images, self._converted(labels)

    def _normalized(self, images: Tensor) -> Tensor:
        """Network inputs in the run's precision; targets keep theirs."""
        return self._converted(normalize(images, self.mean, self.std))

    def _converted(self, values: Tensor) -> Tensor:
        return self.trainer.precision_plugin.convert_input(values) if self.trainer else values

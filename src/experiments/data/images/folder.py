"""A user's own images, one folder a class, decoded once into a mapped file."""

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from experiments.data.images.cache import ImageCache, MappedImages, mean_and_std
from experiments.data.images.files import decode_all
from experiments.data.images.lists import File, ImageLists, find_images_in_folder
from experiments.data.memory import format_bytes, free_memory
from experiments.data.module import ImageDataModule
from experiments.data.splits import SPLIT_SEED, share
from experiments.errors import UserError, ranges
from experiments.runs.files import name_from

DEFAULT_SIZE = 32  # pixels


class ImageFolder(ImageDataModule):
    """Images in ``<root>/train/<class>/``, at any depth below it, of any size and mode; links are followed.

    Without a folder ``train`` (or ``training``), ``<root>/<class>/`` holds the images to train on.
    ``<root>/val/<class>/`` (or ``valid``, ``validation``, ``dev``, in any letter case) and ``<root>/test/<class>/``
    are taken where they exist; else ``val_size`` and ``test_size``, each a fraction or a count, are split off,
    stratified and always the same for the same file names. With folds, train and val are one. Hidden files and files
    of other suffixes are passed over; the run's first line counts the latter. A file that cannot be read is never
    skipped: the run ends with all such files and the reasons.

    An image is scaled until it covers ``image_size`` and cut to it around its centre. What is transparent becomes
    white; 16 bits become 8; of an animation the first picture counts; a camera's orientation is followed. ``mean``
    and ``std`` are those of the images outside the test split.

    Decoded images are kept in ``cache`` and found again by their names, sizes, times of change and these options.
    """

    @ranges(
        image_size="list or one, whole, >= 1, <= 4096",
        mode=("RGB", "L"),
        test_size="share or count",
        workers="whole, >= 1",
    )
    def __init__(
        self,
        root: str,
        image_size: int | Sequence[int] | None = None,
        mode: str = "RGB",
        val_size: float | int = 0.1,
        test_size: float | int = 0.1,
        cache: str | None = None,
        workers: int | None = None,
        **options: Any,
    ) -> None:
        size = (image_size,) * 2 if isinstance(image_size, int) else tuple(image_size or (DEFAULT_SIZE,) * 2)
        if len(size) != 2:
            raise ValueError(f"data.image_size={image_size} must be one or two whole numbers")
        self.image_shape = (3 if mode == "RGB" else 1, *size)
        self._given: dict[str, Sequence[float]] = {}
        super().__init__(val_size=val_size, **options)
        self.root, self.mode = Path(root).expanduser(), mode
        self.cache = ImageCache(Path(cache or self.root / ".cache").expanduser(), self.root, mode, self.image_shape)
        self.workers = workers or min(os.cpu_count() or 1, 8)
        self.lists = self.find_images()
        self.class_names = self.lists.class_names
        self.files = {split: [*files] for split, files in self.lists.files.items()}
        self.drawn = {"val", "test"} - self.files.keys()  # which splits follow from the list of files
        if self.num_folds is not None:
            self.drawn.add("val")
        if "test" not in self.files:
            self.files["train"], self.files["test"] = self._without(self.files["train"], test_size)
        self.num_train = len(self.files["train"])
        self.files["train"] += self.files.pop("val", [])
        self._statistics: dict[str, list[float]] | None = None
        # images and their statistics, where the cache cannot be written
        self._kept: dict[str, tuple[Tensor, dict[str, list[float]]]] = {}

    def find_images(self) -> ImageLists:
        """The images of each split that there is, with their classes.

        Raises:
            UserError: if there are none, or they are not laid out as they must be.
        """
        return find_images_in_folder(self.root)

    @property
    def note(self) -> str:  # type: ignore[override]  # what it says is known only when the folder is
        """How many images, classes and other files there are, and where each split comes from."""
        images = sum(len(files) for files in self.files.values())
        tested = {label for _, label in self.files["test"]}
        absent = [name for index, name in enumerate(self.class_names) if index not in tested]
        ignored, folders = self.lists.ignored, ", ".join(self.lists.other_folders)
        facts = {
            f"{images:,} images in {self.num_classes} classes of {', '.join(self.lists.sources)}": True,
            f"{' and '.join(sorted(self.drawn, reverse=True))} drawn from {self.lists.sources[0]}": self.drawn,
            f"{ignored:,} other file{'s' * (ignored != 1)} passed over": ignored,
            f"no image to test of {', '.join(absent)}": absent,
            f"other folders left out: {folders}": folders,
        }
        return "; ".join(fact for fact, holds in facts.items() if holds)

    @property
    def mean(self) -> Sequence[float]:
        """What was given, or each channel's outside the test split; decodes the images if they are not yet."""
        return self._given.get("mean") or self.statistics["mean"]

    @mean.setter
    def mean(self, values: Sequence[float]) -> None:
        self._given["mean"] = list(values)

    @property
    def std(self) -> Sequence[float]:
        """What was given, or each channel's standard deviation outside the test split."""
        return self._given.get("std") or self.statistics["std"]

    @std.setter
    def std(self, values: Sequence[float]) -> None:
        self._given["std"] = list(values)

    @property
    def statistics(self) -> dict[str, list[float]]:
        """``mean`` and ``std`` of each channel outside the test split."""
        if self._statistics is None:
            self._fill("train")
            self._statistics = self.cache.statistics("train", self._paths("train")) or self._kept["train"][1]
        return self._statistics

    def prepare_data(self) -> None:
        """Decode what is not in the cache."""
        for split in ("train", "test"):
            self._fill(split)

    def read(self, split: Literal["train", "test"]) -> tuple[Tensor | MappedImages, Tensor]:  # type: ignore[override]
        """Return uint8 images (N, C, H, W) and int64 labels (N,); ``train`` includes ``val``.

        Raises:
            UserError: if a file cannot be read, or all of them do not fit into memory.
        """
        labels = torch.tensor([label for _, label in self.files[split]])
        self._fill(split)
        return self.cache.images(split, self._paths(split)) or self._kept[split][0], labels

    def split(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the train and the validation part; the folder val, if it exists and no folds are asked for."""
        if "val" in self.drawn:
            return super().split(labels)
        indices = torch.arange(len(labels))
        return indices[: self.num_train], indices[self.num_train :]

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the files' names and sizes, in whatever folder they lie."""
        digest = hashlib.sha256()
        for path, label in sorted(file for files in self.files.values() for file in files):
            name = name_from(self.root, path)
            digest.update(f"{name}\0{path.stat().st_size}\0{label}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """With the files that the splits were drawn from."""
        return {**super().state_dict(), "files": self.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the same files.

        Raises:
            UserError: if they are others, so that the splits are others, too.
        """
        if state_dict.get("files") not in (None, self.fingerprint):
            raise UserError(
                f"the files in {self.root} are not those that the run began with: other images would be trained on. "
                "Restore them, or start a new run"
            )
        super().load_state_dict(state_dict)

    def _without(self, files: list[File], test_size: float | int) -> tuple[list[File], list[File]]:
        """Split off a stratified test part; both keep the order of names."""
        count = share(test_size, len(files), self.num_classes)
        try:
            rest, test = train_test_split(
                range(len(files)),
                test_size=count,
                stratify=[label for _, label in files],
                random_state=SPLIT_SEED,
            )
        except ValueError as error:
            raise UserError(
                f"the {len(files)} images in {self.lists.sources[0]} cannot be split into train and test by class: "
                f"{error} Add images, set data.test_size={test_size} to another number, or make a split test"
            ) from error
        return [files[i] for i in sorted(rest)], [files[i] for i in sorted(test)]

    def _paths(self, split: str) -> list[Path]:
        return [path for path, _ in self.files[split]]

    def _fill(self, split: str) -> None:
        """Decode a split's images into the cache, or else into memory, unless they are there."""
        files = self._paths(split)
        if split in self._kept or self.cache.statistics(split, files):
            return

        def decode(pixels: Any) -> tuple[Any, Any]:
            return decode_all(files, self.image_shape, self.workers, f"decoding {split}", pixels)

        if not self.cache.ensure_written(split, files, decode):
            self._must_fit()
            images = torch.empty(len(files), *self.image_shape, dtype=torch.uint8)
            self._kept[split] = images, mean_and_std(decode(images.numpy())[1])

    def _must_fit(self) -> None:
        """Refuse, before anything is decoded, what would not fit into memory where there is no place for a cache."""
        height, width = self.image_shape[1:]
        # splitting copies the train part; the test part is read once
        needed = sum(count * self.cache.num_bytes(self._paths(split)) for split, count in (("train", 2), ("test", 1)))
        free = free_memory()
        if free is not None and needed > free:
            fitting = int((free / needed) ** 0.5 * min(height, width))
            raise UserError(
                f"{self.root} does not fit into memory: its images need {format_bytes(needed)} at data.image_size="
                f"{[height, width]}, {format_bytes(free)} are free; data.image_size={fitting} would fit, and "
                f"data.cache=<a folder with {format_bytes(needed // 2)} to spare> needs no memory"
            )

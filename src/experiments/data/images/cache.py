"""Decoded images on disk, so that a folder of images is decoded once, and need not fit into memory."""

import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torch.utils.data import Dataset

from experiments.data.images.files import decode
from experiments.data.memory import format_bytes
from experiments.errors import UserError
from experiments.runs.files import name_from, write_atomically

log = logging.getLogger(__name__)
CACHE_VERSION = 5  # to be raised when the same file would be decoded to other pixels, or be stored differently
DecodeInto = Callable[[Any], tuple[Any, Any]]  # fills pixels; returns each image's checksum and the channels' counts


class MappedImages:
    """uint8 images (N, C, H, W) in a mapped file: the operating system pages in what is asked for.

    An image is verified at its first use; one that does not match its checksum is decoded again.
    """

    def __init__(self, path: Path, files: Sequence[Path], shape: Sequence[int], checksums: Any) -> None:
        pixels = np.memmap(path, np.uint8, "c", shape=(len(files), *shape))  # what is written stays in this process
        self.pixels, self.path, self.files = torch.from_numpy(pixels), path, files
        self.checksums, self.verified = checksums, np.zeros(len(files), dtype=bool)

    def __reduce__(self) -> Any:
        """Pickle the path, not the pixels."""
        return type(self), (self.path, self.files, self.pixels.shape[1:], self.checksums)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Tensor:
        """The images that an index, a slice or a tensor of indices means.

        Raises:
            UserError: if one is damaged, and its file cannot be decoded any longer.
        """
        indices = index.numpy() if isinstance(index, Tensor) else np.atleast_1d(np.arange(len(self))[index])
        for number in indices[~self.verified[indices]]:
            if zlib.crc32(self.pixels[number].numpy().tobytes()) != self.checksums[number]:
                self._repair(int(number))
        self.verified[indices] = True
        return self.pixels[index]

    def _repair(self, number: int) -> None:
        again = decode(self.files[number], self.pixels.shape[1:])
        if isinstance(again, str):
            raise UserError(f"{self.path} is damaged, and {self.files[number]} cannot be decoded again: {again}")
        log.warning("%s was damaged: %s is decoded again", self.path, self.files[number])
        self.pixels[number] = torch.from_numpy(again)
        try:
            kept = np.memmap(self.path, np.uint8, "r+", shape=tuple(self.pixels.shape))
            kept[number] = again
        except OSError:  # a read-only folder
            return


class MappedSplit(Dataset[tuple[Tensor, Tensor]]):
    """A subset of mapped images, with labels; ``split[batch]`` copies that batch alone."""

    def __init__(self, images: MappedImages, labels: Tensor, indices: Tensor) -> None:
        self.images, self.labels, self.indices = images, labels, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, batch: Any) -> tuple[Tensor, Tensor]:
        return self.images[self.indices[batch]], self.labels[batch]

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """All images and labels, in memory."""
        return self.images[self.indices], self.labels


class ImageCache:
    """Decoded images in a folder: of each split a file of pixels, and one of checksums, mean and std.

    They are found again by the names, sizes and times of change of the images below ``root``, and by what these are
    decoded to: ``mode`` and ``image_shape``.
    """

    def __init__(self, folder: Path, root: Path, mode: str, image_shape: Sequence[int]) -> None:
        self.folder = folder
        self.root = root
        self.mode = mode
        self.image_shape = tuple(image_shape)
        self._paths: dict[str, Path] = {}  # by split: to look at the time of every image takes a while

    def _path(self, split: str, files: Sequence[Path]) -> Path:
        if split in self._paths:
            return self._paths[split]
        digest = hashlib.sha256(json.dumps([CACHE_VERSION, self.mode, *self.image_shape]).encode())
        for path in files:
            status = path.stat()
            name = name_from(self.root, path)
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
        return self._paths.setdefault(split, self.folder / f"{split}-{digest.hexdigest()[:32]}.pixels")

    def num_bytes(self, files: Sequence[Path]) -> int:
        """Bytes of the decoded images."""
        return len(files) * int(np.prod(self.image_shape))

    def _read_metadata(self, path: Path, files: Sequence[Path]) -> dict[str, Any] | None:
        """Checksums, mean and std of a file of pixels; None if either file is missing, cut or damaged."""
        try:
            known = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            sums = np.array(known["checksums"], dtype=np.uint32)
            statistics = np.array([known["mean"], known["std"]], dtype=np.float64)
            is_valid = (
                path.stat().st_size == self.num_bytes(files)
                and sums.shape == (len(files),)
                and _metadata_checksum(known) == known["checksum"]
                and statistics.shape == (2, self.image_shape[0])
                and np.isfinite(statistics).all()
                and statistics[1].min() > 0
            )
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None
        return {**known, "checksums": sums} if is_valid else None

    def statistics(self, split: str, files: Sequence[Path]) -> dict[str, list[float]] | None:
        """``mean`` and ``std`` of each channel, or None if there are no such images."""
        known = self._read_metadata(self._path(split, files), files)
        return {key: known[key] for key in ("mean", "std")} if known else None

    def images(self, split: str, files: Sequence[Path]) -> MappedImages | None:
        """The images, or None if they are not there, cut or damaged."""
        path = self._path(split, files)
        known = self._read_metadata(path, files)
        return MappedImages(path, files, self.image_shape, known["checksums"]) if known else None

    def ensure_written(self, split: str, files: Sequence[Path], decode_into: DecodeInto) -> bool:
        """Write a split's images by ``decode_into``, unless they are there; false if there is no place for them.

        One process writes, others wait. What a killed process has left is overwritten.
        """
        path = self._path(split, files)
        unfinished = path.with_name(f".{path.name}.writing")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock"):
                if self._read_metadata(path, files):
                    return True
                unfinished.unlink(missing_ok=True)
                free = shutil.disk_usage(self.folder).free
                if (needed := self.num_bytes(files)) > free:
                    log.info(
                        "decoded images are not kept: they need %s, and %s are free in %s; data.cache names a folder",
                        format_bytes(needed), format_bytes(free), self.folder,
                    )  # fmt: skip
                    return False
                pixels = np.memmap(unfinished, np.uint8, "w+", shape=(len(files), *self.image_shape))
                try:
                    checksums, counts = decode_into(pixels)
                    pixels.flush()
                    del pixels  # Windows renames no file that is mapped
                    known = {**mean_and_std(counts), "checksums": [int(one) for one in checksums]}
                    known["checksum"] = _metadata_checksum(known)
                    os.replace(unfinished, path)
                finally:
                    unfinished.unlink(missing_ok=True)
                write_atomically(path.with_suffix(".json"), json.dumps(known).encode())
        except OSError as error:
            log.info("decoded images are not kept: %s: %s; data.cache names a folder", self.folder, error.strerror)
            return False
        return True


def _metadata_checksum(known: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps([known[key] for key in ("mean", "std", "checksums")]).encode())


def mean_and_std(counts: Any) -> dict[str, list[float]]:
    """Mean and standard deviation of each channel, of values in [0, 1], from histograms of the 256 pixel values.

    A deviation of 0 becomes 1.
    """
    values = np.arange(256) / 255
    mean = (counts * values).sum(1) / counts.sum(1)
    std = np.sqrt((counts * (values - mean[:, None]) ** 2).sum(1) / counts.sum(1))
    return {"mean": [round(float(one), 4) for one in mean], "std": [round(float(one), 4) or 1.0 for one in std]}

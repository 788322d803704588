"""Decoded images on disk, so that a folder of images is decoded once."""

import hashlib
import json
import logging
import os
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger(__name__)
CACHE_VERSION = 3  # to be raised when the same file would be decoded to other pixels


class ImageCache:
    """Decoded images in a folder.

    They are found again by the names, sizes and times of change of the files below ``root``, and by what these are
    decoded to: ``mode`` and ``image_shape``. Of each list of files, there are images (``.npy``) and a description
    (``.json``): mean and standard deviation of each channel, and a checksum.
    """

    def __init__(self, folder: Path, root: Path, mode: str, image_shape: Sequence[int]) -> None:
        self.folder = folder
        self.root = root
        self.mode = mode
        self.image_shape = tuple(image_shape)

    def _key(self, split: str, files: Sequence[Path]) -> str:
        """A name for what decoding these files would give."""
        digest = hashlib.sha256(json.dumps([CACHE_VERSION, self.mode, *self.image_shape]).encode())
        for path in files:
            status = path.stat()
            name = path.relative_to(self.root).as_posix()
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
        return f"{split}-{digest.hexdigest()[:32]}"

    def description(self, split: str, files: Sequence[Path]) -> Any:
        """``mean``, ``std`` and ``crc32``, or None; it is written last, so it means that the images are there."""
        try:
            path = self.folder / f"{self._key(split, files)}.json"
            known = json.loads(path.read_text()) if path.stat().st_size < 100_000 else {}
            mean, std = ([float(value) for value in known[name]] for name in ("mean", "std"))
            whole = len(mean) == len(std) == self.image_shape[0] and isinstance(known["crc32"], int)
            return known if whole and np.isfinite(mean).all() and min(std) > 0 and max(std) < np.inf else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def images(self, split: str, files: Sequence[Path]) -> Tensor | None:
        """The images, uint8 (N, C, H, W), or None if they are not there or damaged."""
        known = self.description(split, files)
        if known is None:
            return None
        try:
            # mapped: a header that claims more than the file holds asks for no memory
            mapped = np.lib.format.open_memmap(self.folder / f"{self._key(split, files)}.npy", mode="r")
        except Exception:  # a damaged header may make its parsers stumble anywhere
            return None
        if mapped.shape != (len(files), *self.image_shape) or mapped.dtype != np.uint8:
            return None
        pixels = np.array(mapped, order="C", subok=False)
        return torch.from_numpy(pixels) if zlib.crc32(pixels.data) == known["crc32"] else None

    def save(self, split: str, files: Sequence[Path], pixels: Any) -> bool:
        """Keep images; false if the folder cannot be written."""
        key, statistics = self._key(split, files), channel_statistics(torch.from_numpy(pixels))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".writing-") as beside:
                np.save(Path(beside, "images.npy"), pixels)
                Path(beside, "images.json").write_text(json.dumps({**statistics, "crc32": zlib.crc32(pixels.data)}))
                for suffix in (".npy", ".json"):
                    os.replace(Path(beside, f"images{suffix}"), self.folder / f"{key}{suffix}")
        except OSError as error:
            log.info("decoded images are not kept: %s: %s; data.cache names a folder", self.folder, error.strerror)
            return False
        return True


def channel_statistics(images: Tensor) -> dict[str, list[float]]:
    """Mean and standard deviation of each channel, of values in [0, 1]; a std of 0 becomes 1."""
    mean, std = [], []
    for channel in range(images.shape[1]):
        counts = torch.zeros(256, dtype=torch.float64)
        for part in images[:, channel].split(4096):  # bincount needs eight bytes a pixel
            counts += torch.bincount(part.flatten(), minlength=256)
        values = torch.arange(256, dtype=torch.float64) / 255
        average = (counts * values).sum() / counts.sum()
        spread = (counts * (values - average) ** 2).sum() / counts.sum()
        mean.append(round(average.item(), 4))
        std.append(round(spread.sqrt().item(), 4) or 1.0)
    return {"mean": mean, "std": std}

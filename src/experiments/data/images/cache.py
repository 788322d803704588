"""Decoded images on disk, so that a folder of images is decoded once."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger(__name__)
CACHE_VERSION = 4  # to be raised when the same file would be decoded to other pixels, or be kept otherwise


class ImageCache:
    """Decoded images in a folder, in one ``.npz`` file a list of files, with each channel's mean and deviation.

    A file is found again by the names, sizes and times of change of the images below ``root``, and by what these are
    decoded to: ``mode`` and ``image_shape``. Its parts have checksums, which are verified when they are read.
    """

    def __init__(self, folder: Path, root: Path, mode: str, image_shape: Sequence[int]) -> None:
        self.folder = folder
        self.root = root
        self.mode = mode
        self.image_shape = tuple(image_shape)

    def _path(self, split: str, files: Sequence[Path]) -> Path:
        digest = hashlib.sha256(json.dumps([CACHE_VERSION, self.mode, *self.image_shape]).encode())
        for path in files:
            status = path.stat()
            name = os.path.relpath(path, self.root)
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
        return self.folder / f"{split}-{digest.hexdigest()[:32]}.npz"

    def _read(self, split: str, files: Sequence[Path], name: str) -> Any:
        """A part of a file, or None if it is not there or damaged."""
        try:
            with np.load(self._path(split, files), allow_pickle=False) as parts:
                part = parts[name]
                return part if isinstance(part, np.ndarray) else None
        except Exception:  # damage may make the readers of archives and arrays stumble anywhere
            return None

    def statistics(self, split: str, files: Sequence[Path]) -> dict[str, list[float]] | None:
        """``mean`` and ``std`` of each channel, or None if there are no such images."""
        known = self._read(split, files, "statistics")
        if known is None or known.shape != (2, self.image_shape[0]) or known.dtype != np.float64:
            return None
        mean, std = known
        return {"mean": mean.tolist(), "std": std.tolist()} if np.isfinite(known).all() and std.min() > 0 else None

    def images(self, split: str, files: Sequence[Path]) -> Tensor | None:
        """The images, uint8 (N, C, H, W), or None if they are not there or damaged."""
        pixels = self._read(split, files, "images")
        if pixels is None or pixels.shape != (len(files), *self.image_shape) or pixels.dtype != np.uint8:
            return None
        return torch.from_numpy(pixels)

    def save(self, split: str, files: Sequence[Path], pixels: Any) -> bool:
        """Keep images; false if the folder cannot be written."""
        statistics = channel_statistics(torch.from_numpy(pixels))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".writing-") as beside:
                path = Path(beside, "images.npz")
                np.savez(path, images=pixels, statistics=np.array([statistics["mean"], statistics["std"]]))
                os.replace(path, self._path(split, files))
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

"""A user's own images, one folder a class, decoded once into memory."""

import hashlib
import json
import logging
import os
import sys
import tempfile
import warnings
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from sklearn.model_selection import train_test_split
from torch import Tensor

from experiments.data.batches import Batch
from experiments.data.image_files import to_pixels
from experiments.data.memory import format_bytes, free_memory
from experiments.data.module import ImageDataModule
from experiments.data.splits import SPLIT_SEED, share
from experiments.errors import UserError

log = logging.getLogger(__name__)
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# Pillow would hand some other formats to external programs, whatever the file's name says
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
CACHE_VERSION = 3  # to be raised when the same file would be decoded to other pixels
File = tuple[Path, int]  # an image and its class


class ImageFolder(ImageDataModule):
    """Images in ``<root>/train/<class>/``, at any depth below it, of any size and mode.

    ``<root>/val/<class>/`` and ``<root>/test/<class>/`` are taken where they exist; else ``val_size`` and
    ``test_size``, each a fraction or a count, are split off, stratified and always the same for the same file names.
    With folds, train and val are one. Hidden files and files of other suffixes are passed over and counted in the
    run's first line. A file that cannot be read is never skipped: the run ends with all such files and the reasons.

    An image is scaled until it covers ``image_size`` and cut to it around its centre. What is transparent becomes
    white; 16 bits become 8; of an animation the first picture counts; a camera's orientation is followed. ``mean``
    and ``std`` are those of the images outside the test split.

    Decoded images are kept in ``cache``, in a file that is found again by the images' names, sizes and times of
    change and the options above.
    """

    def __init__(
        self,
        root: str,
        image_size: int | Sequence[int] = 32,
        mode: str = "RGB",
        val_size: float | int = 0.1,
        test_size: float | int = 0.1,
        cache: str | None = None,
        workers: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(val_size=val_size, **options)
        size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        if len(size) != 2 or not all(isinstance(side, int) and 1 <= side <= 4096 for side in size):
            raise ValueError(f"data.image_size={image_size} must be one or two whole numbers from 1 to 4096")
        if mode not in ("RGB", "L"):
            raise ValueError(f"data.mode={mode!r} is not one of RGB (3 channels), L (grey, 1 channel)")
        if test_size <= 0:
            raise ValueError(f"data.test_size={test_size} must be a fraction between 0 and 1, or a count")
        self.root = Path(root).expanduser()
        self.mode = mode
        self.image_shape = (3 if mode == "RGB" else 1, *size)
        self.cache = Path(cache).expanduser() if cache else self.root / ".cache"
        self.workers = workers or min(os.cpu_count() or 1, 8)
        self.ignored = 0
        self.class_names = self._classes(self.root / "train")
        if len(self.class_names) < 2:
            raise UserError(f"{self.root / 'train'} holds one class, {self.class_names[0]}; there must be at least 2")
        self.files = {split: self._list(split) for split in ("train", "val", "test") if self._has(split)}
        self.drawn = {"val", "test"} - self.files.keys()  # which splits follow from the list of files
        if self.num_folds is not None:
            self.drawn.add("val")
        if "test" not in self.files:
            self.files["train"], self.files["test"] = self._without(self.files["train"], test_size)
        self.num_train = len(self.files["train"])
        self.files["train"] += self.files.pop("val", [])
        self._statistics: dict[str, list[float]] | None = None
        self._kept: dict[str, Tensor] = {}  # where the cache cannot be written

    @property
    def note(self) -> str:  # type: ignore[override]  # what it says is known only when the folder is
        """How many images, classes and other files there are."""
        images = sum(len(files) for files in self.files.values())
        ignored = f"; {self.ignored:,} other files passed over" if self.ignored else ""
        return f"{images:,} images in {self.num_classes} classes{ignored}"

    @property
    def mean(self) -> Sequence[float]:
        """The mean of each channel outside the test split; decodes the images if they are not yet."""
        return self.statistics["mean"]

    @mean.setter
    def mean(self, values: Sequence[float]) -> None:
        self._statistics = {**(self._statistics or {}), "mean": list(values)}

    @property
    def std(self) -> Sequence[float]:
        """The standard deviation of each channel outside the test split."""
        return self.statistics["std"]

    @std.setter
    def std(self, values: Sequence[float]) -> None:
        self._statistics = {**(self._statistics or {}), "std": list(values)}

    @property
    def statistics(self) -> dict[str, list[float]]:
        """``mean`` and ``std`` of each channel outside the test split."""
        if self._statistics is None:
            self._statistics = self._remembered("train") or _statistics(self.read("train")[0])
        return self._statistics

    def prepare_data(self) -> None:
        """Decode what is not in the cache."""
        for split in ("train", "test"):
            if split not in self._kept and self._remembered(split) is None:
                self._decode(split)

    def read(self, split: Literal["train", "test"]) -> Batch:
        """Return uint8 images (N, C, H, W) and int64 labels (N,); ``train`` includes ``val``.

        Raises:
            UserError: if a file cannot be read, or all of them do not fit into memory.
        """
        labels = torch.tensor([label for _, label in self.files[split]])
        if split in self._kept:
            return self._kept[split], labels
        known = self._remembered(split)
        images = None if known is None else self._recall(split, known["crc32"])
        return self._decode(split) if images is None else images, labels

    def split(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the train and the validation part; the folder val, if it exists and no folds are asked for."""
        if "val" in self.drawn:
            return super().split(labels)
        indices = torch.arange(len(labels))
        return indices[: self.num_train], indices[self.num_train :]

    # ---- which files there are

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the files' names and sizes, in whatever folder they lie."""
        digest = hashlib.sha256()
        for path in sorted(path for files in self.files.values() for path, _ in files):
            name = path.relative_to(self.root).as_posix()
            digest.update(f"{name}\0{path.stat().st_size}\0".encode(errors="surrogateescape"))
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

    def _has(self, split: str) -> bool:
        return split == "train" or (self.root / split).is_dir()

    def _classes(self, folder: Path) -> tuple[str, ...]:
        """The names of a folder's folders."""
        layout = f"images belong in {self.root / 'train' / '<class>'}; data.root names the folder that holds train"
        try:
            classes = tuple(entry.name for entry in sorted(folder.glob("[!.]*")) if entry.is_dir())
            folder.stat()  # glob says nothing of a folder that is missing
        except OSError as error:
            raise UserError(f"{folder} cannot be read: {error.strerror}; {layout}") from error
        if not classes:
            raise UserError(f"{folder} holds no folder; {layout}")
        return classes

    def _list(self, split: str) -> list[File]:
        """A split's images with their classes, in the order of their names."""
        folder, found = self.root / split, []
        self.ignored += sum(path.is_file() for path in folder.glob("[!.]*"))
        for name in self._classes(folder):
            if name not in self.class_names:
                raise UserError(
                    f"{folder / name} is no class of {self.root / 'train'}: {', '.join(self.class_names)}"
                )
            files = sorted(path for path in (folder / name).rglob("[!.]*") if path.is_file())
            images = [path for path in files if path.suffix.lower() in SUFFIXES]
            if not images:
                raise UserError(f"{folder / name} holds no image (of {', '.join(SUFFIXES)})")
            self.ignored += len(files) - len(images)
            found += [(path, self.class_names.index(name)) for path in images]
        return found

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
                f"the {len(files)} images in {self.root / 'train'} cannot be split into train and test by class: "
                f"{error} Add images, set data.test_size={test_size} to another fraction or count, or make a folder "
                f"{self.root / 'test'}"
            ) from error
        return [files[i] for i in sorted(rest)], [files[i] for i in sorted(test)]

    # ---- decoding

    def _decode(self, split: str) -> Tensor:
        files, shape = [path for path, _ in self.files[split]], self.image_shape
        self._must_fit()
        pixels = np.empty((len(files), *shape), dtype=np.uint8)
        faults = []
        with warnings.catch_warnings(), ThreadPoolExecutor(self.workers) as pool:
            warnings.simplefilter("ignore")  # Pillow's doubts about single files: they are read or refused
            Image.init()  # before the threads do
            decoded = pool.map(partial(decode, shape=shape), files)
            try:
                for i, image in enumerate(_shown(decoded, len(files), f"decoding {split}")):
                    if isinstance(image, str):
                        faults.append(f"{files[i]}: {image}")
                    else:
                        pixels[i] = image
            except BaseException:  # Ctrl-C does not wait for the rest
                pool.shutdown(cancel_futures=True)
                raise
        if faults:
            listed = "\n  ".join(faults[:10] + ([f"and {len(faults) - 10} more"] if len(faults) > 10 else []))
            raise UserError(f"{len(faults)} of {len(files)} images cannot be read; mend or remove them:\n  {listed}")
        images = torch.from_numpy(pixels)
        self._remember(split, pixels, _statistics(images))
        return images

    def _must_fit(self) -> None:
        """Refuse, before anything is decoded, what would not fit into memory."""
        channels, height, width = self.image_shape
        # splitting copies the train part; the test part is read once
        count = 2 * len(self.files["train"]) + len(self.files["test"])
        needed, free = count * channels * height * width, free_memory()
        if free is not None and needed > free:
            fitting = int((free / needed) ** 0.5 * min(height, width))
            raise UserError(
                f"{self.root} does not fit into memory: its images need {format_bytes(needed)} at data.image_size="
                f"{[height, width]}, {format_bytes(free)} are free; data.image_size={fitting} would fit"
            )

    # ---- the cache

    def _key(self, split: str) -> str:
        """A name for what decoding this split would give."""
        digest = hashlib.sha256(json.dumps([CACHE_VERSION, self.mode, *self.image_shape]).encode())
        for path, _ in self.files[split]:
            status = path.stat()
            name = path.relative_to(self.root).as_posix()
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
        return f"{split}-{digest.hexdigest()[:32]}"

    def _remembered(self, split: str) -> Any:
        """What the cache says of this split, or None; it is written last, so it means that the images are there."""
        try:
            path = self.cache / f"{self._key(split)}.json"
            known = json.loads(path.read_text()) if path.stat().st_size < 100_000 else {}
            mean, std = ([float(value) for value in known[name]] for name in ("mean", "std"))
            whole = len(mean) == len(std) == self.image_shape[0] and isinstance(known["crc32"], int)
            return known if whole and np.isfinite(mean).all() and min(std) > 0 and max(std) < np.inf else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _recall(self, split: str, crc32: int) -> Tensor | None:
        """The images as the cache holds them, or None if it is damaged."""
        try:
            # mapped: a header that claims more than the file holds asks for no memory
            mapped = np.lib.format.open_memmap(self.cache / f"{self._key(split)}.npy", mode="r")
        except Exception:  # a damaged header may make its parsers stumble anywhere
            return None
        if mapped.shape != (len(self.files[split]), *self.image_shape) or mapped.dtype != np.uint8:
            return None
        pixels = np.array(mapped, order="C", subok=False)
        return torch.from_numpy(pixels) if zlib.crc32(pixels.data) == crc32 else None

    def _remember(self, split: str, pixels: Any, statistics: dict[str, list[float]]) -> None:
        key = self._key(split)
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.cache, prefix=".writing-") as beside:
                np.save(Path(beside, "images.npy"), pixels)
                Path(beside, "images.json").write_text(json.dumps({**statistics, "crc32": zlib.crc32(pixels.data)}))
                for suffix in (".npy", ".json"):
                    os.replace(Path(beside, f"images{suffix}"), self.cache / f"{key}{suffix}")
        except OSError as error:
            log.info("decoded images are not kept: %s: %s; data.cache names a folder", self.cache, error.strerror)
            self._kept[split] = torch.from_numpy(pixels)


def decode(path: Path, shape: Sequence[int]) -> Any:
    """An image file as bytes of a shape (C, height, width), or the reason why it is none."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return to_pixels(image, shape)
    except Exception as error:  # a damaged file may raise nearly anything, anywhere in Pillow
        return str(error).replace(repr(str(path)), "the file").strip() or type(error).__name__


def _statistics(images: Tensor) -> dict[str, list[float]]:
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


def _shown(decoded: Any, total: int, description: str) -> Any:
    """The same items, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    quiet = not sys.stderr.isatty()
    return track(decoded, description, total, console=Console(stderr=True), disable=quiet, transient=True)

"""MNIST and its likes, in the files and the layout that torchvision downloads."""

import gzip
import hashlib
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import calculate_md5

from experiments.data.batches import Batch
from experiments.data.download import download, mismatch
from experiments.data.module import ImageDataModule
from experiments.errors import UserError


class MNIST(ImageDataModule):
    """60,000 training and 10,000 test images of handwritten digits, 1×28×28 (LeCun et al. 1998).

    Files lie in ``<root>/MNIST/raw``, as torchvision lays them out. Files that are there, packed (.gz) or unpacked,
    are used and never fetched again; packed ones must match torchvision's checksums. Missing ones are downloaded.
    """

    source: ClassVar[Any] = datasets.MNIST
    image_shape = (1, 28, 28)
    class_names: Sequence[str] = tuple("0123456789")
    mean: Sequence[float] = (0.1307,)
    std: Sequence[float] = (0.3081,)
    train_images: ClassVar[int | None] = 60_000
    prefixes: ClassVar[dict[str, str]] = {"train": "train", "test": "t10k"}

    def __init__(self, root: str = "data", **options: Any) -> None:
        super().__init__(**options)
        self.folder = Path(root).expanduser() / self.source.__name__ / "raw"

    def prepare_data(self) -> None:
        """Download what is missing (checksums verified); an interrupted download leaves nothing behind.

        Raises:
            UserError: if a file is missing and cannot be downloaded.
        """
        names = [name for name, _ in self.source.resources]
        for name, md5 in self.source.resources:
            if not (self.folder / name).exists() and not (self.folder / name).with_suffix("").exists():
                urls = [mirror + name for mirror in self.source.mirrors]
                download(urls, self.folder / name, md5, self._advice(names))

    def _advice(self, names: Sequence[str]) -> str:
        return (
            f"\nPut {', '.join(names)} there, or set data.root to the folder that holds "
            f"{self.source.__name__}/raw, or use data=digits, which needs no download."
        )

    def file_names(self, split: str) -> tuple[str, str]:
        """The unpacked files of a split: images and labels."""
        prefix = self.prefixes[split]
        return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"

    def read(self, split: Literal["train", "test"]) -> Batch:
        """Return uint8 images (N, 1, 28, 28) and int64 labels (N,).

        Raises:
            UserError: if a file is missing or damaged, or images and labels do not belong together.
        """
        images_name, labels_name = self.file_names(split)
        images, labels = self._read_idx(images_name, dims=3), self._read_idx(labels_name, dims=1).long()
        if images.shape[1:] != self.image_shape[1:]:
            raise UserError(f"{self.folder / images_name} holds images of {tuple(images.shape[1:])}, not (28, 28)")
        if len(images) != len(labels):
            raise UserError(
                f"{self.folder / images_name} holds {len(images)} images, but {labels_name} {len(labels)} labels"
            )
        if len(images) == 0:
            raise UserError(f"{self.folder / images_name} holds no image")
        low, high = self.label_range()
        for label in (int(labels.min()), int(labels.max())):
            if not low <= label <= high:
                raise UserError(
                    f"{self.folder / labels_name} holds the label {label}; labels go from {low} to {high}"
                )
        return images.unsqueeze(1), labels - low

    def label_range(self) -> tuple[int, int]:
        """The lowest and the highest label in the files."""
        return 0, self.num_classes - 1

    def packed(self, name: str) -> tuple[Path, bytes]:
        """The packed file that holds ``name``, which matches its checksum, and its unpacked content."""
        path = self.folder / f"{name}.gz"
        content = path.read_bytes()
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != dict(self.source.resources)[path.name]:
            raise mismatch(path)
        return path, gzip.decompress(content)

    def _read_idx(self, name: str, dims: int) -> Tensor:
        """Read an IDX file of unsigned bytes (LeCun's format: magic number, sizes, values), packed or not."""
        path = self.folder / name
        try:
            path, content = (path, path.read_bytes()) if path.exists() else self.packed(name)
        except OSError as error:
            raise UserError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error
        header = 4 + 4 * dims
        if len(content) < header or content[:4] != bytes([0, 0, 8, dims]):
            raise UserError(f"{path} is not an IDX file of {dims}-dimensional unsigned bytes (wrong magic number)")
        shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4)]
        if len(content) != header + math.prod(shape):
            raise UserError(
                f"{path} is truncated or has bytes to spare: its header promises {' × '.join(map(str, shape))} = "
                f"{math.prod(shape)} values, it holds {len(content) - header}"
            )
        return torch.frombuffer(bytearray(content[header:]), dtype=torch.uint8).view(shape)


class FashionMNIST(MNIST):
    """60,000 training and 10,000 test images of clothing, 1×28×28 (Xiao et al. 2017, arXiv 1708.07747)."""

    source = datasets.FashionMNIST
    class_names = tuple(datasets.FashionMNIST.classes)
    mean = (0.2860,)  # published for the train split, not measured here
    std = (0.3530,)


class KMNIST(MNIST):
    """60,000 training and 10,000 test images of cursive Japanese (Clanuwat et al. 2018, arXiv 1812.01718)."""

    source = datasets.KMNIST
    class_names = tuple(datasets.KMNIST.classes)
    mean = (0.1918,)  # published for the train split, not measured here
    std = (0.3483,)


class EMNIST(MNIST):
    """Handwritten letters and digits, 1×28×28, upright (Cohen et al. 2017, arXiv 1702.05373).

    Its files hold the images transposed; here they are turned back. ``split`` chooses one of the six data sets:
    ``balanced`` (47 classes, 112,800 + 18,800 images), ``letters`` (26), ``digits`` and ``mnist`` (10), ``byclass``
    (62), ``bymerge`` (47). One archive, ``<root>/EMNIST/raw/gzip.zip``, holds them all and is read where it lies;
    files that torchvision unpacked there are used instead.
    """

    source = datasets.EMNIST
    train_images = None  # each of the six has its own
    mean = (0.1751,)  # published for the train split of balanced, not measured here
    std = (0.3332,)

    def __init__(self, root: str = "data", split: str = "balanced", **options: Any) -> None:
        if split not in self.source.splits:
            raise ValueError(f"data.split={split!r} is not one of {', '.join(self.source.splits)}")
        super().__init__(root, **options)
        self.subset = split
        self.class_names = tuple(name for name in self.source.classes_split_dict[split] if name != "N/A")
        self._archive_is_whole = False

    def file_names(self, split: str) -> tuple[str, str]:
        """The unpacked files of a split: images and labels."""
        prefix = f"emnist-{self.subset}-{split}"
        return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"

    def label_range(self) -> tuple[int, int]:
        """Letters are counted from 1."""
        first = 1 if self.subset == "letters" else 0
        return first, first + self.num_classes - 1

    def prepare_data(self) -> None:
        """Download the archive (checksum verified) unless it or its unpacked files are there.

        Raises:
            UserError: if it is missing and cannot be downloaded.
        """
        archive = self.folder / Path(self.source.url).name
        unpacked = [self.folder / name for split in ("train", "test") for name in self.file_names(split)]
        if not archive.exists() and not all(path.exists() for path in unpacked):
            download([self.source.url], archive, self.source.md5, self._advice([archive.name]))

    def packed(self, name: str) -> tuple[Path, bytes]:
        """The archive's member that holds ``name``, and its unpacked content."""
        archive = self.folder / Path(self.source.url).name
        if not self._archive_is_whole and calculate_md5(archive) != self.source.md5:
            raise mismatch(archive)
        self._archive_is_whole = True
        with zipfile.ZipFile(archive) as members:
            member = members.read(f"gzip/{name}.gz")
        return archive / "gzip" / f"{name}.gz", gzip.decompress(member)

    def read(self, split: Literal["train", "test"]) -> Batch:
        """Return uint8 images (N, 1, 28, 28) and int64 labels (N,).

        Raises:
            UserError: if a file is missing or damaged, or images and labels do not belong together.
        """
        images, labels = super().read(split)
        return images.transpose(2, 3).contiguous(), labels

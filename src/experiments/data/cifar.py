"""CIFAR-10, in the files and the layout that torchvision downloads."""

import hashlib
import io
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torchvision import datasets
from torchvision.datasets.utils import calculate_md5

from experiments.data.batches import Batch
from experiments.data.download import download, mismatch
from experiments.data.module import ImageDataModule
from experiments.errors import UserError


class CIFAR10(ImageDataModule):
    """50,000 training and 10,000 test photographs in ten classes, 3×32×32 (Krizhevsky 2009).

    Read from the folder ``<root>/cifar-10-batches-py`` or else from the archive ``<root>/cifar-10-python.tar.gz``,
    where it lies; downloaded if neither is there. Every file must match torchvision's checksum. The files are
    pickles: they are read without calling anything that they name.
    """

    source: ClassVar[Any] = datasets.CIFAR10
    image_shape = (3, 32, 32)
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    mean = (0.4914, 0.4822, 0.4465)  # published for the train split, not measured here
    std = (0.2470, 0.2435, 0.2616)
    train_images = 50_000

    def __init__(self, root: str = "data", **options: Any) -> None:
        super().__init__(**options)
        self.root = Path(root).expanduser()
        self.folder = self.root / self.source.base_folder
        self.archive = self.root / self.source.filename

    def prepare_data(self) -> None:
        """Download the archive (checksum verified) unless it or its unpacked folder is there.

        Raises:
            UserError: if it is missing and cannot be downloaded.
        """
        if not self.folder.exists() and not self.archive.exists():
            advice = (
                f"\nPut {self.archive.name} there, or set data.root to the folder that holds it or "
                f"{self.folder.name}, or use data=digits, which needs no download."
            )
            download([self.source.url], self.archive, self.source.tgz_md5, advice)

    def read(self, split: Literal["train", "test"]) -> Batch:
        """Return uint8 images (N, 3, 32, 32) and int64 labels (N,).

        Raises:
            UserError: if a file is missing or damaged.
        """
        checksums = dict(self.source.train_list if split == "train" else self.source.test_list)
        images, labels = [], []
        for path, content in self._contents(checksums):
            if hashlib.md5(content, usedforsecurity=False).hexdigest() != checksums[path.name]:
                raise mismatch(path)
            values, classes = _parse(path, content)
            images.append(values.view(-1, *self.image_shape))
            labels.append(classes)
        if len(images) != len(checksums):
            raise UserError(f"{self.archive} does not hold all of {', '.join(checksums)}")
        return torch.cat(images), torch.cat(labels)

    def _contents(self, names: dict[str, str]) -> Iterator[tuple[Path, bytes]]:
        """The files of these names, from the folder or else from the archive."""
        try:
            if self.folder.exists():
                for name in names:
                    yield self.folder / name, (self.folder / name).read_bytes()
                return
            if calculate_md5(self.archive) != self.source.tgz_md5:
                raise mismatch(self.archive)
            with tarfile.open(self.archive) as members:
                for member in members:
                    name = Path(member.name).name
                    if member.isfile() and name in names:
                        yield self.archive / name, members.extractfile(member).read()  # type: ignore[union-attr]
        except (OSError, tarfile.TarError) as error:
            where = getattr(error, "filename", None) or self.archive
            raise UserError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from error


class _Unpickler(pickle.Unpickler):
    """Reads a pickle of plain values and NumPy arrays; one that names anything else is refused, so no code runs."""

    allowed: ClassVar[set[tuple[str, str]]] = {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("_codecs", "encode"),  # how Python 3 writes bytes in an old protocol
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)


def _parse(path: Path, content: bytes) -> Batch:
    """One batch file: a pickled dict whose ``data`` is (N, 3072) bytes and whose ``labels`` are N numbers."""
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="latin1").load()
        images, labels = torch.tensor(batch["data"]), torch.tensor(batch["labels"], dtype=torch.int64)
        if images.dtype != torch.uint8 or images.shape != (len(labels), 3 * 32 * 32):
            raise ValueError(f"data of the shape {tuple(images.shape)} and {len(labels)} labels")
        if len(labels) == 0 or int(labels.min()) < 0 or int(labels.max()) > 9:
            raise ValueError("labels must go from 0 to 9")
    except Exception as error:  # whatever a damaged pickle may raise
        raise UserError(f"{path} is no batch of CIFAR-10: {error}") from error
    return images, labels

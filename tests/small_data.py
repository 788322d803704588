"""Small files in the data sets' true formats."""

import gzip
import hashlib
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets


def idx_bytes(values: torch.Tensor) -> bytes:
    """A tensor of uint8 in LeCun's IDX format."""
    header = bytes([0, 0, 8, values.dim()]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return header + values.numpy().tobytes()


def write_idx_files(
    folder: Path,
    train: int = 60,
    test: int = 20,
    packed: bool = False,
    prefixes: tuple[str, str] = ("train", "t10k"),
    num_classes: int = 10,
    first_label: int = 0,
) -> None:
    """Small files in the IDX format: random images, labels that cycle through the classes."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    for prefix, count in zip(prefixes, (train, test), strict=True):
        images = torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8, generator=generator)
        labels = (torch.arange(count) % num_classes + first_label).to(torch.uint8)
        for name, values in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            content = idx_bytes(values)
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)


def cifar_bytes(images: torch.Tensor, labels: list[int]) -> bytes:
    """A batch as CIFAR-10's authors pickled it: by Python 2, bytes as strings, one NumPy array."""

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    values = images.numpy().tobytes()
    dtype = b"cnumpy\ndtype\n" + text("u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + text("|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text("b") + b"\x87R"
    array += b"(" + number(1) + number(len(images)) + number(images[0].numel()) + b"\x86" + dtype + b"\x89"
    array += b"T" + len(values).to_bytes(4, "little") + values + b"tb"
    listed = b"](" + b"".join(number(label) for label in labels) + b"e"
    return b"\x80\x02}(" + text("data") + array + text("labels") + listed + b"u."


def write_cifar_files(root: Path, monkeypatch: pytest.MonkeyPatch, per_batch: int = 20) -> Path:
    """Small files in CIFAR-10's format, and their checksums where torchvision keeps those; returns the folder."""
    folder = root / datasets.CIFAR10.base_folder
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for lists in ("train_list", "test_list"):
        checksums = []
        for name, _ in getattr(datasets.CIFAR10, lists):
            images = torch.randint(0, 256, (per_batch, 3, 32, 32), dtype=torch.uint8, generator=generator)
            content = cifar_bytes(images, [number % 10 for number in range(per_batch)])
            (folder / name).write_bytes(content)
            checksums.append([name, hashlib.md5(content).hexdigest()])
        monkeypatch.setattr(datasets.CIFAR10, lists, checksums)
    return folder


def pack_cifar_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder as the archive that its authors publish, with its checksum where torchvision keeps it."""
    archive = folder.with_name(datasets.CIFAR10.filename)
    with tarfile.open(archive, "w:gz") as members:
        members.add(folder, folder.name)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    return archive


def pack_emnist_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The packed IDX files of the folder as EMNIST's one archive, with its checksum where torchvision keeps it."""
    archive = folder / "gzip.zip"
    with zipfile.ZipFile(archive, "w") as members:
        for path in sorted(folder.glob("*.gz")):
            members.write(path, f"gzip/{path.name}")
            path.unlink()
    monkeypatch.setattr(datasets.EMNIST, "md5", hashlib.md5(archive.read_bytes()).hexdigest())
    return archive


def write_image_folder(
    root: Path, splits: tuple[str, ...] = ("train",), per_class: int = 24, classes: tuple[str, ...] = ("cat", "dog")
) -> None:
    """Small colour images of several sizes and formats, in a folder a class."""
    generator = np.random.default_rng(0)
    for split in splits:
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(per_class):
                height, width = generator.integers(20, 60, 2)
                pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
                suffix = ("png", "jpg", "bmp", "webp")[number % 4]
                Image.fromarray(pixels).save(folder / f"{number:03}.{suffix}")


def small_emnist(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    prefixes = ("emnist-balanced-train", "emnist-balanced-test")
    write_idx_files(root / "EMNIST" / "raw", 141, 47, prefixes=prefixes, num_classes=47)
    return ["data.val_size=47"]


def small_cifar10(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    write_cifar_files(root, patch)
    return []


def small_image_folder(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    write_image_folder(root)
    return []


def small_image_table(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    write_image_folder(root)
    lines = [f"{path.relative_to(root)},{path.parent.name}" for path in sorted(root.glob("train/*/*"))]
    (root / "labels.csv").write_text("\n".join(["file,label", *lines]))
    return [f"data.table={root}/labels.csv"]


def idx_writer(folder: str) -> Callable[[Path, pytest.MonkeyPatch], list[str]]:
    """What writes files in the IDX format below a folder."""

    def write(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
        write_idx_files(root / folder / "raw")
        return []

    return write


#: Writes small files for a choice of the group ``data``; returns what to type beside where they lie.
SMALL_DATA = {
    "mnist": idx_writer("MNIST"),
    "fashion_mnist": idx_writer("FashionMNIST"),
    "kmnist": idx_writer("KMNIST"),
    "emnist": small_emnist,
    "cifar10": small_cifar10,
    "image_folder": small_image_folder,
    "image_table": small_image_table,
}

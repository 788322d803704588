"""What tests share: scripts run as users run them, and small files in the data sets' true formats."""

import gzip
import hashlib
import logging
import os
import runpy
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

os.environ.pop("UV_RUN_RECURSION_DEPTH", None)  # what tests start is not started by uv, even if they are
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])  # as if activated
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run beside each other; threads that wait for each other crawl

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from tests.fork_server import ForkServer
from tests.quick_compose import compose_quickly

ROOT = Path(__file__).resolve().parents[1]
compose_quickly()


@pytest.fixture
def mnist_root() -> str:
    """The folder that holds the real MNIST/raw."""
    root = os.environ.get("MNIST_ROOT")
    if not root:
        pytest.skip("MNIST_ROOT is not set: it names the folder that holds MNIST/raw")
    return root


@pytest.fixture
def script(tmp_path):
    """Run ``python scripts/<name>.py *arguments`` in an empty folder; returns the finished process."""

    def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("EXPERIMENTS_")}
        return subprocess.run(
            [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *arguments],
            cwd=tmp_path,
            env={**clean, **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture(scope="session")
def processes():
    """Starts scripts as processes whose imports are done: where a process is tested, and not how it begins."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def forked(processes, tmp_path):
    """As ``script``, in a process whose imports are done."""

    def run(name: str, *arguments: str) -> subprocess.CompletedProcess:
        output, errors = tmp_path / "stdout.txt", tmp_path / "stderr.txt"
        code = processes.start(tmp_path, output, f"scripts/{name}.py", *arguments, errors=errors).wait()
        return subprocess.CompletedProcess(arguments, code, output.read_text(), errors.read_text())

    return run


@pytest.fixture
def script_here(monkeypatch, capsys):
    """Run ``scripts/<name>.py`` in this process, which has imported torch already; returns code, output, errors."""

    def run(name: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        monkeypatch.setattr(sys, "path", [*sys.path])  # scripts add the current folder
        code, handlers = 0, [*logging.getLogger().handlers]
        try:
            runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), run_name="__main__")
        except SystemExit as ending:
            code = ending.code
        finally:
            logging.getLogger().handlers[:] = handlers  # Hydra's would write to what pytest has closed
        return code, *capsys.readouterr()

    return run


@pytest.fixture(autouse=True)
def _own_run_id(monkeypatch):
    """A run's id and a sweep's conf files travel to children in the environment: no test inherits another's."""
    monkeypatch.delenv("EXPERIMENTS_RUN_ID", raising=False)
    monkeypatch.setenv("EXPERIMENTS_CONF", "")


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


@pytest.fixture
def small_mnist(tmp_path) -> Path:
    """A root whose MNIST/raw holds 60 training and 20 test images."""
    write_idx_files(tmp_path / "files" / "MNIST" / "raw")
    return tmp_path / "files"


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


@pytest.fixture
def small_data(tmp_path, monkeypatch):
    """Write small files for a choice of the group ``data``; returns the overrides that make a run use them."""

    def write(data: str) -> list[str]:
        root = tmp_path / "files"
        if data not in SMALL_DATA:  # it comes along, as the digits do
            return []
        return [f"data.root={root}", "data.val_size=20", *SMALL_DATA[data](root, monkeypatch)]

    return write

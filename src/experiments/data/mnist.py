"""MNIST, in the files and the layout that torchvision downloads."""

import gzip
import hashlib
import http.client
import math
import os
import socket
import tempfile
import urllib.error
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torchvision import datasets
from torchvision.datasets.utils import download_url

from experiments.data.module import Batch, ImageDataModule
from experiments.errors import UserError

DOWNLOAD_TIMEOUT_S = 30
_SPLITS = {"train": "train", "test": "t10k"}


class MNIST(ImageDataModule):
    """60,000 training and 10,000 test images of handwritten digits, 1×28×28 (LeCun et al. 1998).

    Files lie in ``<root>/MNIST/raw``, as torchvision lays them out. Files that are there, packed (.gz) or unpacked,
    are used and never fetched again; packed ones must match torchvision's checksums. Missing ones are downloaded.
    """

    source: ClassVar[Any] = datasets.MNIST
    image_shape = (1, 28, 28)
    class_names = tuple("0123456789")
    mean = (0.1307,)
    std = (0.3081,)

    def __init__(self, root: str = "data", **options: Any) -> None:
        super().__init__(**options)
        self.folder = Path(root).expanduser() / self.source.__name__ / "raw"

    def prepare_data(self) -> None:
        """Download what is missing (checksums verified); an interrupted download leaves nothing behind.

        Raises:
            UserError: if a file is missing and cannot be downloaded.
        """
        for packed, md5 in self.source.resources:
            if not (self.folder / packed).exists() and not (self.folder / packed).with_suffix("").exists():
                self._download(packed, md5)

    def _download(self, name: str, md5: str) -> None:
        reasons = []
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".download-") as beside:
                for mirror in self.source.mirrors:
                    try:
                        download_url(mirror + name, beside, filename=name, md5=md5)
                    except (OSError, RuntimeError, urllib.error.URLError, http.client.HTTPException) as error:
                        reasons.append(f"{mirror}: {error}")
                    else:
                        os.replace(Path(beside, name), self.folder / name)
                        return
        except OSError as error:
            reasons.append(str(error))
        finally:
            socket.setdefaulttimeout(timeout)
        names = ", ".join(packed for packed, _ in self.source.resources)
        raise UserError(
            f"{self.source.__name__} is not in {self.folder.absolute()} and could not be downloaded:\n  "
            + "\n  ".join(reasons)
            + f"\nPut the files {names} there, or set data.root to the folder that holds "
            f"{self.source.__name__}/raw, or use data=digits, which needs no download."
        )

    def read(self, split: Literal["train", "test"]) -> Batch:
        """Return uint8 images (N, 1, 28, 28) and int64 labels (N,).

        Raises:
            UserError: if a file is missing or damaged, or images and labels do not belong together.
        """
        images_name, labels_name = (f"{_SPLITS[split]}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1"))
        images, labels = self._read_idx(images_name, dims=3), self._read_idx(labels_name, dims=1)
        if images.shape[1:] != self.image_shape[1:]:
            raise UserError(f"{self.folder / images_name} holds images of {tuple(images.shape[1:])}, not (28, 28)")
        if len(images) != len(labels):
            raise UserError(
                f"{self.folder / images_name} holds {len(images)} images, but {labels_name} {len(labels)} labels"
            )
        if len(images) == 0:
            raise UserError(f"{self.folder / images_name} holds no image")
        if int(labels.max()) >= self.num_classes:
            raise UserError(
                f"{self.folder / labels_name} holds the label {int(labels.max())}; labels go from 0 to "
                f"{self.num_classes - 1}"
            )
        return images.unsqueeze(1), labels.long()

    def _read_idx(self, name: str, dims: int) -> torch.Tensor:
        """Read an IDX file of unsigned bytes (LeCun's format: magic number, sizes, values), packed or not."""
        path = self.folder / name
        try:
            if path.exists():
                content = path.read_bytes()
            else:
                path = path.with_name(f"{name}.gz")
                packed = path.read_bytes()
                if hashlib.md5(packed, usedforsecurity=False).hexdigest() != dict(self.source.resources)[path.name]:
                    raise UserError(
                        f"{path} does not match its checksum: it is damaged, incomplete or another file. Delete it, "
                        "and the next run downloads it anew"
                    )
                content = gzip.decompress(packed)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
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

"""Images of any size and mode, brought to what a network takes by one rule."""

import glob
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from experiments.data.pixels import to_pixels
from experiments.errors import UserError

# EPS would start Ghostscript; the others are names that Pillow knows without a reader.
# FITS unpacks gzip before anyone has looked at its size.
_NOT_READ = {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF", "FITS"}


@lru_cache
def formats() -> tuple[str, ...]:
    """The formats that are read."""
    Image.init()
    return tuple(name for name in Image.ID if name not in _NOT_READ)


def find(images: str | Path) -> list[Path]:
    """The image files that a file, a folder (with its sub-folders) or a glob names, in order of their names.

    Raises:
        UserError: if there are none.
    """
    path = Path(images)
    if path.is_file():
        return [path]
    if path.is_dir():
        suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in formats()}
        found = [
            file
            for file in path.rglob("*")
            if file.suffix.lower() in suffixes and not file.name.startswith(".") and file.is_file()
        ]
    else:
        found = [Path(name) for name in glob.glob(str(images), recursive=True) if Path(name).is_file()]
    if not found:
        raise UserError(f"images={images} names no image: it must be a file, a folder with images, or a glob")
    return sorted(found)


@contextmanager
def refusing_bombs() -> Iterator[None]:
    """Let Pillow refuse small files that unpack to gigabytes, where it would only warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def to_input(image: str | Path | Image.Image | Tensor, shape: Sequence[int], invert: bool = False) -> Tensor:
    """Bring an image to uint8 (C, H, W) of the given shape, as ``data=image_folder`` does (``data.pixels``).

    Args:
        image: a file, a PIL image, or a uint8 tensor (H, W) or (channels, H, W).
        shape: channels (1 or 3), height and width.
        invert: turn dark strokes on light ground, as on paper, into light ones on dark, as in MNIST.

    Raises:
        ValueError: if the image cannot be read; the message says why.
    """
    try:
        with _opened(image) as opened:
            values = torch.from_numpy(to_pixels(opened, shape))
    except UnidentifiedImageError as error:
        raise ValueError("not an image of a known format") from error
    except Exception as error:  # Pillow's readers raise whatever a broken file makes them stumble over
        raise ValueError(str(error) or type(error).__name__) from error
    return 255 - values if invert else values


def _opened(image: str | Path | Image.Image | Tensor) -> Image.Image:
    if isinstance(image, Tensor):
        if image.dtype != torch.uint8:
            raise ValueError(f"a tensor of {image.dtype}; images are uint8, from 0 to 255")
        planes = image[None] if image.dim() == 2 else image
        if planes.dim() != 3 or len(planes) not in (1, 3):
            raise ValueError(f"a tensor of shape {tuple(image.shape)}; images are (H, W), (1, H, W) or (3, H, W)")
        values = planes.cpu().permute(1, 2, 0).numpy()
        return Image.fromarray(np.ascontiguousarray(values[..., 0] if len(planes) == 1 else values))
    if isinstance(image, Image.Image):
        return image.copy()
    return Image.open(image, formats=formats())

"""Read images of any size and mode, and bring them to what a network takes, by one rule."""

import glob
import logging
import os
import sys
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from experiments.errors import UserError

log = logging.getLogger(__name__)
Readable = str | Path | IO[bytes] | Image.Image | Tensor
# of a folder to train on; Pillow would hand some other formats to external programs, whatever the file's name says
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
SECONDS_BETWEEN_LINES = 10
AHEAD = 512  # images that are decoded before they are stored
# EPS would start Ghostscript; FITS unpacks gzip before its size is known; of the others, Pillow knows names alone
_NOT_READ = {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF", "FITS"}


@lru_cache
def formats() -> tuple[str, ...]:
    """The formats that are read."""
    Image.init()
    return tuple(name for name in Image.ID if name not in _NOT_READ)


def files_below(folder: Path) -> list[Path]:
    """All files below a folder and the folders that are linked from there, in order; hidden ones are passed over.

    Raises:
        UserError: if a link leads nowhere.
    """
    found: list[Path] = []
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [] if os.path.realpath(place) in seen else [name for name in folders if name[0] != "."]
        if folders or os.path.realpath(place) not in seen:
            found += [Path(place, name) for name in names if name[0] != "."]
        seen.add(os.path.realpath(place))
    if dead := [path for path in found if not path.exists()]:
        listed = "\n  ".join(f"{path} -> {os.readlink(path)}" for path in sorted(dead)[:10])
        raise UserError(f"{len(dead)} links below {folder} lead nowhere; mend or remove them:\n  {listed}")
    return sorted(found)


def find(images: str | Path) -> list[Path]:
    """The image files that a file, a folder (with its sub-folders) or a glob names, in order of their names.

    Raises:
        UserError: if there are none.
    """
    path = Path(images)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [file for file in files_below(path) if file.suffix.lower() in SUFFIXES]
    else:
        found = [Path(name) for name in glob.glob(str(images), recursive=True) if Path(name).is_file()]
    if not found:
        raise UserError(f"images={images} names no image: it must be a file, a folder with images, or a glob")
    return sorted(found)


@contextmanager
def refusing_decompression_bombs() -> Iterator[None]:
    """Let Pillow refuse small files that unpack to gigabytes, where it would only warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def to_input(image: Readable, shape: Sequence[int], invert: bool = False) -> Tensor:
    """Bring an image to uint8 (C, H, W) of the given shape, as ``data=image_folder`` does (``data.pixels``).

    Args:
        image: a file or its name, a PIL image, or a uint8 tensor (H, W) or (channels, H, W).
        shape: channels (1 or 3), height and width.
        invert: turn dark strokes on a light background, as on paper, into light ones on dark, as in MNIST.

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


def has_other_background(image: Tensor, mean: Sequence[float]) -> bool:
    """Whether a grey image (1, H, W), uint8, is dark on light where those of this ``mean`` are light on dark, or so.

    Its border says what its background is; where either is neither light nor dark, so is the answer.
    """
    if len(image) != 1:
        return False
    inner = image[:, 1:-1, 1:-1]
    border = (image.sum() - inner.sum()).item() / max(1, image.numel() - inner.numel()) / 255
    return (mean[0] < 0.4 and border > 0.6) or (mean[0] > 0.6 and border < 0.4)


def _opened(image: Readable) -> Image.Image:
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


MAX_PIXELS = 89_000_000  # Pillow's own limit before it speaks of decompression bombs


def to_pixels(image: Image.Image, shape: Sequence[int]) -> Any:
    """Bring an image to uint8 (C, H, W) of the given shape, as a NumPy array.

    The first frame, turned as its EXIF tag says. Deeper than 8 bits: scaled to 8. Transparency: laid on white.
    Colour: to grey by Pillow's luma (ITU-R 601-2) or to RGB, as ``shape`` has channels. Another size: scaled to cover
    it and cut around its centre, bilinear with antialiasing; the same size: untouched.

    Raises:
        ValueError: if it is too large, or its values mean nothing; Pillow's readers raise anything beside that.
    """
    channels, height, width = shape
    mode = {1: "L", 3: "RGB"}[channels]
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} × {image.height} pixels are more than {MAX_PIXELS:,}")
    if min(image.size) < 1:
        raise ValueError(f"{image.width} × {image.height} pixels")
    image.draft(mode, (2 * width, 2 * height))  # JPEG decodes to a half, a quarter or an eighth by itself
    picture = _eight_bits(ImageOps.exif_transpose(image))
    if picture.has_transparency_data:
        paper = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(paper, picture.convert("RGBA"))
    picture = picture.convert(mode)
    if picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
    return np.array(picture).reshape(height, width, channels).transpose(2, 0, 1)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits, and Lab colour, in a mode that Pillow converts further."""
    if picture.mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(picture, lab, rgb, outputMode="RGB") or picture
    if picture.mode not in ("I", "F") and not picture.mode.startswith("I;"):
        return picture
    values = np.asarray(picture, dtype=np.float64)
    if not (values.min() >= 0 and values.max() <= 65535):  # false for NaN too
        raise ValueError(f"its values, {values.min():g} to {values.max():g}, are not within 0 to 65535")
    white = 65535
    if picture.mode in ("I", "F"):  # they do not say how bright white is
        white = next(top for top in (1, 255, 65535) if values.max() <= top and (top > 1 or picture.mode == "F"))
    return Image.fromarray((values * (255 / white)).round().astype(np.uint8))


def decode(path: Path, shape: Sequence[int]) -> Any:
    """An image file as bytes of a shape (C, height, width), or the reason why it is none."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return to_pixels(image, shape)
    except Exception as error:  # a damaged file may raise nearly anything, anywhere in Pillow
        return str(error).replace(repr(str(path)), "the file").strip() or type(error).__name__


def _decoded(path: Path, shape: Sequence[int]) -> Any:
    """An image, its checksum and how often each channel has each value; or the reason why it is none."""
    image = decode(path, shape)
    if isinstance(image, str):
        return image
    counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in image])
    return image, zlib.crc32(image.tobytes()), counts


def decode_all(
    files: Sequence[Path], shape: Sequence[int], workers: int, description: str, pixels: Any
) -> tuple[Any, Any]:
    """Decode image files in threads into ``pixels``, uint8 (N, C, height, width), with a bar on a terminal.

    Returns:
        The checksum of each image, and how often each channel has each of the 256 values: (C, 256).

    Raises:
        UserError: if one cannot be read; the message names ten of them and their reasons.
    """
    checksums, counts = np.zeros(len(files), dtype=np.uint32), np.zeros((shape[0], 256), dtype=np.int64)
    faults = []
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore")  # Pillow's doubts about single files: they are read or refused
        Image.init()  # before the threads do
        parts = (files[start : start + AHEAD] for start in range(0, len(files), AHEAD))
        decoded = (found for part in parts for found in pool.map(partial(_decoded, shape=shape), part))
        try:
            for i, found in enumerate(_with_progress(decoded, len(files), description)):
                if isinstance(found, str):
                    faults.append(f"{files[i]}: {found}")
                else:
                    pixels[i], checksums[i] = found[:2]
                    counts += found[2]
        except BaseException:  # Ctrl-C does not wait for the rest
            pool.shutdown(cancel_futures=True)
            raise
    if faults:
        listed = "\n  ".join(faults[:10] + ([f"and {len(faults) - 10} more"] if len(faults) > 10 else []))
        raise UserError(f"{len(faults)} of {len(files)} images cannot be read; mend or remove them:\n  {listed}")
    return checksums, counts


def _with_progress(decoded: Iterable[Any], total: int, description: str) -> Iterator[Any]:
    """The same items, with a bar and images a second on a terminal, and now and then a line elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    terminal, started = sys.stderr.isatty(), time.monotonic()
    said = started
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not terminal) as progress:
        task = progress.add_task(description, total=total, rate="")
        for number, one in enumerate(decoded, 1):
            yield one
            now = time.monotonic()
            rate = f"{number / max(now - started, 1e-9):,.0f} images/s"
            progress.update(task, advance=1, rate=rate)
            if not terminal and now - said > SECONDS_BETWEEN_LINES:
                log.info("%s: %s of %s, %s", description, f"{number:,}", f"{total:,}", rate)
                said = now

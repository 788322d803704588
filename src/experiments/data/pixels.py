"""One rule for what becomes of an image, whether it is trained on or predicted."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

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

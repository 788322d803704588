"""Pictures of what was measured, drawn with Pillow: importing matplotlib would cost every start a second."""

import base64
import io
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Matrix = np.ndarray[Any, Any]
INK, PALE, GRID = (32, 36, 44), (120, 126, 138), (222, 225, 231)
BLUE, ORANGE, DARK = (47, 111, 196), (226, 120, 42), (18, 66, 140)
MAX_NAMED = 40  # classes that are drawn with their names and numbers


@lru_cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _shortened(text: str, length: int = 14) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


@lru_cache(1000)
def _width(text: str, size: int) -> int:
    return math.ceil(_font(size).getlength(text))


def rates_of(matrix: Matrix) -> Matrix:
    """Each row of a confusion matrix as shares of its class; 0 where the class does not occur."""
    return matrix / np.maximum(matrix.sum(1, keepdims=True), 1)


def precision_recall_of(matrix: Matrix) -> tuple[Matrix, Matrix]:
    """Each class's precision and recall; NaN for one that is never predicted, or does not occur."""
    right = np.diag(matrix).astype(float)
    with np.errstate(invalid="ignore"):
        return right / matrix.sum(0), right / matrix.sum(1)


def shade(share: float) -> tuple[int, ...]:
    """White for 0 to dark blue for 1; small shares are told apart best."""
    strength = share**0.5
    return tuple(round(255 + strength * (dark - 255)) for dark in DARK)


def confusion_matrix(matrix: Matrix, names: Sequence[str], rates: bool) -> Image.Image:
    """Rows are true classes, columns predicted ones; cells are shaded by rate. Many classes: a pixel or more each."""
    shares = rates_of(matrix)
    size, named = len(matrix), len(matrix) <= MAX_NAMED
    cell = max(26, 44 - size // 2) if named else max(1, 900 // size)
    labels = [_shortened(name) for name in names] if named else []
    margin = 34 + max((_width(label, 12) for label in labels), default=0)
    picture = Image.new("RGB", (margin + size * cell + 16, margin + size * cell + 40), "white")
    draw = ImageDraw.Draw(picture)
    kind = "share of each true class" if rates else "images"
    title = f"{kind}, {np.trace(matrix) / max(1, matrix.sum()):.2%} right"
    draw.text((margin, 8), title, INK, _font(13))
    top = 32
    if named:
        for row in range(size):
            for column in range(size):
                left, upper, share = margin + column * cell, top + row * cell, shares[row, column]
                draw.rectangle((left, upper, left + cell - 1, upper + cell - 1), shade(share), GRID)
                if matrix[row, column]:
                    text = f"{share:.2f}".lstrip("0") if rates else str(matrix[row, column])
                    ink = "white" if share > 0.3 else INK
                    fits = next((s for s in (12, 10, 8) if _width(text, s) < cell - 2), 7)
                    draw.text((left + cell / 2, upper + cell / 2), text, ink, _font(fits), anchor="mm")
        for number, label in enumerate(labels):
            middle = number * cell + cell / 2
            draw.text((margin - 6, top + middle), label, INK, _font(12), anchor="rm")
            upright = Image.new("L", (_width(label, 12) + 2, 16))
            ImageDraw.Draw(upright).text((0, 0), label, 255, _font(12))
            turned = upright.rotate(90, expand=True) if len(label) > 2 else upright
            place = (round(margin + middle - turned.width / 2), top + size * cell + 6)
            picture.paste(INK, (*place, place[0] + turned.width, place[1] + turned.height), turned)
    else:
        colors = 255 + np.sqrt(shares)[..., None] * (np.array(DARK) - 255.0)
        pixels = Image.fromarray(colors.round().astype(np.uint8))
        picture.paste(pixels.resize((size * cell, size * cell), Image.Resampling.NEAREST), (margin, top))
        draw.rectangle((margin - 1, top - 1, margin + size * cell, top + size * cell), outline=PALE)
    draw.text((margin + size * cell / 2, picture.height - 8), "predicted", PALE, _font(12), anchor="ms")
    side = Image.new("L", (40, 16))
    ImageDraw.Draw(side).text((4, 0), "true", 255, _font(12))
    side = side.rotate(90, expand=True)
    picture.paste(PALE, (4, round(top + size * cell / 2 - 20), 20, round(top + size * cell / 2 + 20)), side)
    return picture


def precision_and_recall(matrix: Matrix, names: Sequence[str]) -> Image.Image:
    """Two bars a class; of many classes those of the lowest recall."""
    precision, recall = precision_recall_of(matrix)
    order = range(len(matrix))
    title = "precision and recall"
    if len(matrix) > MAX_NAMED:
        order = np.argsort(np.where(np.isnan(recall), 2, recall), kind="stable")[:MAX_NAMED].tolist()
        title += f" of the {MAX_NAMED} classes of lowest recall"
    labels = {number: _shortened(names[number], 20) for number in order}
    margin = 16 + max(_width(label, 12) for label in labels.values())
    length, height = 320, 30
    picture = Image.new("RGB", (margin + length + 70, 44 + height * len(labels)), "white")
    draw = ImageDraw.Draw(picture)
    left = margin
    for word in title.split(" "):
        draw.text((left, 8), word, {"precision": BLUE, "recall": ORANGE}.get(word, INK), _font(13))
        left += _width(f"{word} ", 13)
    for place, (number, label) in enumerate(labels.items()):
        upper = 34 + place * height
        draw.text((margin - 6, upper + 12), label, INK, _font(12), anchor="rm")
        for row, (values, ink) in enumerate(((precision, BLUE), (recall, ORANGE))):
            value, bar = values[number], upper + row * 12
            if not np.isnan(value):
                draw.rectangle((margin, bar + 1, margin + value * length, bar + 10), ink)
            text = "none" if np.isnan(value) else f"{value:.3f}"
            draw.text((margin + length + 8, bar + 5), text, INK, _font(11), anchor="lm")
    return picture


def mistakes(captioned: Sequence[tuple[Image.Image, tuple[str, str]]], columns: int = 8) -> Image.Image:
    """A grid of pictures, each above its two lines of text."""
    side, height = 112, 112 + 34
    columns = min(columns, len(captioned))
    picture = Image.new("RGB", (columns * (side + 8) + 8, math.ceil(len(captioned) / columns) * height + 8), "white")
    draw = ImageDraw.Draw(picture)
    for number, (image, lines) in enumerate(captioned):
        left, upper = 8 + number % columns * (side + 8), 8 + number // columns * height
        scaled = enlarged(image, side)
        picture.paste(scaled, (left + (side - scaled.width) // 2, upper + (side - scaled.height) // 2))
        for row, (line, ink) in enumerate(zip(lines, (INK, ORANGE), strict=True)):
            line = line if len(line) <= 40 else f"{line[:20]}…{line[-20:]}"
            while _width(line, 12) > side:  # the end, with the probability, is what must stay
                line = line[: len(line) // 2 - 2] + "…" + line[len(line) // 2 :]
            draw.text((left, upper + side + 2 + row * 14), line, ink, _font(12))
    return picture


def enlarged(image: Image.Image, side: int) -> Image.Image:
    """Scaled so that the longer side is about ``side``; small images keep their square pixels."""
    factor = side / max(image.size)
    if factor >= 1:
        return image.resize((image.width * int(factor), image.height * int(factor)), Image.Resampling.NEAREST)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BILINEAR)


def data_url(picture: Image.Image) -> str:
    """A picture as an address that holds it."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def denormalized(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Network inputs (N, C, H, W) in [0, 1]; without mean and std, each image by its own range."""
    if images.ndim == 4 and len(mean) == len(std) == images.shape[1]:
        scale, shift = (torch.tensor(list(values), dtype=torch.float32).view(-1, 1, 1) for values in (std, mean))
        images = images * scale + shift
    elif len(images):
        low = images.flatten(1).amin(1).view(-1, *[1] * (images.ndim - 1))
        high = images.flatten(1).amax(1).view_as(low)
        images = (images - low) / (high - low).clamp(min=1e-12)
    return images.nan_to_num(0.0).clamp(0, 1)


def pictures(images: Tensor) -> list[Image.Image]:
    """Images (N, C, H, W) in [0, 1] as colour pictures; other channels than 1 and 3 by their mean. Else nothing."""
    if images.ndim != 4:
        return []
    if images.shape[1] not in (1, 3):
        images = images.mean(1, keepdim=True)
    values = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return [Image.fromarray(value[..., 0] if value.shape[2] == 1 else value).convert("RGB") for value in values]

"""What networks answer of an image: its class, its labels, values or a mask; and files of answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from experiments.errors import UserError
from experiments.runs.files import write_csv


def columns_of(prefix: str, numbers: Mapping[str, float]) -> dict[str, str]:
    """Named numbers as columns of a CSV file: ``<prefix>/<name>``."""
    return {f"{prefix}/{name}": f"{value:.6g}" for name, value in numbers.items()}


@dataclass(frozen=True)
class Prediction:
    """The class that a network finds most probable, and the probability of every class by its name.

    ``inverted``: whether the image was turned from dark on light to light on dark, or the other way round.
    """

    predicted: str
    probability: float
    probabilities: dict[str, float]
    inverted: bool = False

    def __str__(self) -> str:
        return f"{self.predicted}  {self.probability:.4f}"

    def row(self) -> dict[str, str]:
        """What a CSV file says of it."""
        columns = columns_of("probability", self.probabilities)
        return {"predicted": self.predicted, "probability": f"{self.probability:.6g}", **columns}


@dataclass(frozen=True)
class Labels:
    """The labels that are more probable than not, and the probability of every label by its name."""

    predicted: list[str]
    probabilities: dict[str, float]
    inverted: bool = False

    def __str__(self) -> str:
        return " ".join(f"{name} {self.probabilities[name]:.4f}" for name in self.predicted) or "none"

    def row(self) -> dict[str, str]:
        """What a CSV file says of it; labels are apart by a semicolon."""
        return {"predicted": ";".join(self.predicted), **columns_of("probability", self.probabilities)}


@dataclass(frozen=True)
class Values:
    """The values by their names."""

    values: dict[str, float]
    inverted: bool = False

    def __str__(self) -> str:
        return "  ".join(f"{name} {value:.4f}" for name, value in self.values.items())

    def row(self) -> dict[str, str]:
        """What a CSV file says of it."""
        return columns_of("value", self.values)


@dataclass(frozen=True)
class Mask:
    """The most probable class of every pixel, int64 (H, W), and each class's share of the pixels by its name."""

    mask: Tensor = field(compare=False)  # tensors compare pixel by pixel
    shares: dict[str, float]
    inverted: bool = False

    def __str__(self) -> str:
        return "  ".join(f"{name} {value:.1%}" for name, value in self.shares.items())

    def row(self) -> dict[str, str]:
        """What a CSV file says of it."""
        return columns_of("share", self.shares)

    def picture(self) -> Image.Image:
        """The mask as an image whose values are the classes' numbers; up to 256 are shown in greys."""
        if len(self.shares) > 256:
            return Image.fromarray(self.mask.numpy().astype("uint16"))
        image = Image.fromarray(self.mask.byte().numpy())
        last = max(1, len(self.shares) - 1)
        image.putpalette([round(255 * min(1, number / last)) for number in range(256) for _ in range(3)])
        return image


Answer = Prediction | Labels | Values | Mask


def answer_of(output_type: str, predictions: Tensor, names: Sequence[str], inverted: bool) -> Answer:
    """What a network says of one image.

    Args:
        output_type: what the network's task has for outputs, as ``model.outputs``.
        predictions: probabilities (K,), of a mask (K, H, W); or values (K,).
        names: the classes' or values' (K).
        inverted: whether the image's brightness was turned round before.
    """
    if output_type == "mask":
        mask = predictions.argmax(0)
        shares = mask.flatten().bincount(minlength=len(names)).double() / mask.numel()
        return Mask(mask, dict(zip(names, shares.tolist(), strict=True)), inverted)
    by_name = dict(zip(names, predictions.tolist(), strict=True))
    if output_type == "values":
        return Values(by_name, inverted)
    if output_type == "labels":
        return Labels([name for name, value in by_name.items() if value > 0.5], by_name, inverted)
    best = max(by_name, key=lambda name: by_name[name])
    return Prediction(best, by_name[best], by_name, inverted)


def write_answers(answers: Mapping[Path, Answer | str], output: str | Path) -> None:
    """Write a CSV file: the image's file, the columns of its answer, error, inverted.

    Classes have the columns predicted, probability and probability/<class>. Masks are PNG files in the folder
    ``<output>_masks``, which the column ``mask`` names. In place of an answer, text says what is wrong with the image.

    Raises:
        UserError: if it cannot be written.
    """
    folder = Path(output).with_suffix("")
    folder = folder.with_name(f"{folder.name}_masks")
    found: dict[Path, dict[str, str]] = {}
    for number, (file, answer) in enumerate(answers.items()):
        if isinstance(answer, str):
            continue
        found[file] = answer.row()
        if isinstance(answer, Mask):
            path = folder / f"{number:05}_{file.stem}.png"
            _save(answer.picture(), path)
            found[file] = {"mask": str(path), **found[file]}
    columns = list(next(iter(found.values()), {"predicted": "", "probability": ""}))
    rows: list[list[Any]] = [["file", *columns, "error", "inverted"]]
    for file, answer in answers.items():
        row = found.get(file, {})
        last = [answer, ""] if isinstance(answer, str) else ["", str(answer.inverted).lower()]
        rows.append([file, *(row.get(column, "") for column in columns), *last])
    write_csv(Path(output), rows)


def _save(picture: Image.Image, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error

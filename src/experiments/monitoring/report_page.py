"""A run as one page of HTML: everything inside, nothing fetched, no script, every text escaped."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from PIL import Image

from experiments.monitoring import drawing
from experiments.monitoring.per_class import per_class
from experiments.monitoring.worst_predictions import WrongPrediction
from experiments.runs.run_directory import read_environment

if TYPE_CHECKING:
    from jinja2 import Template

MAX_CELLS = 30  # classes whose confusion matrix is a table; of more it is a picture
MAX_PAIRS = 12  # pairs of classes that are listed
PICTURE_SIDE = 128  # pixels, of an image in the page
CARDS = (
    ("test accuracy", "test/accuracy", "{:.2%}"),
    ("best val accuracy", "val/accuracy", "{:.2%}"),
    ("test loss", "test/loss", "{:.4f}"),
    ("val loss there", "val/loss", "{:.4f}"),
    ("parameters", "parameters", "{:,}"),
    ("epochs", "epochs", "{:,}"),
    ("steps", "steps", "{:,}"),
    ("training seconds", "train_seconds", "{:,.1f}"),
)


def render(
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    folder: Path,
    network: str,
    points: Mapping[str, Sequence[Sequence[float]]],
    stage: str,
    class_names: Sequence[str],
    matrix: drawing.Matrix | None,
    mistakes: Sequence[WrongPrediction] | None,
) -> str:
    """Return the page, from the template ``report.html.jinja``.

    Args:
        config: plain values, resolved.
        summary: what ``summary.json`` will say.
        folder: the run directory; what it says of the machine and the command is shown.
        network: the network, printed.
        points: for each metric, pairs of optimizer step and value.
        stage: what matrix and mistakes are of, ``test`` or ``val``.
        class_names: the classes.
        matrix: counts (num_classes, num_classes), true class by predicted one; None leaves it out.
        mistakes: the most confident first; None leaves them out.
    """
    machine = read_environment(folder)
    facts = [
        folder.name,
        machine.get("started"),
        *(f"{key} {summary[key]}" for key in ("seed", "device") if key in summary),
        *summary.get("frozen", ()),
        ", ".join(config.get("tags") or ()),
        config.get("note"),
    ]
    told = {key for _, key, _ in CARDS}
    further = [
        key for key in summary if key not in told and (key.startswith("test/") or key == config.get("monitor"))
    ]
    cards = [*CARDS, *((key, key, "{:.4f}") for key in further)]
    sections = {"everything, resolved": dict(config), "machine, versions and command": machine}
    texts = {
        title: yaml.safe_dump(part, sort_keys=False, allow_unicode=True) for title, part in sections.items() if part
    }
    page: str = _template().render(
        name=str(config.get("name", folder.name)),
        split={"test": "test split", "val": "last validation"}[stage],
        status=str(summary.get("status", "")),
        facts=[_printable(fact) for fact in facts if fact],
        error=summary.get("error"),
        cards=[(label, form.format(summary[key])) for label, key, form in cards if _is_number(summary.get(key))],
        charts=_charts(points),
        class_names=class_names,
        **_confusion(matrix, class_names),
        mistakes=mistakes and [{**vars(each), "url": drawing.data_url(_small(each.picture))} for each in mistakes],
        typed=_typed(folder),
        sections={**texts, "the network": network},
    )
    return page


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
    )
    return environment.get_template("report.html.jinja")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _printable(value: Any) -> Any:
    """A text without the characters that no page may hold."""
    if type(value) is not str:
        return value
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in value)


def _charts(points: Mapping[str, Sequence[Sequence[float]]]) -> list[dict[str, Any]]:
    """A chart for each metric, accuracy and loss first."""
    names = dict.fromkeys(name.partition("/")[2] for name in points)
    charts = []
    for name in sorted(names, key=lambda name: (name != "accuracy", name != "loss")):
        curves = {
            stage: [point for point in points.get(f"{stage}/{name}", []) if math.isfinite(point[1])]
            for stage in ("train", "val")
        }
        if any(curves.values()):
            charts.append(_chart(name, curves))
    return charts


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``."""
    span = high - low or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / about))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= about)
    return [step * number for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _chart(name: str, curves: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """Where the marks of a chart over optimizer steps stand, a line a stage, in pixels."""
    width, height, left, right, top, bottom = 560, 260, 52, 548, 10, 226
    every = [point for points in curves.values() for point in points]
    steps, values = [point[0] for point in every], [point[1] for point in every]
    first, last = min(0.0, *steps), max(1.0, *steps)
    margin = 0.06 * (max(values) - min(values)) or 0.05 * abs(max(values)) or 1.0
    low, high = min(values) - margin, max(values) + margin

    def x(step: float) -> float:
        return round(left + (step - first) / (last - first) * (right - left), 1)

    def y(value: float) -> float:
        return round(bottom - (value - low) / (high - low) * (bottom - top), 1)

    return {
        "name": name,
        "width": width,
        "height": height,
        "left": left,
        "right": right,
        "bottom": bottom,
        "value_ticks": [(y(value), f"{value:.4g}") for value in _ticks(low, high)],
        "step_ticks": [(x(step), f"{step:,.0f}") for step in _ticks(first, last)],
        "curves": [
            {
                "stage": stage,
                "style": {"train": "first", "val": "second"}[stage],
                "points": [
                    (x(at), y(value), f"{stage}/{name} {value:.5g} at step {at:,.0f}") for at, value in points
                ],
            }
            for stage, points in curves.items()
            if points
        ],
    }


def _confusion(matrix: drawing.Matrix | None, names: Sequence[str]) -> dict[str, Any]:
    """The matrix as rows of a table, or of many classes as a picture; each class's rates, the pairs confused most."""
    if matrix is None or not matrix.sum():
        return {"rows": [], "map": "", "classes": [], "confused": []}
    shares, classes = drawing.rates_of(matrix), per_class(matrix, names)
    order = list(range(len(matrix)))
    rows, picture = [], ""
    if len(matrix) > MAX_CELLS:
        order = sorted(order, key=lambda n: 2 if classes[n]["recall"] is None else classes[n]["recall"])[:MAX_CELLS]
        picture = drawing.data_url(drawing.confusion_matrix(matrix, names, rates=True))
    else:
        for name, counts, parts in zip(names, matrix, shares, strict=True):
            tips = (
                f"{name} taken for {other}: {n:,} of {counts.sum():,}, {part:.1%}"
                for other, n, part in zip(names, counts, parts, strict=True)
            )
            rows.append((name, list(zip(counts.tolist(), parts.tolist(), tips, strict=True))))
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    worst = np.argsort(wrong, axis=None, kind="stable")[::-1][:MAX_PAIRS]
    pairs = [divmod(int(place), len(matrix)) for place in worst if wrong.flat[place]]
    return {
        "rows": rows,
        "map": picture,
        "classes": [classes[n] for n in order],
        "confused": [(names[true], names[other], int(wrong[true, other])) for true, other in pairs],
    }


def _typed(folder: Path) -> str:
    with suppress(OSError, yaml.YAMLError, UnicodeDecodeError):
        typed = yaml.safe_load((folder / "overrides.yaml").read_text())
        return "\n".join(map(str, typed)) if isinstance(typed, list) else str(typed or "")
    return ""


def _small(picture: Image.Image) -> Image.Image:
    return picture if max(picture.size) <= PICTURE_SIDE else drawing.enlarged(picture, PICTURE_SIDE)

"""Draw the report's charts and tables as SVG and HTML."""

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from experiments.monitoring import drawing

MAX_CELLS = 30  # classes whose confusion matrix is a table; of more it is a picture
MAX_ROWS = 12  # pairs of classes that are listed


def escaped(value: object) -> str:
    """Any value as text that is no markup; characters that no page may hold are replaced."""
    return html.escape(
        "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in str(value))
    )


def curve_charts(points: Mapping[str, Sequence[Sequence[float]]], summary: Mapping[str, Any]) -> str:
    """Return a chart for each metric, accuracy and loss first."""
    names = dict.fromkeys(name.partition("/")[2] for name in points)
    ordered = sorted(names, key=lambda name: (name != "accuracy", name != "loss"))
    charts = []
    for name in ordered:
        curves = {
            stage: [p for p in points.get(f"{stage}/{name}", []) if math.isfinite(p[1])] for stage in ("train", "val")
        }
        if any(curves.values()):
            charts.append(_chart(name, curves))
    return f'<h2>Curves</h2>\n<div class="pair">\n{"".join(charts)}</div>\n' if charts else ""


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``."""
    span = high - low or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / about))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= about)
    return [step * number for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _chart(name: str, curves: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """A line a stage over optimizer steps; points say their values when pointed at."""
    width, height, left, right, top, bottom = 560, 260, 52, 12, 10, 34
    every = [point for points in curves.values() for point in points]
    steps, values = [point[0] for point in every], [point[1] for point in every]
    first, last = min(0.0, *steps), max(1.0, *steps)
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - margin, high + margin

    def x(step: float) -> float:
        return round(left + (step - first) / (last - first) * (width - left - right), 1)

    def y(value: float) -> float:
        return round(height - bottom - (value - low) / (high - low) * (height - top - bottom), 1)

    marks = []
    for value in _ticks(low, high):
        marks.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(value)}" y2="{y(value)}"/>')
        marks.append(f'<text x="{left - 7}" y="{y(value) + 4}" text-anchor="end">{value:.4g}</text>')
    for step in _ticks(first, last):
        marks.append(f'<text x="{x(step)}" y="{height - bottom + 16}" text-anchor="middle">{step:,.0f}</text>')
    marks.append(f'<text x="{width - right}" y="{height - 3}" text-anchor="end">optimizer steps</text>')
    keys = ""
    for style, (stage, points) in zip(("first", "second"), curves.items(), strict=True):
        if not points:
            continue
        keys += f'<span class="{style}"><span class="key"></span></span>{stage}'
        line = " ".join(f"{x(step)},{y(value)}" for step, value in points)
        marks.append(f'<polyline class="{style}" points="{line}"/>')
        if len(points) <= 100:
            marks += [
                f'<circle class="{style}" cx="{x(step)}" cy="{y(value)}" r="3"><title>{stage}/{escaped(name)} '
                f"{value:.5g} at step {step:,.0f}</title></circle>"
                for step, value in points
            ]
    return (
        f"<figure><figcaption>{escaped(name)}{keys}</figcaption>"
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escaped(name)} over optimizer steps">'
        f"{''.join(marks)}</svg></figure>\n"
    )


def confusion_table(matrix: drawing.Matrix, names: Sequence[str]) -> str:
    """Return the confusion matrix as a table; of many classes, as a picture."""
    shares = drawing.rates_of(matrix)
    if len(matrix) > MAX_CELLS:
        picture = drawing.confusion_matrix(matrix, names, rates=True)
        return f'<figure><img class="map" alt="confusion matrix" src="{data_url(picture)}"></figure>\n'
    rows = []
    for number, name in enumerate(names):
        cells = []
        for other, count in enumerate(matrix[number]):
            share = shares[number, other]
            strong = ' class="strong"' if share > 0.55 else ""
            tip = f"{name} taken for {names[other]}: {count:,} of {matrix[number].sum():,}, {share:.1%}"
            color = f' style="background: rgb(var(--shade) / {share**0.6:.3f})"' if count else ""
            cells.append(f'<td{strong}{color} title="{escaped(tip)}">{f"{count:,}" if count else ""}</td>')
        rows.append(f'<tr><th title="{escaped(name)}">{escaped(name)}</th>{"".join(cells)}</tr>\n')
    head = "".join(f'<th title="{escaped(name)}">{escaped(name)}</th>' for name in names)
    table = f'<table class="matrix"><thead><tr><th></th>{head}</tr></thead>\n{"".join(rows)}</table>'
    return f'<figure class="scroll"><figcaption>rows: true, columns: predicted</figcaption>{table}</figure>\n'


def most_confused(matrix: drawing.Matrix, names: Sequence[str]) -> str:
    """The pairs that are confused most often."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(wrong, axis=None, kind="stable")[::-1][:MAX_ROWS]
    pairs = [divmod(int(place), len(matrix)) for place in order if wrong.flat[place]]
    if not pairs:
        return ""
    listed = ", ".join(
        f"{escaped(names[true])} → {escaped(names[other])} ({wrong[true, other]:,})" for true, other in pairs
    )
    return f'<p class="pale">Most often confused, true → predicted: {listed}</p>\n'


def precision_recall_bars(matrix: drawing.Matrix, names: Sequence[str]) -> str:
    """Return a table with each class's precision and recall as bars."""
    precision, recall = drawing.precision_recall_of(matrix)
    order, note = list(range(len(matrix))), ""
    if len(matrix) > MAX_CELLS:
        order = np.argsort(np.where(np.isnan(recall), 2, recall), kind="stable")[:MAX_CELLS].tolist()
        note = f"<figcaption>The {MAX_CELLS} classes of lowest recall, of {len(matrix):,}</figcaption>"

    def cell(value: float, style: str) -> str:
        if math.isnan(value):
            return '<td class="pale">–</td>'
        return f'<td class="{style}"><span class="bar" style="width: {60 * value:.1f}%"></span>{value:.3f}</td>'

    rows = "".join(
        f"<tr><th>{escaped(names[number])}</th>{cell(precision[number], 'first')}{cell(recall[number], 'second')}"
        f'<td class="pale">{matrix[number].sum():,}</td></tr>\n'
        for number in order
    )
    head = "<thead><tr><th>class</th><th>precision</th><th>recall</th><th>n</th></tr></thead>"
    return f'<figure class="scroll">{note}<table class="bars">{head}\n{rows}</table></figure>\n'


def data_url(picture: Image.Image) -> str:
    """Return a picture as an address that holds it."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"

"""A run as one page of HTML: everything inside, nothing fetched, no script, every text escaped."""

import base64
import html
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml
from PIL import Image

from experiments import drawing

MAX_CELLS = 30  # classes whose confusion matrix is a table; of more it is a picture
MAX_BESIDE = 12  # classes whose matrix leaves room beside it
MAX_ROWS = 12  # pairs of classes that are listed
PICTURE_SIDE = 128  # pixels, of an image in the page

# The policy lets a browser load nothing at all, whatever a class or a config value is called.
HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
"""

STYLE = """<style>
:root { color-scheme: light dark; --paper: #fbfbfa; --card: #ffffff; --ink: #1d2129; --pale: #69707d; --line: #e4e6ea;
  --first: #2f6fc4; --second: #d9691e; --good: #1d7f4e; --bad: #bb2d3b; --shade: 47 111 196; }
@media (prefers-color-scheme: dark) { :root { --paper: #14161a; --card: #1c1f25; --ink: #e6e8ec; --pale: #979fad;
  --line: #30343d; --first: #78aef5; --second: #f0955a; --good: #5cc48e; --bad: #f0808a; --shade: 96 158 240; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 0; font-size: 1.7rem; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .8rem; font-size: 1.1rem; }
p { margin: .3rem 0; }
.pale, figcaption, th { color: var(--pale); }
.status { display: inline-block; padding: .05rem .6rem; border: 1px solid; border-radius: 1rem; font-size: .8rem;
  vertical-align: .25em; color: var(--pale); }
.finished { color: var(--good); } .failed { color: var(--bad); }
.cards, .pair, .images { display: grid; gap: .8rem; }
.cards { display: flex; flex-wrap: wrap; margin-top: 1.4rem; } .cards .card { flex: 1 1 auto; }
.pair { grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); }
.images { grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); }
.card, figure { margin: 0; padding: .8rem 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; min-width: 0; }
.card b { display: block; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
figure svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--pale); font-size: 11px; } svg .grid { stroke: var(--line); }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
.first { --c: var(--first); } .second { --c: var(--second); }
svg .first, svg .second { stroke: var(--c); } svg circle { fill: var(--c); stroke: none; }
.key { display: inline-block; width: .8rem; height: .2rem; margin: 0 .35rem .2rem .8rem; background: var(--c); }
.images figure { padding: .5rem; text-align: center; font-size: .82rem; overflow-wrap: anywhere; }
.images img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; image-rendering: pixelated;
  margin-bottom: .3rem; background: #000; border-radius: .3rem; }
.wrong { color: var(--second); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .86rem; }
th { font-weight: 500; text-align: left; } td, th { padding: .18rem .55rem; }
.matrix td { min-width: 1.9rem; padding: .18rem .3rem; text-align: center; border: 1px solid var(--line); }
.matrix .strong { color: #fff; } @media (prefers-color-scheme: dark) { .matrix .strong { color: #0b0d10; } }
.matrix thead th { text-align: center; } .matrix th { white-space: nowrap; max-width: 9rem; overflow: hidden;
  text-overflow: ellipsis; }
.bars { width: 100%; } .bars td.first, .bars td.second { width: 45%; white-space: nowrap; }
.bar { display: inline-block; height: .5rem; margin-right: .4rem; border-radius: .2rem; background: var(--c); }
img.map { width: min(100%, 40rem); image-rendering: pixelated; }
details { margin: .5rem 0; } summary { cursor: pointer; }
pre { margin: .5rem 0; padding: .8rem 1rem; overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; font: 12.5px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
</style>
"""


class Mistake(Protocol):
    """What is shown of an image that was classified wrongly."""

    @property
    def picture(self) -> Image.Image:
        """The image."""

    @property
    def true(self) -> str:
        """Its class."""

    @property
    def predicted(self) -> str:
        """The class it was taken for."""

    @property
    def probability(self) -> float:
        """How probable the network found that."""


def render(
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    folder: Path,
    network: str,
    points: Mapping[str, Sequence[Sequence[float]]],
    stage: str,
    class_names: Sequence[str],
    matrix: drawing.Matrix | None,
    mistakes: Sequence[Mistake] | None,
) -> str:
    """The page.

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
    name = str(config.get("name", folder.name))
    split = {"test": "test split", "val": "last validation"}[stage]
    parts = [
        HEAD,
        f"<title>{_text(name)}</title>\n{STYLE}</head>\n<body>\n",
        _header(name, summary, folder),
        _curves(points, summary),
    ]
    if matrix is not None and matrix.sum():
        beside = "pair" if len(matrix) <= MAX_BESIDE else ""
        parts.append(f'<h2>Confusion, precision and recall, {split}</h2>\n<div class="{beside}">\n')
        parts.append(
            f"{_matrix(matrix, class_names)}{_bars(matrix, class_names)}</div>\n{_confused(matrix, class_names)}"
        )
    if mistakes is not None and matrix is not None and matrix.sum() and not mistakes:
        parts.append(f"<h2>Most confident mistakes, {split}</h2>\n<p>None: every image was classified rightly.</p>\n")
    elif mistakes:
        parts.append(f"<h2>Most confident mistakes, {split}</h2>\n{_mistakes(mistakes)}")
    parts.append(_configuration(config, folder, network))
    parts.append("</body>\n</html>\n")
    return "".join(parts)


def _text(value: object) -> str:
    """Any value as text that is no markup; characters that no page may hold are replaced."""
    return html.escape(
        "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in str(value))
    )


def _header(name: str, summary: Mapping[str, Any], folder: Path) -> str:
    status = str(summary.get("status", ""))
    found = []
    for label, key, form in (
        ("test accuracy", "test/accuracy", "{:.2%}"),
        ("best val accuracy", "val/accuracy", "{:.2%}"),
        ("test loss", "test/loss", "{:.4f}"),
        ("val loss there", "val/loss", "{:.4f}"),
        ("parameters", "parameters", "{:,}"),
        ("epochs", "epochs", "{:,}"),
        ("steps", "steps", "{:,}"),
        ("training seconds", "train_seconds", "{:,.1f}"),
    ):
        if isinstance(value := summary.get(key), (int, float)):
            found.append(f'<div class="card"><b>{form.format(value)}</b><span class="pale">{label}</span></div>\n')
    for key, value in summary.items():  # further metrics
        if key.startswith("test/") and key not in ("test/accuracy", "test/loss") and isinstance(value, (int, float)):
            found.append(f'<div class="card"><b>{value:.4f}</b><span class="pale">{_text(key)}</span></div>\n')
    environment = _environment(folder)
    facts = [
        folder.name,
        environment.get("started"),
        f"seed {summary['seed']}" if "seed" in summary else None,
        f"device {summary['device']}" if "device" in summary else None,
    ]
    error = f"<pre>{_text(summary['error'])}</pre>\n" if summary.get("error") else ""
    return (
        f'<h1>{_text(name)} <span class="status {status if status in ("finished", "failed") else ""}">'
        f"{_text(status)}</span></h1>\n"
        f'<p class="pale">{_text(" · ".join(str(fact) for fact in facts if fact))}</p>\n{error}'
        f'<div class="cards">\n{"".join(found)}</div>\n'
    )


def _curves(points: Mapping[str, Sequence[Sequence[float]]], summary: Mapping[str, Any]) -> str:
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
                f'<circle class="{style}" cx="{x(step)}" cy="{y(value)}" r="3"><title>{stage}/{_text(name)} '
                f"{value:.5g} at step {step:,.0f}</title></circle>"
                for step, value in points
            ]
    return (
        f"<figure><figcaption>{_text(name)}{keys}</figcaption>"
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{_text(name)} over optimizer steps">'
        f"{''.join(marks)}</svg></figure>\n"
    )


def _matrix(matrix: drawing.Matrix, names: Sequence[str]) -> str:
    shares = drawing.rates_of(matrix)
    if len(matrix) > MAX_CELLS:
        picture = drawing.confusion_matrix(matrix, names, rates=True)
        return f'<figure><img class="map" alt="confusion matrix" src="{_data(picture)}"></figure>\n'
    rows = []
    for number, name in enumerate(names):
        cells = []
        for other, count in enumerate(matrix[number]):
            share = shares[number, other]
            strong = ' class="strong"' if share > 0.55 else ""
            tip = f"{name} taken for {names[other]}: {count:,} of {matrix[number].sum():,}, {share:.1%}"
            color = f' style="background: rgb(var(--shade) / {share**0.6:.3f})"' if count else ""
            cells.append(f'<td{strong}{color} title="{_text(tip)}">{f"{count:,}" if count else ""}</td>')
        rows.append(f'<tr><th title="{_text(name)}">{_text(name)}</th>{"".join(cells)}</tr>\n')
    head = "".join(f'<th title="{_text(name)}">{_text(name)}</th>' for name in names)
    table = f'<table class="matrix"><thead><tr><th></th>{head}</tr></thead>\n{"".join(rows)}</table>'
    return f'<figure class="scroll"><figcaption>rows: true, columns: predicted</figcaption>{table}</figure>\n'


def _confused(matrix: drawing.Matrix, names: Sequence[str]) -> str:
    """The pairs that are confused most often."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(wrong, axis=None, kind="stable")[::-1][:MAX_ROWS]
    pairs = [divmod(int(place), len(matrix)) for place in order if wrong.flat[place]]
    if not pairs:
        return ""
    listed = ", ".join(
        f"{_text(names[true])} → {_text(names[other])} ({wrong[true, other]:,})" for true, other in pairs
    )
    return f'<p class="pale">Most often confused, true → predicted: {listed}</p>\n'


def _bars(matrix: drawing.Matrix, names: Sequence[str]) -> str:
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
        f"<tr><th>{_text(names[number])}</th>{cell(precision[number], 'first')}{cell(recall[number], 'second')}"
        f'<td class="pale">{matrix[number].sum():,}</td></tr>\n'
        for number in order
    )
    head = "<thead><tr><th>class</th><th>precision</th><th>recall</th><th>n</th></tr></thead>"
    return f'<figure class="scroll">{note}<table class="bars">{head}\n{rows}</table></figure>\n'


def _mistakes(mistakes: Iterable[Mistake]) -> str:
    figures = "".join(
        f'<figure><img alt="{_text(each.true)}" src="{_data(_small(each.picture))}"><bdi>{_text(each.true)}</bdi><br>'
        f'<span class="wrong">→ <bdi>{_text(each.predicted)}</bdi> {each.probability:.1%}</span></figure>\n'
        for each in mistakes
    )
    return f'<p class="pale">The true class, and what it was taken for.</p>\n<div class="images">\n{figures}</div>\n'


def _configuration(config: Mapping[str, Any], folder: Path, network: str) -> str:
    environment = _environment(folder)
    typed: Any = None
    with suppress(OSError, yaml.YAMLError, UnicodeDecodeError):
        typed = yaml.safe_load((folder / "overrides.yaml").read_text())
    parts = ["<h2>Configuration</h2>\n"]
    if typed:
        parts.append(f"<pre>{_text(chr(10).join(map(str, typed)))}</pre>\n")
    sections = {
        "everything, resolved": yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True),
        "the network": network,
    }
    if environment:
        sections["machine, versions and command"] = yaml.safe_dump(environment, sort_keys=False, allow_unicode=True)
    for title, text in sections.items():
        parts.append(f"<details><summary>{title}</summary><pre>{_text(text)}</pre></details>\n")
    return "".join(parts)


def _environment(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        content = json.loads((folder / "environment.json").read_text())
        return content if isinstance(content, dict) else {}
    return {}


def _small(picture: Image.Image) -> Image.Image:
    if max(picture.size) <= PICTURE_SIDE:
        return picture
    return drawing.enlarged(picture, PICTURE_SIDE)


def _data(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"

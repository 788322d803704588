"""A run as one page of HTML: everything inside, nothing fetched, no script, every text escaped."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from experiments.monitoring import drawing
from experiments.monitoring.report_charts import (
    confusion_table,
    curve_charts,
    data_url,
    escaped,
    most_confused,
    precision_recall_bars,
)
from experiments.monitoring.worst_predictions import WrongPrediction

MAX_BESIDE = 12  # classes whose matrix leaves room beside it
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
        f"<title>{escaped(name)}</title>\n{STYLE}</head>\n<body>\n",
        _header(name, summary, folder),
        curve_charts(points, summary),
    ]
    if matrix is not None and matrix.sum():
        beside = "pair" if len(matrix) <= MAX_BESIDE else ""
        parts.append(f'<h2>Confusion, precision and recall, {split}</h2>\n<div class="{beside}">\n')
        parts += [confusion_table(matrix, class_names), precision_recall_bars(matrix, class_names), "</div>\n"]
        parts.append(most_confused(matrix, class_names))
    if mistakes is not None and matrix is not None and matrix.sum() and not mistakes:
        parts.append(f"<h2>Most confident mistakes, {split}</h2>\n<p>None: every image was classified rightly.</p>\n")
    elif mistakes:
        parts.append(f"<h2>Most confident mistakes, {split}</h2>\n{_mistakes(mistakes)}")
    parts.append(_configuration(config, folder, network))
    parts.append("</body>\n</html>\n")
    return "".join(parts)


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
            found.append(f'<div class="card"><b>{value:.4f}</b><span class="pale">{escaped(key)}</span></div>\n')
    environment = _environment(folder)
    facts = [
        folder.name,
        environment.get("started"),
        f"seed {summary['seed']}" if "seed" in summary else None,
        f"device {summary['device']}" if "device" in summary else None,
    ]
    error = f"<pre>{escaped(summary['error'])}</pre>\n" if summary.get("error") else ""
    return (
        f'<h1>{escaped(name)} <span class="status {status if status in ("finished", "failed") else ""}">'
        f"{escaped(status)}</span></h1>\n"
        f'<p class="pale">{escaped(" · ".join(str(fact) for fact in facts if fact))}</p>\n{error}'
        f'<div class="cards">\n{"".join(found)}</div>\n'
    )


def _mistakes(mistakes: Iterable[WrongPrediction]) -> str:
    figures = "".join(
        f'<figure><img alt="{escaped(each.true)}" src="{data_url(_small(each.picture))}">'
        f"<bdi>{escaped(each.true)}</bdi><br>"
        f'<span class="wrong">→ <bdi>{escaped(each.predicted)}</bdi> {each.probability:.1%}</span></figure>\n'
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
        parts.append(f"<pre>{escaped(chr(10).join(map(str, typed)))}</pre>\n")
    sections = {
        "everything, resolved": yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True),
        "the network": network,
    }
    if environment:
        sections["machine, versions and command"] = yaml.safe_dump(environment, sort_keys=False, allow_unicode=True)
    for title, text in sections.items():
        parts.append(f"<details><summary>{title}</summary><pre>{escaped(text)}</pre></details>\n")
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

"""Write a table for a paper."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.sweeps.summary.runs import RESULTS
from experiments.sweeps.summary.tables import shown

SPLITS = {"val": "the validation split", "test": "the test split", "train": "the train split"}
ESCAPED = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
})  # fmt: skip


def latex(table: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """Return rows, the best first, as a table of booktabs: settings, then metrics, the first row in bold.

    A mean has the decimals that show two digits of its deviation.
    """
    counted = [name for name in ("seeds", "folds") if name in table[0]]
    reported = [metric for metric in metrics if any(metric in row for row in table)]
    hidden = {"run", "status", *RESULTS, *counted, *metrics}
    every = dict.fromkeys(name for row in table for name in row)
    settings = [name for name in every if name not in hidden and not name.endswith(" ±")]
    names = [*settings, *reported]
    lines = []
    for place, row in enumerate(table):
        cells = [_text(row.get(name)) for name in settings]
        cells += [_number(row.get(name), row.get(f"{name} ±")) for name in reported]
        lines.append(" & ".join(rf"\textbf{{\boldmath {cell}}}" if place == 0 else cell for cell in cells) + r" \\")
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\begin{{tabular}}{{{'l' * len(settings)}{'r' * len(reported)}}}",
            r"\toprule",
            " & ".join(_text(name) for name in names) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{_caption(table, reported, counted)}}}",
            r"\end{table}",
            "",
        ]
    )


def _caption(table: Sequence[Mapping[str, Any]], metrics: Sequence[str], counted: Sequence[str]) -> str:
    splits = dict.fromkeys(SPLITS.get(metric.partition("/")[0], metric) for metric in metrics)
    where = " and ".join(_text(split) for split in splits)
    if not counted:
        return f"Results on {where}, one run a row."
    ranges = []
    for name in counted:
        counts = sorted({row[name] for row in table})
        ranges.append(f"{'--'.join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))} {name}")
    over = " of the mean over folds, for" if len(counted) == 2 else " over"
    return f"Mean $\\pm$ sample standard deviation{over} {' and '.join(ranges)} (n), on {where}."


def _text(value: Any) -> str:
    return "--" if value is None else shown(value).translate(ESCAPED)


def _number(value: Any, deviation: Any) -> str:
    if not isinstance(value, (int, float)):
        return "--"
    if not isinstance(deviation, float) or not math.isfinite(deviation):
        return f"{value:.4f}"
    decimals = 4 if deviation == 0 else min(max(1 - math.floor(math.log10(deviation)), 0), 6)
    return rf"${value:.{decimals}f} \pm {deviation:.{decimals}f}$"

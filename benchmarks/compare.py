"""Two or more ways of doing the same, in turn, in one process: medians and ratios."""

import json
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path


def compare(
    title: str, sides: Mapping[str, Callable[[], float]], repetitions: int = 5
) -> dict[str, dict[str, float]]:
    """Call every side in turn, ``repetitions`` times after one warm-up; each returns the seconds that count.

    Prints a row a side: median, fastest and slowest seconds, and the median of its pairwise ratios to the first side.
    With ``json=<path>`` on the command line, the rows are written there too.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repetition in range(repetitions + 1):
        for name, side in sides.items():
            took = side()
            if repetition:
                seconds[name].append(took)
        print(f"\r{title}: {repetition}/{repetitions}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    first = seconds[next(iter(seconds))]
    rows = {
        name: {
            "median": statistics.median(values),
            "min": min(values),
            "max": max(values),
            "ratio": statistics.median(value / base for value, base in zip(values, first, strict=True)),
        }
        for name, values in seconds.items()
    }
    print(f"{title}\n{'':42}{'median':>9}{'min':>9}{'max':>9}{'ratio':>8}")
    for name, row in rows.items():
        print(f"{name:42}{row['median']:8.3f}s{row['min']:8.3f}s{row['max']:8.3f}s{row['ratio']:8.3f}")
    for argument in sys.argv[1:]:
        if argument.startswith("json="):
            path = Path(argument.removeprefix("json="))
            known = json.loads(path.read_text()) if path.exists() else {}
            path.write_text(json.dumps({**known, title: rows}, indent=2) + "\n")
    return rows

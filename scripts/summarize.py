"""Show many runs side by side: ranked tables, seeds, pictures, the command that repeats the best."""

from dataclasses import dataclass

from experiments.config.command_line import run_script
from experiments.config.options import option, read


@dataclass
class Summarize:
    """Summarize runs: python scripts/summarize.py runs=runs/multirun/<id> output=summary.

    Grids, sweeps and single runs at any depth, finished or not; what differs between them becomes a column, and runs
    that differ in nothing but the seed are averaged. A sweep's study adds how much each parameter mattered.
    """

    runs: str = option("a folder with run directories")
    metric: str | None = option("what to rank by, if not the sweep's metric or what its runs monitor", None)
    output: str | None = option("a folder for summary.csv, summary.md, history.png, slice.png, importance.png", None)


def main() -> None:
    options = read(Summarize)
    from experiments.sweeps.summary.summarize import summarize

    summarize(options.runs, options.metric, options.output)


if __name__ == "__main__":
    run_script(main)

"""Show many runs side by side: ranked tables, seeds, pictures, the command that repeats the best."""

from dataclasses import dataclass

from experiments.config.command_line import run_script
from experiments.config.options import option, read


@dataclass
class Summarize:
    """Summarize runs: python scripts/summarize.py runs=runs/multirun/<id> output=summary.

    Grids, sweeps and single runs at any depth, finished or not; what differs between them becomes a column. Runs that
    differ in nothing but seed or fold are averaged. A sweep's study adds how much each parameter mattered.
    Runs are found again by conditions: where="tags=baseline" where="optimizer.lr>1e-3" where="status=finished"
    """

    runs: str = option("a folder with run directories")
    metric: list[str] = option("results to show, the first to rank by, if not what runs monitor: [val/f1,...]", [])
    output: str | None = option("a folder for summary.csv, summary.md, summary.tex and pictures", None)
    where: list[str] = option("a condition that runs must meet, as above; may be given several times", [])
    columns: list[str] = option("what to show of each run, if not what differs: [model,test/accuracy,tags]", [])
    sort: str | None = option("a key to order runs by, if not the metric; -<key> for the greatest first", None)
    compare: list[str] = option(
        "two conditions to compare over shared seeds or folds: [optimizer=adam,optimizer=sgd]", []
    )


def main() -> None:
    options = read(Summarize)
    from experiments.sweeps.summary.summarize import summarize

    summarize(
        options.runs,
        options.metric,
        options.output,
        options.where,
        options.columns,
        options.sort,
        options.compare,
    )


if __name__ == "__main__":
    run_script(main)

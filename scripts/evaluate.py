"""Evaluate a run's best network on a test split."""

import sys
from dataclasses import dataclass
from pathlib import Path

from experiments.config.command_line import run_script, without_garbage_collection
from experiments.config.installation import CHECKOUT
from experiments.config.options import gathered, option, read


@dataclass
class Evaluate:
    """Evaluate a run's best checkpoint: python scripts/evaluate.py run=<run directory>.

    On another data set: python scripts/evaluate.py run=<run directory> data=image_folder data.root=<folder>
    An ensemble, by the mean of its networks' probabilities: python scripts/evaluate.py run=[<a>,<b>,<c>]
    """

    run: list[str] = option("the run directory, several: [<a>,<b>,<c>], or a multirun's: its finished runs")
    checkpoint: str | None = option("another checkpoint of it than the best", None)
    data: str | None = option("another data set than the run's: a choice of conf/data", None)
    data_keys: list[str] = gathered("data.", "the data set's own keys, such as data.root=<where its files lie now>")
    split: str = option("test, or val to choose an ensemble by", "test")
    output: str | None = option("a folder for CSV files: each class, the confusion matrix, each image", None)
    accelerator: str = option("auto, cpu, gpu, mps", "auto")
    trust: list[str] = option("packages of your own that the run's config may name", [])


def main() -> None:
    options = read(Evaluate)
    with without_garbage_collection():
        from experiments.inference.evaluate import evaluate
        from experiments.runs.environment import code_change_warning
        from experiments.runs.run_directory import expand_multirun

    results = evaluate(
        options.run,
        options.checkpoint,
        options.data,
        options.data_keys,
        options.accelerator,
        options.trust,
        options.split,
        options.output,
    )
    for run in (found for named in options.run for found in expand_multirun(Path(named))):
        if note := code_change_warning(run, CHECKOUT or Path.cwd()):
            print(note, file=sys.stderr)
    for name, value in results.items():
        print(f"{name} {value:.6g}")
    if options.output:
        print(f"tables: {options.output}", file=sys.stderr)


if __name__ == "__main__":
    run_script(main)

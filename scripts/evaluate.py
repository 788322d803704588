"""Evaluate a run's best checkpoint on the test split, from its directory alone."""

from dataclasses import dataclass

from experiments.errors import UserError, stop
from experiments.options import option, read


@dataclass
class Evaluate:
    """Evaluate a run's best checkpoint: python scripts/evaluate.py run=<run directory>."""

    run: str = option("the run directory")
    checkpoint: str | None = option("another checkpoint of it than the best", None)
    root: str | None = option("where the data set's files lie now, if not where they lay then", None)
    accelerator: str = option("auto, cpu, gpu, mps", "auto")
    trust: list[str] = option("packages of your own that the run's config may name", [])


def main() -> None:
    options = read(Evaluate)
    from experiments.evaluate import evaluate

    results = evaluate(options.run, options.checkpoint, options.root, options.accelerator, options.trust)
    for name, value in results.items():
        print(f"{name} {value:.6g}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        stop(error)

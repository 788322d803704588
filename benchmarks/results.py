"""The README's table of results: python benchmarks/results.py data_root=<folder that holds MNIST/raw>, and --help.

Trains every recipe of ``RECIPES`` with seeds 0 to 4, each in a process with one thread, as many beside each other as
``jobs`` says, and writes what came of it: ``benchmarks/results.json`` (every seed), the line ``# Measured:`` in the
recipe's header, and its row in the README. Seeds that ``results.json`` has of a recipe as it stands are skipped; what
was killed goes on from its checkpoint. The test split is seen once a run, by its best checkpoint.
"""

import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.progress import track

from experiments.checkpoints import write_atomically
from experiments.errors import UserError, stop
from experiments.options import option, read

ROOT = Path(__file__).resolve().parents[1]
RECIPES = {
    "mnist_fast": "a light CNN, 3 epochs",
    "mnist_mlp": "the tutorial's MLP",
    "mnist_cnn": "the tutorial's CNN",
    "mnist_resnet_tutorial": "the tutorial's residual net",
    "mnist_resnet": "a wider residual net",
    "mnist_rnn": "LSTM over rows and columns",
    "mnist_attention": "vision transformer",
    "digits_mlp": "the tutorial's MLP",
    "digits_cnn": "the tutorial's CNN",
    "digits_resnet": "the tutorial's residual net",
    "digits_rnn": "LSTM over rows",
    "digits_attention": "vision transformer",
}
ENSEMBLES = {"mnist_ensemble": ("mnist_resnet", "mnist_cnn")}  # one of each a seed
TABLE = re.compile(r"(?<=<!-- results -->\n).*?(?=<!-- end of results -->)", re.DOTALL)
MEASURED = "# Measured: "


@dataclass
class Results:
    """Measure the recipes and write the table: python benchmarks/results.py data_root=<folder>."""

    data_root: str = option("the folder that holds MNIST/raw", "data")
    recipes: list[str] = option("which ones, such as [mnist_mlp]; without it, all", [])
    seeds: int = option("seeds 0 to seeds - 1", 5)
    jobs: int = option("runs beside each other, with one thread each", 2)
    runs: str = option("where run directories go", "runs/results")


def recipe_of(name: str) -> dict[str, Any]:
    """What a recipe says, or who is in an ensemble."""
    if name in ENSEMBLES:
        return {"members": {member: recipe_of(member) for member in ENSEMBLES[name]}}
    return yaml.safe_load((ROOT / "conf" / "experiment" / f"{name}.yaml").read_text())


class Table:
    """What was measured, and where it is written."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self.path = root / "benchmarks" / "results.json"
        self.known: dict[str, Any] = {}
        self.read()

    def read(self) -> None:
        """Take up what stands in the file: others may write there, too."""
        if self.path.exists():
            self.known = json.loads(self.path.read_text())

    def seeds(self, name: str) -> dict[str, Any]:
        """The results of a recipe as it stands now, by seed."""
        known = self.known.get(name, {})
        return known["seeds"] if known.get("recipe") == recipe_of(name) else {}

    def add(self, name: str, seed: int, result: Mapping[str, Any], circumstances: Mapping[str, Any]) -> None:
        """Keep one seed's result."""
        self.read()
        seeds = {**self.seeds(name), str(seed): dict(result)}
        self.known[name] = {"recipe": recipe_of(name), **circumstances, "seeds": dict(sorted(seeds.items()))}
        order = [*RECIPES, *ENSEMBLES]
        self.known = dict(sorted(self.known.items(), key=lambda item: order.index(item[0])))
        write_atomically(self.path, (json.dumps(self.known, indent=1) + "\n").encode())

    def write(self) -> None:
        """Bring the recipes' headers and the README up to ``results.json``."""
        for name, known in self.known.items():
            header = self.root / "conf" / "experiment" / f"{name}.yaml"
            if header.exists():
                lines = [line for line in header.read_text().splitlines() if not line.startswith(MEASURED)]
                lines.insert(2, f"{MEASURED}{in_words(known)}")
                write_atomically(header, ("\n".join(lines) + "\n").encode())
        readme = self.root / "README.md"
        rows = "".join(row(name, known) for name, known in self.known.items())
        head = (
            "| `experiment=` | network | parameters | test accuracy | best seed | training |\n" + "|---" * 6 + "|\n"
        )
        write_atomically(readme, TABLE.sub(lambda _: head + rows, readme.read_text()).encode())


def percent(value: float) -> str:
    """A share in percent, to a hundredth."""
    return f"{100 * value:.2f}"


def reached(known: Mapping[str, Any]) -> tuple[str, str]:
    """Mean and standard deviation over seeds, and the best seed, in percent."""
    values = [seed["test/accuracy"] for seed in known["seeds"].values()]
    deviation = f" ± {percent(statistics.stdev(values))}" if len(values) > 1 else ""
    return f"{percent(statistics.fmean(values))}{deviation} %", f"{percent(max(values))} %"


def duration(known: Mapping[str, Any]) -> str:
    """The mean time of one training."""
    seconds = statistics.fmean(seed["train_seconds"] for seed in known["seeds"].values())
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def in_words(known: Mapping[str, Any]) -> str:
    """What a recipe's header says of its result."""
    mean, best = reached(known)
    return (
        f"{mean} on the test images, best {best} (seeds {', '.join(known['seeds'])}); "
        f"{duration(known)} of training on {known['device']}"
    )


def row(name: str, known: Mapping[str, Any]) -> str:
    """A row of the README's table."""
    mean, best = reached(known)
    what = RECIPES.get(name) or "one of each: " + ", ".join(f"`{member}`" for member in ENSEMBLES[name])
    return f"| `{name}` | {what} | {known['parameters']:,} | {mean} | {best} | {duration(known)} |\n"


def folder_of(name: str, seed: int, options: Results) -> Path:
    """Where a run goes: a recipe that was changed does not meet its former runs."""
    fingerprint = hashlib.sha256(json.dumps(recipe_of(name), sort_keys=True).encode()).hexdigest()[:8]
    return Path(options.runs) / name / fingerprint / str(seed)


def python(script: str, *arguments: str) -> str:
    """What a script prints.

    Raises:
        UserError: if it fails.
    """
    process = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    if process.returncode:
        raise UserError(f"{script} {' '.join(arguments)} ended with {process.returncode}:\n{process.stderr[-2000:]}")
    return process.stdout


def train(name: str, seed: int, options: Results) -> tuple[dict[str, Any], dict[str, Any]]:
    """One run: its result, and the circumstances that all seeds share."""
    folder = folder_of(name, seed, options)
    summary = folder / "summary.json"
    if not summary.exists() or json.loads(summary.read_text())["status"] != "finished":
        new = [f"experiment={name}", f"seed={seed}", f"data_root={options.data_root}", f"hydra.run.dir={folder}"]
        python("train.py", *([f"resume={folder}"] if list(folder.glob("checkpoints/*.ckpt")) else new))
    result, environment = json.loads(summary.read_text()), json.loads((folder / "environment.json").read_text())
    kept = ("test/accuracy", "val/accuracy", "best_epoch", "epochs", "steps", "train_seconds")
    device = "one CPU core" if result["device"] == "cpu" else result["device"]
    return {key: result[key] for key in kept}, {
        "parameters": result["parameters"],
        "device": device,
        "versions": {"python": environment["python"], **environment["versions"]},
    }


def average(name: str, seed: int, table: Table, options: Results) -> tuple[dict[str, Any], dict[str, Any]]:
    """An ensemble of one run of each member."""
    members = [table.known[member] for member in ENSEMBLES[name]]
    folders = ", ".join(str(folder_of(member, seed, options)) for member in ENSEMBLES[name])
    accuracy = {
        split: float(re.search(rf"^{split}/accuracy (\S+)$", printed, re.MULTILINE)[1])
        for split in ("val", "test")
        for printed in [python("evaluate.py", f"run=[{folders}]", f"split={split}", "accelerator=cpu")]
    }
    seconds = sum(member["seeds"][str(seed)]["train_seconds"] for member in members)
    return {**{f"{split}/accuracy": value for split, value in accuracy.items()}, "train_seconds": seconds}, {
        "parameters": sum(member["parameters"] for member in members),
        **{key: members[0][key] for key in ("device", "versions")},
    }


def measure(table: Table, names: Iterable[str], options: Results) -> Sequence[str]:
    """Run what is missing; a message for each run that failed."""
    failed = []
    for name in names:
        missing = [seed for seed in range(options.seeds) if str(seed) not in table.seeds(name)]
        if not missing:
            continue
        with ThreadPoolExecutor(1 if name in ENSEMBLES else options.jobs) as pool:
            work = {
                pool.submit(average, name, seed, table, options)
                if name in ENSEMBLES
                else pool.submit(train, name, seed, options): seed
                for seed in missing
            }
            for done in track(as_completed(work), name, total=len(work)):
                try:
                    result, circumstances = done.result()
                    table.add(name, work[done], result, circumstances)
                    print(f"{name}, seed {work[done]}: {percent(result['test/accuracy'])} %", flush=True)
                except (UserError, KeyError) as error:
                    failed.append(f"{name}, seed {work[done]}: {error}")
        if table.seeds(name):
            table.write()
            print(f"{name}: {in_words(table.known[name])}", flush=True)
    return failed


def main() -> None:
    options = read(Results)
    if unknown := [name for name in options.recipes if name not in {**RECIPES, **ENSEMBLES}]:
        raise UserError(f"recipes={unknown[0]} is not one of {', '.join([*RECIPES, *ENSEMBLES])}")
    if failed := measure(Table(), options.recipes or [*RECIPES, *ENSEMBLES], options):
        raise UserError("\n".join(failed))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        stop(error)

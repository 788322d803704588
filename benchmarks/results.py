"""The table of docs/results.md: python benchmarks/results.py data_root=<folder that holds MNIST/raw>, and --help.

Trains every recipe of ``RECIPES`` with seeds 0 to 4, each in a process with one thread, as many beside each other as
``jobs`` says, and writes what came of it: ``benchmarks/results.json`` (every seed), the line ``# Measured:`` in the
recipe's header, and its row in docs/results.md. Seeds that ``results.json`` has of a recipe as it stands are skipped;
what was killed goes on from its checkpoint. The test split is seen once a run, by its best checkpoint. With
``again=true`` nothing is skipped and nothing written: it says whether every seed gives the same number, bit for bit.
"""

import hashlib
import inspect
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from rich.progress import track

from experiments.config.compose import compose
from experiments.config.options import option, read
from experiments.errors import UserError, stop
from experiments.runs.files import write_atomically
from experiments.runs.run_directory import read_summary

ROOT = Path(__file__).resolve().parents[1]
RECIPES = {
    "mnist_mlp": "the tutorial's MLP",
    "mnist_cnn": "the tutorial's CNN",
    "mnist_resnet_tutorial": "the tutorial's residual net",
    "mnist_resnet": "a wider residual net",
    "mnist_rnn": "LSTM over rows",
    "mnist_attention": "vision transformer",
    "mnist_fast": "a light CNN, 3 epochs",
    "digits_mlp": "the tutorial's MLP",
    "digits_cnn": "the tutorial's CNN",
    "digits_resnet": "the tutorial's residual net",
    "digits_rnn": "LSTM over rows",
    "digits_attention": "vision transformer",
}
ENSEMBLES = {"mnist_ensemble": ("mnist_resnet", "mnist_cnn", "mnist_rnn")}  # one of each a seed
ORDER = [*RECIPES, *ENSEMBLES]
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
    again: bool = option("train again what is done, write nothing, and compare", False)


def class_names(content: Any) -> Any:
    """The same config with classes by their name alone: where a class stands changes nothing that is learned."""
    if isinstance(content, dict):
        return {
            key: value.rpartition(".")[2] if key == "_target_" else class_names(value)
            for key, value in content.items()
        }
    return [class_names(part) for part in content] if isinstance(content, list) else content


def recipe_of(name: str) -> str:
    """A fingerprint of all that a recipe trains with, or of who is in an ensemble."""
    if name in ENSEMBLES:
        content: Any = {member: recipe_of(member) for member in ENSEMBLES[name]}
    else:
        config = compose(f"experiment={name}")
        for part, key in (("data", "root"), ("data", "seed"), ("trainer", "default_root_dir")):
            config[part].pop(key, None)
        for key in ("mean", "std"):
            if config["data"][key] is None:
                del config["data"][key]
        import lightning

        defaults = inspect.signature(lightning.Trainer).parameters  # of a Trainer's keys, those that say something
        config["trainer"] = {
            key: value
            for key, value in config["trainer"].items()
            if key == "_target_" or value != defaults[key].default
        }
        if "max_lr" in (config["scheduler"] or {}):
            config["scheduler"]["max_lr"] = config["scheduler"]["max_lr"] or config["optimizer"]["lr"]
        parts = ("model", "data", "loss", "optimizer", "scheduler", "trainer")
        content = {part: config[part] for part in (*parts, "compile", "channels_last", "matmul_precision")}
        content["averaged"] = config["callbacks"].get("ema")
        if config["param_groups"]:
            content["param_groups"] = config["param_groups"]
        content = class_names(content)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


class Table:
    """What was measured, and where it is written."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self.path = root / "benchmarks" / "results.json"
        self.lock = FileLock(root / "benchmarks" / ".results.lock")
        self.recipes = {name: recipe_of(name) for name in ORDER}

    def stored(self) -> dict[str, Any]:
        """All that was measured, also of recipes that were changed since.

        Raises:
            UserError: if the file is damaged.
        """
        try:
            return dict(json.loads(self.path.read_text(encoding="utf-8"))) if self.path.exists() else {}
        except ValueError as error:
            raise UserError(f"{self.path} is damaged: {error}. Take it back from git, or remove it") from error

    def read(self) -> dict[str, Any]:
        """All that was measured of recipes as they stand now."""
        known = self.stored()
        return {name: known[name] for name in ORDER if known.get(name, {}).get("recipe") == self.recipes[name]}

    def seeds(self, name: str) -> dict[str, Any]:
        """The results of a recipe by seed."""
        return self.read().get(name, {}).get("seeds", {})

    def add(self, name: str, seed: int, result: Mapping[str, Any], circumstances: Mapping[str, Any]) -> None:
        """Keep one seed's result, beside those that other processes have kept."""
        with self.lock:
            known, seeds = self.stored(), {**self.seeds(name), str(seed): dict(result)}
            known[name] = {"recipe": self.recipes[name], **circumstances, "seeds": dict(sorted(seeds.items()))}
            ordered = {name: known[name] for name in ORDER if name in known}
            write_atomically(self.path, (json.dumps(ordered, indent=1) + "\n").encode())

    def write(self, least: int) -> None:
        """Bring headers and docs/results.md up to what was measured with at least so many seeds."""
        with self.lock:
            done = {name: known for name, known in self.read().items() if len(known["seeds"]) >= least}
            for name in RECIPES:
                header = self.root / "conf" / "experiment" / f"{name}.yaml"
                lines = header.read_text(encoding="utf-8").splitlines()
                kept = [line for line in lines if not line.startswith(MEASURED)]
                if name in done:
                    kept.insert(2, f"{MEASURED}{in_words(done[name])}")
                if kept != lines:
                    write_atomically(header, ("\n".join(kept) + "\n").encode())
            page = self.root / "docs" / "results.md"
            head = "| recipe | network | parameters | test accuracy | best seed | training |\n" + "|---" * 6 + "|\n"
            table = head + "".join(row(name, known) for name, known in done.items())
            text = page.read_text(encoding="utf-8")
            write_atomically(page, TABLE.sub(lambda _: table, text).encode())


def percent(value: float) -> str:
    """A share in percent, to a hundredth."""
    return f"{100 * value:.2f}"


def collect_results(known: Mapping[str, Any]) -> tuple[str, str]:
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
    mean, best = collect_results(known)
    return (
        f"{mean} on the test images, best {best} (seeds {', '.join(known['seeds'])}); "
        f"{duration(known)} of training on {known['device']}"
    )


def row(name: str, known: Mapping[str, Any]) -> str:
    """A row of the table."""
    mean, best = collect_results(known)
    what = RECIPES.get(name) or "one of each: " + ", ".join(f"`{member}`" for member in ENSEMBLES[name])
    return f"| `{name}` | {what} | {known['parameters']:,} | {mean} | {best} | {duration(known)} |\n"


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


def folder_of(name: str, seed: int, recipes: Mapping[str, str], options: Results) -> Path:
    """Where a run goes: a recipe that was changed does not meet its former runs."""
    return Path(options.runs) / ("again" if options.again else "") / name / recipes[name] / str(seed)


def train(
    name: str, seed: int, recipes: Mapping[str, str], options: Results
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One run, if it is not done: its result, and the circumstances that all seeds share."""
    folder = folder_of(name, seed, recipes, options)
    summary = folder / "summary.json"
    if options.again and summary.exists():
        shutil.rmtree(folder)
    if (read_summary(folder) or {}).get("status") != "finished":
        new = [f"experiment={name}", f"seed={seed}", f"data_root={options.data_root}", f"hydra.run.dir={folder}"]
        python("train.py", *([f"resume={folder}"] if (folder / "config.yaml").exists() else new))
    result, environment = read_summary(folder) or {}, json.loads((folder / "environment.json").read_text())
    kept = ("test/accuracy", "val/accuracy", "best_epoch", "epochs", "steps", "train_seconds")
    return {key: result[key] for key in kept}, {
        "parameters": result["parameters"],
        "device": "one CPU core" if result["device"] == "cpu" else result["device"],
        "versions": {"python": environment["python"], **environment["versions"]},
    }


def average(
    name: str, seed: int, recipes: Mapping[str, str], options: Results
) -> tuple[dict[str, Any], dict[str, Any]]:
    """An ensemble of one run of each member; those that are missing are trained."""
    members = [(member, seed, recipes, options) for member in ENSEMBLES[name]]
    results, circumstances = zip(*(train(*member) for member in members), strict=True)
    runs = json.dumps([str(folder_of(*member)) for member in members])
    accuracies = {}
    for split in ("val", "test"):
        where = f"data.root={options.data_root}"
        printed = python("evaluate.py", f"run={runs}", f"split={split}", where, "accelerator=cpu")
        accuracies[f"{split}/accuracy"] = float(re.search(rf"^{split}/accuracy (\S+)$", printed, re.MULTILINE)[1])
    return {**accuracies, "train_seconds": sum(result["train_seconds"] for result in results)}, {
        **circumstances[0],
        "parameters": sum(one["parameters"] for one in circumstances),
    }


def measure(table: Table, options: Results) -> list[str]:
    """Run what is missing, a recipe after the other; what failed, or came out otherwise than before."""
    faults = []
    for name in options.recipes or ORDER:
        before = table.seeds(name)
        missing = [seed for seed in range(options.seeds) if options.again or str(seed) not in before]
        one = average if name in ENSEMBLES else train
        pool = ThreadPoolExecutor(options.jobs)
        work = {pool.submit(one, name, seed, table.recipes, options): seed for seed in missing}
        try:
            for done in track(as_completed(work), name, total=len(work), disable=not work):
                seed = work[done]
                try:
                    result, circumstances = done.result()
                except UserError as error:
                    print(f"{name}, seed {seed}: {error}", file=sys.stderr, flush=True)
                    faults.append(f"{name}, seed {seed}, failed")
                    continue
                said = f"{name}, seed {seed}: {percent(result['test/accuracy'])} %"
                if options.again:
                    same = result["test/accuracy"] == before.get(str(seed), {}).get("test/accuracy")
                    said += ", as before" if same else ", not as before"
                    faults += [] if same else [said]
                else:
                    table.add(name, seed, result, circumstances)
                print(said, flush=True)
        finally:  # at Ctrl-C, start no further run
            pool.shutdown(cancel_futures=True)
        if not options.again:
            table.write(options.seeds)
            if name in (known := table.read()):
                print(f"{name}: {in_words(known[name])}", flush=True)
    return faults


def main() -> None:
    options = read(Results)
    if unknown := [name for name in options.recipes if name not in ORDER]:
        raise UserError(f"recipes={unknown[0]} is not one of {', '.join(ORDER)}")
    for key in ("seeds", "jobs"):
        if getattr(options, key) < 1:
            raise UserError(f"{key}={getattr(options, key)} must be at least 1")
    if faults := measure(Table(), options):
        raise UserError("\n".join(faults))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        stop(error)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        raise SystemExit(130) from None

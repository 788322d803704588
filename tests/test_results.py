"""What docs/results.md, the README and the recipes claim, against what was measured."""

import dataclasses
import functools
import importlib
import json
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.config.compose import compose
from experiments.config.installation import CONF
from experiments.errors import UserError
from experiments.runs.run_record import record_start

ROOT = CONF.parent
sys.path.append(str(ROOT / "benchmarks"))
results = importlib.import_module("results")
recipe_of = functools.cache(results.recipe_of)  # of the recipes as they are

KEPT = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
MEASURED = {name: known for name, known in KEPT.items() if len(known["seeds"]) >= 5}
RECIPES = list(results.RECIPES)  # a recipe of one's own need not be measured
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
NUMBERS = r"([\d.]+)(?: ± ([\d.]+))? %"


def claims(text: str) -> tuple[float, ...]:
    """Mean, deviation and best, as a header or a row of the table has them."""
    (mean, deviation), (best, _) = re.findall(NUMBERS, text)
    return float(mean), float(deviation), float(best)


def truth(name: str) -> tuple[float, ...]:
    """The same out of every seed's result."""
    values = [100 * seed["test/accuracy"] for seed in MEASURED[name]["seeds"].values()]
    return tuple(round(value, 2) for value in (statistics.fmean(values), statistics.stdev(values), max(values)))


def test_there_are_recipes():
    assert len(RECIPES) > 5
    assert len(MEASURED) > 1
    assert set(RECIPES) <= {path.stem for path in (CONF / "experiment").glob("*.yaml")}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipes_header_says_what_was_measured_of_it(name):
    lines = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[1] == f"# python scripts/train.py experiment={name}"
    measured = [line for line in lines if line.startswith(results.MEASURED)]
    assert len(measured) == (name in MEASURED)
    for line in measured:
        assert claims(line) == truth(name)
        assert f"seeds {', '.join(MEASURED[name]['seeds'])})" in line


@pytest.mark.parametrize("name", MEASURED)
def test_the_page_says_what_was_measured(name):
    (row,) = re.findall(rf"^\| `{name}` \|.*$", PAGE, re.MULTILINE)
    assert claims(row) == truth(name)
    assert f"| {MEASURED[name]['parameters']:,} |" in row


def test_the_readme_has_rows_of_the_page():
    rows = re.findall(r"^\| `\w+` \|.*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows
    assert set(rows) <= set(PAGE.splitlines())


def test_the_page_has_no_row_that_was_not_measured():
    table = results.TABLE.search(PAGE).group()
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(MEASURED)


@pytest.mark.parametrize("name", MEASURED)
def test_no_recipe_was_changed_since_it_was_measured(name):
    assert MEASURED[name]["recipe"] == recipe_of(name)


def test_a_recipe_is_all_that_it_trains_with_and_nothing_else(monkeypatch):
    before = results.recipe_of("digits_mlp")
    compose = results.compose
    monkeypatch.setattr(results, "compose", lambda *typed: compose(*typed, "seed=3", "data_root=x", "logger=csv"))
    assert results.recipe_of("digits_mlp") == before
    monkeypatch.setattr(results, "compose", lambda *typed: compose(*typed, "optimizer.eps=1e-7"))
    assert results.recipe_of("digits_mlp") != before


@pytest.fixture
def house(tmp_path, monkeypatch, processes) -> Path:
    """A copy of what the script reads and writes, where nothing is measured yet."""

    def run(command: list[str], **_) -> subprocess.CompletedProcess:
        output, errors = tmp_path / "stdout.txt", tmp_path / "stderr.txt"
        code = processes.start(ROOT, output, *command[1:], errors=errors).wait()
        return subprocess.CompletedProcess(command, code, output.read_text(), errors.read_text())

    monkeypatch.setattr(results, "recipe_of", recipe_of)
    monkeypatch.setattr(results, "subprocess", SimpleNamespace(run=run))
    shutil.copytree(CONF / "experiment", tmp_path / "conf" / "experiment")
    for folder in ("benchmarks", "docs"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "docs" / "results.md", tmp_path / "docs")
    return tmp_path


@pytest.mark.slow
def test_the_script_trains_what_is_missing_and_writes_the_same_number_everywhere(house, monkeypatch, capsys):
    shorter = house / "mine" / "experiment" / "digits_mlp.yaml"  # in place of the recipe, with two epochs
    shorter.parent.mkdir(parents=True)
    recipe = (CONF / "experiment" / "digits_mlp.yaml").read_text(encoding="utf-8")
    shorter.write_text(re.sub(r"max_epochs: \d+", "max_epochs: 2", recipe), encoding="utf-8")
    monkeypatch.setenv("EXPERIMENTS_CONF", str(house / "mine"))
    options = results.Results(recipes=["digits_mlp"], seeds=2, jobs=1, runs=str(house / "runs"))
    assert results.measure(results.Table(house), options) == []
    summaries = [json.loads(path.read_text()) for path in sorted((house / "runs").rglob("summary.json"))]
    accuracies = [100 * summary["test/accuracy"] for summary in summaries]
    assert [summary["seed"] for summary in summaries] == [0, 1]
    mean, best = statistics.fmean(accuracies), max(accuracies)
    header = (house / "conf" / "experiment" / "digits_mlp.yaml").read_text(encoding="utf-8").splitlines()[2]
    page = (house / "docs" / "results.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `digits_mlp` \|.*$", page, re.MULTILINE)
    for text in (header, *rows):
        assert claims(text) == pytest.approx((mean, statistics.stdev(accuracies), best), abs=0.006)
    assert len(rows) == 1
    # nothing is left to do, whatever became of the runs
    shutil.rmtree(house / "runs")
    assert results.measure(results.Table(house), options) == []
    assert not (house / "runs").exists()
    # and again: the same number bit for bit, and one that is not is found
    kept = house / "benchmarks" / "results.json"
    other = json.loads(kept.read_text())
    other["digits_mlp"]["seeds"]["1"]["test/accuracy"] += 1e-7
    kept.write_text(json.dumps(other))
    (fault,) = results.measure(results.Table(house), dataclasses.replace(options, again=True))
    assert re.fullmatch(r"digits_mlp, seed 1: [\d.]+ %, not as before", fault)
    assert re.search(r"^digits_mlp, seed 0: [\d.]+ %, as before$", capsys.readouterr().out, re.MULTILINE)


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_over(house):
    options = results.Results(recipes=["digits_mlp"], seeds=1, runs=str(house / "runs"))
    recipes = {"digits_mlp": recipe_of("digits_mlp")}
    folder = results.folder_of("digits_mlp", 0, recipes, options)
    started = compose("experiment=digits_mlp", "trainer.max_epochs=1", "callbacks=minimal", f"run_dir={folder}")
    record_start(folder, started, ["trainer.max_epochs=1"], ROOT)
    result, _ = results.train("digits_mlp", 0, recipes, options)
    assert result["epochs"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipes": ["mnist_mpl"]}, "recipes=mnist_mpl is not one of mnist_mlp, "),
        ({"jobs": 0}, "jobs=0 must be at least 1"),
        ({"seeds": 0}, "seeds=0 must be at least 1"),
    ],
)
def test_mistakes_are_told_before_anything_runs(monkeypatch, options, message):
    monkeypatch.setattr(results, "read", lambda schema: schema(**{"recipes": [], **options}))
    with pytest.raises(UserError, match=message):
        results.main()


def test_damaged_results_are_named(house):
    (house / "benchmarks" / "results.json").write_text("{")
    with pytest.raises(UserError, match="results.json is damaged"):
        results.Table(house).read()

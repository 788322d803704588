"""What the README and the recipes claim, against what was measured."""

import importlib
import json
import re
import shutil
import statistics
import sys
from pathlib import Path

import pytest
import yaml

from experiments.composition import CONF

ROOT = CONF.parent
sys.path.append(str(ROOT / "benchmarks"))
results = importlib.import_module("results")

MEASURED = json.loads((ROOT / "benchmarks" / "results.json").read_text())
RECIPES = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
README = (ROOT / "README.md").read_text()
NUMBERS = r"([\d.]+)(?: ± ([\d.]+))? %"


def claims(text: str) -> tuple[float, ...]:
    """Mean, deviation and best, as a header or a row of the table has them."""
    (mean, deviation), (best, _) = re.findall(NUMBERS, text)
    return float(mean), float(deviation), float(best)


def truth(name: str) -> tuple[float, ...]:
    """The same out of every seed's result."""
    values = [100 * seed["test/accuracy"] for seed in MEASURED[name]["seeds"].values()]
    assert len(values) >= 3
    return tuple(round(value, 2) for value in (statistics.fmean(values), statistics.stdev(values), max(values)))


def test_there_are_recipes():
    assert len(RECIPES) > 5
    assert set(RECIPES) == set(results.RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipes_header_says_what_was_measured_of_it(name):
    lines = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()
    (measured,) = [line for line in lines if line.startswith(results.MEASURED)]
    assert claims(measured) == truth(name)
    assert f"seeds {', '.join(MEASURED[name]['seeds'])})" in measured
    assert lines[1] == f"# python scripts/train.py experiment={name}"


@pytest.mark.parametrize("name", MEASURED)
def test_the_readme_says_what_was_measured(name):
    (row,) = re.findall(rf"^\| `{name}` \|.*$", README, re.MULTILINE)
    assert claims(row) == truth(name)
    assert f"| {MEASURED[name]['parameters']:,} |" in row


def test_the_readme_has_no_row_that_was_not_measured():
    table = results.TABLE.search(README).group()
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(MEASURED)


@pytest.mark.parametrize("name", RECIPES)
def test_no_recipe_was_changed_since_it_was_measured(name):
    assert MEASURED[name]["recipe"] == yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", results.ENSEMBLES)
def test_an_ensembles_members_are_the_ones_that_were_measured(name):
    for member, recipe in MEASURED[name]["recipe"]["members"].items():
        assert MEASURED[member]["recipe"] == recipe


@pytest.fixture
def house(tmp_path, monkeypatch) -> Path:
    """A copy of what the script reads and writes, where nothing is measured yet."""
    shutil.copytree(CONF / "experiment", tmp_path / "conf" / "experiment")
    shutil.copy(ROOT / "README.md", tmp_path)
    (tmp_path / "benchmarks").mkdir()
    return tmp_path


@pytest.mark.slow
def test_the_script_trains_what_is_missing_and_writes_the_same_number_everywhere(house):
    options = results.Results(recipes=["digits_mlp"], seeds=2, runs=str(house / "runs"))
    table = results.Table(house)
    assert results.measure(table, options.recipes, options) == []
    summaries = [json.loads(path.read_text()) for path in sorted((house / "runs").rglob("summary.json"))]
    accuracies = [100 * summary["test/accuracy"] for summary in summaries]
    assert [summary["seed"] for summary in summaries] == [0, 1]
    mean, best = statistics.fmean(accuracies), max(accuracies)
    header = (house / "conf" / "experiment" / "digits_mlp.yaml").read_text().splitlines()[2]
    rows = re.findall(r"^\| `digits_mlp` \|.*$", (house / "README.md").read_text(), re.MULTILINE)
    for text in (header, *rows):
        assert claims(text) == pytest.approx((mean, statistics.stdev(accuracies), best), abs=0.006)
    shutil.rmtree(house / "runs")
    assert results.measure(results.Table(house), options.recipes, options) == []
    assert not (house / "runs").exists()  # nothing was left to do

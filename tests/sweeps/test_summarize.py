"""Summaries of run directories written by hand, so that every number is known, and of a real sweep."""

import csv
import json
import math
import re
import shutil
import statistics

import pytest
from scipy import stats

import experiments
from experiments.config.installation import command
from experiments.errors import UserError
from experiments.sweeps.summary.latex import latex
from experiments.sweeps.summary.repetitions import averages, compare
from experiments.sweeps.summary.runs import runs_in
from experiments.sweeps.summary.select import select
from experiments.sweeps.summary.summarize import summarize
from experiments.sweeps.summary.tables import ranked, repeat, rows, shown, table_of
from experiments.training.run import train
from tests.sweeps.conftest import LR, SMALL, multirun  # noqa: F401  # a fixture

LENGTH = {"trainer": {"max_epochs": 3}}


def write_run(folder, overrides, config=None, **summary):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps(config or {}))
    (folder / "overrides.yaml").write_text(json.dumps(overrides))
    if summary:
        (folder / "summary.json").write_text(json.dumps(summary))


@pytest.fixture
def folder(tmp_path):
    """Two settings with three seeds each, one that failed, one that was interrupted, one half-written."""
    for lr in (0.1, 0.2):
        for seed in (0, 1, 2):
            accuracy = 0.9 + lr / 10 + seed / 1000
            write_run(
                tmp_path / f"{lr}-{seed}", [f"optimizer.lr={lr}", f"seed={seed}", "trainer.max_epochs=3"],
                {"optimizer": {"lr": lr}, "seed": seed, **LENGTH}, status="finished",
                **{"val/accuracy": accuracy, "test/accuracy": accuracy - 0.01, "train_seconds": 1.0},
            )  # fmt: skip
    write_run(
        tmp_path / "failed",
        ["optimizer.lr=-1", "seed=0"],
        {"optimizer": {"lr": -1}, "seed": 0, **LENGTH},
        status="failed",
    )
    write_run(
        tmp_path / "interrupted", ["optimizer.lr=0.3", "seed=0"], {"optimizer": {"lr": 0.3}, "seed": 0, **LENGTH}
    )
    write_run(tmp_path / "half", ["optimizer.lr=0.3", "seed=1"], {"optimizer": {"lr": 0.3}, "seed": 1, **LENGTH})
    (tmp_path / "half" / "summary.json").write_text('{"status": "fini')
    return tmp_path


def test_runs_are_ranked_by_what_they_reached_and_columns_are_what_varied(folder):
    runs = ranked(runs_in(folder), "val/accuracy", False)
    assert [run.name for run in runs] == [
        "0.2-2", "0.2-1", "0.2-0", "0.1-2", "0.1-1", "0.1-0", "interrupted", "failed", "half"
    ]  # fmt: skip
    table = rows(runs, ["val/accuracy"])
    assert list(table[0]) == [
        "run", "status", "val/accuracy", "test/accuracy", "train_seconds", "optimizer.lr", "seed"
    ]  # fmt: skip
    assert table[0]["optimizer.lr"] == 0.2
    assert [row["status"] for row in table[6:]] == ["interrupted", "failed", "unreadable"]
    assert ranked(runs, "val/accuracy", True)[0].name == "0.1-0"


def test_choices_that_nobody_noted_and_parts_that_are_off_do_not_widen_the_table(folder):
    config = {"optimizer": {"lr": 0.1}, "model": {"net": {}}, "callbacks": {"graph": {"_target_": "a.b"}}}
    for name, typed, graph in (("auto", "resume=auto", {}), ("off", "callbacks.graph=null", {"graph": None})):
        write_run(folder / name, [typed, "loss=focal"], {**config, "callbacks": {**config["callbacks"], **graph}})
    runs = {run.name: run for run in runs_in(folder)}
    assert runs["auto"].varied["loss"] == "focal"
    assert [runs[name].varied["callbacks.graph"] for name in ("auto", "off")] == [None, "null"]
    assert repeat(runs["auto"]) == f"{command('train')} loss=focal"
    typed = {"command": ["python", "scripts/train.py", "loss=focal", "--config-dir=/my conf"]}
    (folder / "auto" / "environment.json").write_text(json.dumps(typed))
    assert repeat(runs["auto"]) == f"{command('train')} '--config-dir=/my conf' loss=focal"


def test_a_seed_that_was_repeated_counts_once(folder):
    before = averages(runs_in(folder), ["val/accuracy"], False)
    shutil.copytree(folder / "0.1-0", folder / "again")
    assert averages(runs_in(folder), ["val/accuracy"], False) == before


def test_seeds_are_averaged(folder):
    first, second = averages(runs_in(folder), ["val/accuracy"], False)
    values = [0.9 + 0.02 + seed / 1000 for seed in range(3)]
    assert first["seeds"] == 3
    assert first["optimizer.lr"] == 0.2
    assert first["val/accuracy"] == pytest.approx(statistics.fmean(values))
    assert first["val/accuracy ±"] == pytest.approx(statistics.stdev(values))
    assert second["optimizer.lr"] == 0.1


def test_csv_markdown_and_text_say_the_same(folder, tmp_path, capsys):
    summarize(folder, output=tmp_path / "out")
    with (tmp_path / "out" / "summary.csv").open() as file:
        table = list(csv.DictReader(file))
    assert table[0]["run"] == "0.2-2"
    assert float(table[0]["val/accuracy"]) == pytest.approx(0.922)
    markdown = (tmp_path / "out" / "summary.md").read_text().splitlines()
    assert markdown[0].startswith("| run | status | val/accuracy |")
    assert markdown[2].startswith("| 0.2-2 | finished | 0.922 |")
    printed = capsys.readouterr().out
    assert f"the best again, with test: {command('train')} optimizer.lr=0.2 seed=2 trainer.max_epochs=3" in printed
    pytest.importorskip("matplotlib")
    for name in ("history", "slice"):
        assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_group_without_an_override_shows_the_default_choice(tmp_path):
    for name, overrides, choice in (("a", ["loss=focal"], "focal"), ("b", ["seed=0"], "cross_entropy")):
        write_run(tmp_path / name, overrides, {"seed": 0}, status="finished", **{"val/accuracy": 0.5})
        (tmp_path / name / ".hydra").mkdir()
        (tmp_path / name / ".hydra" / "hydra.yaml").write_text(
            json.dumps({"hydra": {"runtime": {"choices": {"loss": choice}}}})
        )
    assert [run.varied for run in runs_in(tmp_path)] == [{"loss": "focal"}, {"loss": "cross_entropy"}]


def test_what_cannot_be_shown_is_said(folder, tmp_path):
    with pytest.raises(UserError, match="there are no runs in"):
        runs_in(tmp_path / "nowhere")
    with pytest.raises(
        UserError, match="metric=val/f1 is in no run's summary; there are test/accuracy, val/accuracy"
    ):
        summarize(folder, ["val/f1"])
    assert shown(math.nan) == shown(None) == "-"


def test_a_real_sweep_is_summarized_with_its_study_even_unfinished(multirun, capsys, tmp_path):  # noqa: F811
    folder = multirun(
        "sweep", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=6", LR, "model.net.activation=ReLU,nonsense", *SMALL
    )  # fmt: skip
    (folder / "0" / "summary.json").unlink()  # as if it had been killed
    capsys.readouterr()
    runs = summarize(folder, output=tmp_path / "out")
    printed = capsys.readouterr().out
    assert len(runs) == 6
    assert "the study's 6 trials: " in printed
    assert "optimizer.lr" in printed.splitlines()[0]
    assert "parameter" in printed
    assert "test=false" not in printed
    assert {run.status for run in runs} >= {"finished", "failed"}
    assert runs[0].summary["val/accuracy"] == max(run.summary.get("val/accuracy") or 0.0 for run in runs)
    assert (tmp_path / "out" / "importance.png").is_file()
    assert table_of(folder).splitlines()[1].split()[0] == runs[0].name


def test_it_needs_no_torch(folder):
    import subprocess
    import sys

    code = f"import sys; from experiments.sweeps.summary.summarize import summarize; summarize({str(folder)!r}); " + (
        "print('heavy:', sorted({'torch', 'lightning', 'sklearn'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1] == "heavy: []"


def test_a_damaged_summary_is_a_row_and_stops_nothing(folder, tmp_path, capsys):
    for number, content in enumerate(("[1]", "3", "null", '{"status": "fin', "")):
        (folder / f"damaged{number}").mkdir()
        (folder / f"damaged{number}" / "summary.json").write_text(content)
        (folder / f"damaged{number}" / "overrides.yaml").write_text(content)
    summarize(folder, output=tmp_path / "out")
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    found = sorted(row for row in rows if row and row[0].startswith("damaged"))
    assert found == [[f"damaged{number}", "unreadable"] for number in range(5)]
    (tmp_path / "alone").mkdir()
    (folder / "damaged0").rename(tmp_path / "alone" / "damaged0")
    summarize(tmp_path / "alone", output=tmp_path / "out2")
    assert "no pictures: no run has finished" in capsys.readouterr().out


def test_runs_are_found_again_by_conditions(folder):
    write_run(
        folder / "tagged", ["optimizer.lr=0.2", "tags=[baseline,wide]"],
        {"optimizer": {"lr": 0.2}, "seed": 7, "tags": ["baseline", "wide"], "note": None, **LENGTH},
        status="finished", **{"val/accuracy": 0.5},
    )  # fmt: skip
    for where, names in {
        ("tags=baseline",): {"tagged"},
        ("optimizer.lr>0.15", "status=finished", "seed<3"): {"0.2-0", "0.2-1", "0.2-2"},
        ("optimizer.lr>=0.3",): {"interrupted", "half"},
        ("val/accuracy > 0.921",): {"0.2-2"},
        ("run=0.1-*", "seed!=1"): {"0.1-0", "0.1-2"},
        ("optimizer.lr=2e-1", "tags!=wide", "seed=0"): {"0.2-0"},
        ("note=null", "tags=wide"): {"tagged"},
    }.items():
        assert {run.name for run in select(runs_in(folder), where)} == names, where
    for where, words in {
        "tags": "is no condition: write key=value",
        "": "is no condition",
        "optimizer.lrr=1": "no run has optimizer.lrr. Did you mean optimizer.lr",
        "optimizer.lr>big": "> compares numbers, and big is none",
        "tags=base": "none of 10 runs; there tags is ",
    }.items():
        with pytest.raises(UserError, match=re.escape(words)):
            select(runs_in(folder), [where])


def test_columns_metrics_and_their_order_are_chosen(folder, capsys):
    summarize(folder, ["test/accuracy", "val/accuracy"], where=["status=finished"])
    assert capsys.readouterr().out.splitlines()[0].split()[:4] == ["run", "status", "test/accuracy", "val/accuracy"]
    summarize(folder, columns=["optimizer.lr", "seed"], sort="-seed", where=["status=finished"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "optimizer.lr", "seed"]
    assert [line.split()[2] for line in lines[1:7]] == ["2", "2", "1", "1", "0", "0"]
    assert "6 of 9 runs" in lines
    for wrong in ({"columns": ["optimizr.lr"]}, {"sort": "optimizr.lr"}):
        with pytest.raises(UserError, match=r"no run has optimizr\.lr\. Did you mean optimizer\.lr"):
            summarize(folder, **wrong)


@pytest.fixture
def folds(tmp_path):
    """Two losses, three seeds, five folds: accuracies that are easy to average."""
    for loss, better in (("margin", 0.0), ("focal", 0.01)):
        for seed in range(3):
            for fold in range(5):
                write_run(
                    tmp_path / f"{loss}-{seed}-{fold}", [f"loss={loss}", f"seed={seed}", f"data.fold={fold}"],
                    {"seed": seed, "data": {"fold": fold}}, status="finished",
                    **{"val/accuracy": 0.9 + better * (1 + seed / 10) + seed / 100 + fold / 1000},
                )  # fmt: skip
    return tmp_path


def test_folds_are_averaged_within_seeds(folds):
    first, second = averages(runs_in(folds), ["val/accuracy"], False)
    assert (first["loss"], second["loss"]) == ("focal", "margin")
    assert (second["seeds"], second["folds"]) == (3, 5)
    means = [0.9 + seed / 100 + 0.002 for seed in range(3)]
    assert second["val/accuracy"] == pytest.approx(statistics.fmean(means))
    assert second["val/accuracy ±"] == pytest.approx(statistics.stdev(means))
    (alone, _) = averages(select(runs_in(folds), ["seed=1"]), ["val/accuracy"], True)
    assert alone["val/accuracy ±"] == pytest.approx(statistics.stdev(fold / 1000 for fold in range(5)))


def test_two_settings_are_compared_in_pairs(folds):
    runs = runs_in(folds)
    differences = [0.01 * (1 + seed / 10) for seed in range(3)]  # of the means over folds
    truth = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    said = compare(runs, ["loss=focal", "loss=margin"], "val/accuracy")
    assert said.startswith(f"val/accuracy of loss=focal minus loss=margin: {statistics.fmean(differences):+.4g} ")
    assert f"95 % interval {truth.low:+.4g} to {truth.high:+.4g}, n = 3 pairs" in said
    few = select(runs, ["seed<2", "data.fold=0"])
    assert "no interval below 3 pairs, n = 2" in compare(few, ["loss=focal", "loss=margin"], "val/accuracy")
    with pytest.raises(UserError, match="takes two conditions"):
        compare(runs, ["loss=focal"], "val/accuracy")
    with pytest.raises(UserError, match="have no seed or fold in common"):
        compare(select(runs, ["loss=focal"]), ["seed=0", "seed=1"], "val/accuracy")


def test_a_paper_gets_a_table(folds, tmp_path):
    summarize(folds, output=tmp_path / "out")
    lines = (tmp_path / "out" / "summary.tex").read_text().splitlines()
    assert r"loss & val/accuracy \\" in lines
    best = next(line for line in lines if "focal" in line)
    assert best == r"\textbf{\boldmath focal} & \textbf{\boldmath $0.923 \pm 0.011$} \\"
    assert r"margin & $0.912 \pm 0.010$ \\" in lines
    caption = (
        r"\caption{Mean $\pm$ sample standard deviation of the mean over folds, for 3 seeds and 5 folds (n), on "
    )
    assert caption + "the validation split.}" in lines
    assert latex([{"run": "a", "x": "50 % & more_", "loss": 1.0}], ["loss"]).count(r"50 \% \& more\_") == 1


def test_runs_composed_in_python_are_told_apart_and_the_best_can_be_typed_again(tmp_path, capsys):
    short = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.accelerator=cpu", "logger=none",
             "callbacks=minimal", "test=false")  # fmt: skip
    for rate in (0.01, 1e-6):
        train(experiments.compose(f"optimizer.lr={rate}", *short, f"run_dir={tmp_path}/{rate}"))
    capsys.readouterr()
    summarize(tmp_path)
    printed = capsys.readouterr().out
    assert [run.varied for run in runs_in(tmp_path)] == [{"optimizer.lr": 0.01}, {"optimizer.lr": 1e-06}]
    assert f"{command('train')} optimizer.lr=0.01 {' '.join(short[:-1])}" in printed

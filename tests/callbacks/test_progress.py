import logging

import pytest
from lightning import Trainer
from lightning.pytorch.callbacks import Timer

import experiments
from experiments.callbacks import Progress, progress
from experiments.training.build import build


@pytest.fixture
def lines(tmp_path, caplog):
    caplog.set_level(logging.INFO, "experiments")
    config = experiments.compose(
        "trainer.max_epochs=3", "trainer.limit_train_batches=2", "callbacks=minimal", "logger=none",
        "model.net.hidden_features=[16]", "trainer.accelerator=cpu", f"run_dir={tmp_path}",
    )  # fmt: skip
    experiment = build(config)
    experiment.trainer.fit(experiment.classifier, datamodule=experiment.data)
    assert isinstance(experiment.trainer, Trainer)
    return [record.message for record in caplog.records if record.message.startswith("epoch ")]


def test_one_line_an_epoch_with_its_own_values_and_the_best_so_far(lines):
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    best = 0.0
    for line in lines:
        words = line.split()
        values = {words[i]: float(words[i + 1]) for i in range(2, words.index("best") + 1, 2)}
        assert set(values) == {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "best"}
        best = max(best, values["val/accuracy"])
        assert values["best"] == best


def test_the_time_that_is_left_is_told_until_the_last_line(lines):
    assert ["  left " in line for line in lines] == [True, True, False]


class Loop:
    def __init__(self, epochs=-1, steps=-1, batches=10, taken=0):
        self.max_epochs, self.max_steps, self.num_training_batches = epochs, steps, batches
        self.global_step, self.callbacks = taken, []
        self.fit_loop = self.epoch_loop = self
        self.total_batch_idx = taken - 1


@pytest.mark.parametrize(
    ("loop", "share"),
    [
        (Loop(epochs=4, taken=10), 0.25),
        (Loop(steps=40, taken=10), 0.25),
        (Loop(epochs=4, steps=20, taken=10), 0.5),
        (Loop(taken=10), 0.0),
        (Loop(epochs=4, batches=float("inf"), taken=10), 0.0),
        (Loop(epochs=1, taken=20), 1.0),
    ],
)
def test_the_share_done_is_that_of_what_ends_the_run_first(loop, share):
    assert progress.share_done(loop) == share


def test_time_left_follows_the_pace_since_this_process_started(monkeypatch):
    shown = Progress()
    shown._started = (100.0, 0.5)  # resumed in the middle
    monkeypatch.setattr(progress.time, "perf_counter", lambda: 110.0)
    assert shown.time_left(Loop(epochs=4, taken=30)) == "0:00:10"
    assert shown.time_left(Loop(epochs=4, taken=20)) is None
    assert shown.time_left(Loop(epochs=4, taken=40)) is None


def test_an_epoch_without_a_validation_repeats_no_old_one(tmp_path, caplog):
    caplog.set_level("INFO", "experiments")
    config = experiments.compose(
        "trainer.max_epochs=4", "trainer.check_val_every_n_epoch=2", "data.limit=100", "callbacks=minimal",
        "logger=none", "model.net.hidden_features=[16]", "trainer.accelerator=cpu", f"run_dir={tmp_path}",
    )  # fmt: skip
    experiment = build(config)
    experiment.trainer.fit(experiment.classifier, datamodule=experiment.data)
    lines = [record.message for record in caplog.records if record.message.startswith("epoch ")]
    assert ["val/loss" in line for line in lines] == [False, True, False, True]


def test_there_is_a_bar_on_a_terminal_of_ones_own_alone(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert progress.has_screen()
    assert Progress().refresh_rate == 20
    monkeypatch.setenv("CI", "true")
    assert Progress().refresh_rate == 0
    monkeypatch.delenv("CI")
    monkeypatch.setattr(progress.multiprocessing, "parent_process", lambda: object())
    assert not progress.has_screen()
    monkeypatch.setattr(progress.multiprocessing, "parent_process", lambda: None)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    assert not progress.has_screen()


def test_a_bar_counts_optimizer_steps_also_in_lists_of_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "has_screen", lambda: True)
    config = experiments.compose(
        "trainer.max_epochs=2", "data.limit=400", "steps_per_execution=5", "callbacks=minimal", "logger=none",
        "model.net.hidden_features=[16]", "trainer.accelerator=cpu", f"run_dir={tmp_path}",
    )  # fmt: skip
    experiment = build(config)
    experiment.trainer.fit(experiment.classifier, datamodule=experiment.data)
    (shown,) = [callback for callback in experiment.trainer.callbacks if isinstance(callback, Progress)]
    assert (shown.train_progress_bar.n, shown.train_progress_bar.total) == (13, 13)


def test_an_epochs_line_fits_the_terminal_and_knows_max_time(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(progress, "has_screen", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    config = experiments.compose(
        "trainer.max_epochs=-1", "+trainer.max_time={milliseconds: 300}", "scheduler=constant", "data.limit=100",
        "callbacks=minimal", "logger=none", "model.net.hidden_features=[16]", "trainer.accelerator=cpu", f"run_dir={tmp_path}",
    )  # fmt: skip
    experiment = build(config)
    experiment.trainer.fit(experiment.classifier, datamodule=experiment.data)
    lines = [record.message for record in caplog.records if record.message.startswith("epoch ")]
    assert len(lines) > 1
    assert all("val/accuracy" in line and len(line) < 80 for line in lines)
    (shown,) = [callback for callback in experiment.trainer.callbacks if isinstance(callback, Progress)]
    (timer,) = [callback for callback in experiment.trainer.callbacks if isinstance(callback, Timer)]
    monkeypatch.setattr(timer, "time_remaining", lambda: 61.2)
    assert shown.time_left(experiment.trainer) == "0:01:02"

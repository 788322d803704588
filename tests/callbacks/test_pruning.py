import lightning
import pytest
from torch import nn

import experiments
from experiments.callbacks import Pruning
from experiments.errors import UserError
from experiments.training.build import build
from experiments.training.run import fit_and_test

SHORT = ("trainer.accelerator=cpu", "trainer.limit_train_batches=2", "logger=none", "callbacks=minimal", "test=false",
         "model.net.hidden_features=[16]")  # fmt: skip


def run(tmp_path, pruning, *overrides):
    config = experiments.compose(*SHORT, f"run_dir={tmp_path}", *overrides)
    experiment = build(config)
    experiment.trainer.callbacks.insert(0, pruning)
    return fit_and_test(experiment, config)


@pytest.mark.parametrize(("direction", "better"), [("maximize", max), ("minimize", min)])
def test_every_validation_is_reported_and_the_best_kept(tmp_path, direction, better):
    reported = []
    pruning = Pruning(lambda value, step: reported.append((value, step)) or False, "val/accuracy", direction)
    summary = run(tmp_path, pruning, "trainer.max_epochs=4", "trainer.num_sanity_val_steps=2")
    assert [step for _, step in reported] == [1, 2, 3, 4]
    assert pruning.best == better(value for value, _ in reported)
    assert (summary["status"], summary["epochs"]) == ("finished", 4)
    assert summary["val/accuracy"] == pytest.approx(max(value for value, _ in reported))
    assert reported[summary["best_epoch"] - 1][0] == pytest.approx(summary["val/accuracy"])


def test_a_run_that_is_pruned_ends_there_and_says_so(tmp_path):
    summary = run(tmp_path, Pruning(lambda value, step: step == 2, "val/loss", "minimize"), "trainer.max_epochs=9")
    assert (summary["status"], summary["epochs"], summary["steps"]) == ("pruned", 2, 4)


def test_at_its_very_end_a_run_is_not_pruned_any_more(tmp_path):
    summary = run(tmp_path, Pruning(lambda value, step: step == 2, "val/loss", "minimize"), "trainer.max_epochs=2")
    assert (summary["status"], summary["epochs"]) == ("finished", 2)


def test_nor_is_one_that_has_taken_all_its_steps(tmp_path):
    summary = run(tmp_path, Pruning(lambda value, step: step == 2, "val/loss", "minimize"), "trainer.max_steps=3")
    assert (summary["status"], summary["steps"]) == ("finished", 3)


def test_inside_an_epoch_it_is_pruned_too(tmp_path):
    pruning = Pruning(lambda value, step: step == 1, "val/loss", "minimize")
    summary = run(
        tmp_path, pruning, "trainer.max_epochs=1", "trainer.limit_train_batches=8", "trainer.val_check_interval=2"
    )
    assert (summary["status"], summary["steps"]) == ("pruned", 2)


def test_a_metric_that_is_not_logged_is_named_with_those_that_are(tmp_path):
    with pytest.raises(UserError, match="val/nothing is not logged; validation logs val/accuracy, val/loss"):
        run(tmp_path, Pruning(lambda *_: False, "val/nothing", "maximize"), "trainer.max_epochs=1")


def test_a_value_that_is_not_a_number_is_never_the_best(tmp_path):
    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(1, 1)

    pruning = Pruning(lambda *_: False, "val/loss", "minimize")
    trainer = lightning.Trainer(logger=False, enable_checkpointing=False)
    for value in (2.0, float("nan"), 1.0):
        trainer.callback_metrics["val/loss"] = value
        pruning.on_validation_end(trainer, Module())
    assert pruning.best == 1.0

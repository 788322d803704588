import logging

import pytest
from lightning import Trainer

import experiments
from experiments.build import build


@pytest.fixture
def lines(tmp_path, caplog):
    caplog.set_level(logging.INFO, "experiments")
    config = experiments.compose(
        "trainer.max_epochs=3", "trainer.limit_train_batches=2", "callbacks=minimal", "logger=none",
        "trainer.accelerator=cpu", f"run_dir={tmp_path}",
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

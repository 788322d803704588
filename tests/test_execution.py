"""Lists of batches: the same run as step by step, bit for bit, and refused where that cannot be."""

from pathlib import Path

import pytest
from lightning import seed_everything
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import experiments
from experiments.build import build

QUICK = ("trainer.accelerator=cpu", "trainer.max_epochs=3", "model.net.hidden_features=[16]", "data.limit=400")


def config_of(folder, *overrides):
    return experiments.compose(*QUICK, f"run_dir={folder}", "callbacks.progress=null", *overrides)


def run(folder: Path, *overrides: str):
    """A fitted experiment, and every scalar that TensorBoard shows of it."""
    config = config_of(folder, "trainer.log_every_n_steps=5", "callbacks.model_summary=null", *overrides)
    seed_everything(0, verbose=False)
    experiment = build(config)
    experiment.trainer.fit(experiment.classifier, experiment.data)
    experiment.trainer.logger.finalize("success")
    (events,) = folder.rglob("events.*")
    reader = EventAccumulator(str(events), size_guidance={"scalars": 0}).Reload()
    scalars = {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
    return experiment, scalars


CASES = {
    "dropout, one cycle": ["model.net.dropout=0.5"],
    "cosine": ["scheduler=cosine"],
    "plateau": ["scheduler=plateau"],
    "epochs": ["scheduler=step", "optimizer=sgd"],
    "clipped": ["trainer.gradient_clip_val=0.1"],
    "clipped by value": ["trainer.gradient_clip_val=0.01", "trainer.gradient_clip_algorithm=value"],
    "averaged": ["callbacks=[default,ema]"],
    "augmented": ["augment=[affine,mixup]"],
    "stopped": ["trainer.max_steps=17", "scheduler=cosine"],
    "balanced": ["data.balanced=true"],
    "bfloat16": ["trainer.precision=bf16-mixed"],
}


@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES.keys())
def test_a_run_in_lists_of_batches_equals_one_step_by_step(tmp_path, overrides):
    one, their_scalars = run(tmp_path / "one", *overrides, "steps_per_execution=1")
    several, scalars = run(tmp_path / "several", *overrides, "steps_per_execution=5")
    assert several.trainer.num_training_batches < one.trainer.num_training_batches
    for name, value in one.classifier.net.state_dict().items():
        assert value.equal(several.classifier.net.state_dict()[name]), name
    assert one.trainer.global_step == several.trainer.global_step
    assert scalars["train/loss_step"], "nothing was logged by step"
    assert scalars.keys() == their_scalars.keys()
    for tag, values in their_scalars.items():
        assert scalars[tag] == [(step, pytest.approx(value)) for step, value in values], tag


def test_max_steps_ends_a_run_there_and_not_before(tmp_path):
    experiment, _ = run(tmp_path, "trainer.max_steps=30", "steps_per_execution=1")
    assert experiment.trainer.global_step == 30

import pytest
import torch
from lightning import Callback
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import experiments
from experiments.inference.evaluate import evaluate
from experiments.training.build import build
from experiments.training.run import fit_and_test, train


class Witness(Callback):
    """Keeps the weights that every training step left, and those that were tested."""

    def __init__(self):
        self.trained, self.tested = [], {}

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.trained.append({name: value.clone() for name, value in pl_module.net.state_dict().items()})

    def on_test_start(self, trainer, pl_module):
        self.tested = {name: value.clone() for name, value in pl_module.net.state_dict().items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = experiments.compose(
        "model.net.hidden_features=[8]", "model.net.norm=batch", "callbacks=[minimal,ema]", "callbacks.ema.decay=0.8",
        "callbacks.progress=null", "trainer.max_epochs=1", "trainer.limit_train_batches=10", "logger=none",
        "trainer.accelerator=cpu", f"run_dir={folder}",
    )  # fmt: skip
    experiment, witness = build(config), Witness()
    # before the averaging callback: it must see the step's own weights
    experiment.trainer.callbacks.insert(0, witness)
    return experiment, witness, fit_and_test(experiment, config), folder


def test_the_best_checkpoint_holds_the_average_and_load_gives_it(run):
    experiment, witness, summary, folder = run
    net = experiments.load(folder / summary["best_checkpoint"])
    truth = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.8), use_buffers=True)
    for weights in witness.trained:
        net.load_state_dict(weights)
        truth.update_parameters(net)
    best = experiments.load(folder / summary["best_checkpoint"]).state_dict()
    assert set(best) == set(experiment.classifier.net.state_dict())
    for name, value in truth.module.state_dict().items():
        assert best[name].allclose(value, atol=1e-5), name
    assert not best["linear_relu_stack.3.weight"].allclose(
        witness.trained[-1]["linear_relu_stack.3.weight"], atol=1e-3
    )


def test_the_test_result_is_the_averages(run):
    _, witness, summary, folder = run
    best = experiments.load(folder / summary["best_checkpoint"]).state_dict()
    assert all(value.equal(best[name]) for name, value in witness.tested.items())


def test_what_training_goes_on_from_stands_beside_the_average(run):
    _, witness, _, folder = run
    content = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    for name, value in witness.trained[-1].items():
        assert content["current_model_state"][f"net.{name}"].equal(value), name


EMA = "lightning.pytorch.callbacks.EMAWeightAveraging"


def trained(folder, *overrides):
    config = experiments.compose(
        "callbacks=minimal", "callbacks.progress=null", "trainer.max_epochs=2", "data.limit=320", "logger=none",
        "trainer.accelerator=cpu", f"run_dir={folder}", *overrides,
    )  # fmt: skip
    return train(config, overrides)


OURS = ["callbacks=[minimal,ema]", "callbacks.progress=null", "callbacks.ema.decay=0.9"]
THEIRS = [f"+callbacks.x={{_target_:{EMA},decay:0.9}}"]


@pytest.mark.parametrize("ema", [OURS, THEIRS], ids=["ours", "Lightning's"])
def test_an_average_that_never_begins_changes_nothing(tmp_path, ema, caplog):
    name = "x" if "x=" in ema[-1] else "ema"
    never = [*ema, f"++callbacks.{name}.update_starting_at_step=100000"]
    with_average, without = trained(tmp_path / "with", *never), trained(tmp_path / "without")
    assert "the run ends before update_starting_at_step=100000" in caplog.text
    same = ("val/accuracy", "val/loss", "test/accuracy", "test/loss", "best_epoch")
    assert [with_average[key] for key in same] == [without[key] for key in same]
    states = [torch.load(tmp_path / one / "checkpoints" / "best.ckpt")["state_dict"] for one in ("with", "without")]
    assert all(value.equal(states[1][name]) for name, value in states[0].items())


def test_an_average_that_begins_late_is_measured_from_there_on(tmp_path):
    late = trained(
        tmp_path, f"+callbacks.x={{_target_:{EMA},decay:0.9,update_starting_at_step:14}}", "trainer.max_epochs=3"
    )
    content = torch.load(tmp_path / "checkpoints" / "best.ckpt")
    assert int(content["averaging_state"]["n_averaged"]) == 16  # of 30 steps, those from the 15th on
    assert late["val/accuracy"] > 0.5


@pytest.mark.parametrize("target", [EMA, "lightning.pytorch.callbacks.WeightAveraging"])
def test_lightnings_own_average_is_tested_as_it_was_kept(tmp_path, target):
    summary = trained(tmp_path, f"+callbacks.x._target_={target}")
    results = evaluate(tmp_path, accelerator="cpu")
    assert results["test/loss"] == pytest.approx(summary["test/loss"], abs=1e-6)
    content = torch.load(tmp_path / "checkpoints" / "best.ckpt")
    assert not all(value.equal(content["current_model_state"][key]) for key, value in content["state_dict"].items())

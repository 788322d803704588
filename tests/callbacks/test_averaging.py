import pytest
import torch
from lightning import Callback
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import experiments
from experiments.training.build import build
from experiments.training.run import fit_and_test


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
        "model=resnet", "model.net.channels=[4]", "callbacks=[minimal,ema]", "callbacks.ema.decay=0.8",
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
    assert not best["fc.weight"].allclose(witness.trained[-1]["fc.weight"], atol=1e-3)


def test_the_test_result_is_the_averages(run):
    _, witness, summary, folder = run
    best = experiments.load(folder / summary["best_checkpoint"]).state_dict()
    assert all(value.equal(best[name]) for name, value in witness.tested.items())


def test_what_training_goes_on_from_stands_beside_the_average(run):
    _, witness, _, folder = run
    content = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    for name, value in witness.trained[-1].items():
        assert content["current_model_state"][f"net.{name}"].equal(value), name

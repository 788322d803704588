import pytest
import torch

import experiments
from experiments.errors import UserError
from experiments.training.build import build
from experiments.training.run import fit_and_test
from tests.tutorial import NetWithResBlock, NeuralNetwork, SimpleCNN

QUIET = ("channels_last=false", "trainer.accelerator=cpu", "callbacks=minimal", "logger=none")


def start(tmp_path, *overrides):
    """A new run's network, before training."""
    return build(experiments.compose(f"run_dir={tmp_path}", *QUIET, *overrides)).classifier.net


def equal(first, second):
    first, second = first.state_dict(), second.state_dict()
    return list(first) == list(second) and all(first[name].equal(second[name]) for name in first)


@pytest.mark.parametrize(
    ("model", "tutorials"), [("mlp", NeuralNetwork), ("cnn", SimpleCNN), ("resnet", NetWithResBlock)]
)
def test_a_run_starts_from_what_the_tutorial_saves(tmp_path, model, tutorials):
    truth, images = tutorials(), torch.randn(8, 1, 28, 28)
    truth(images)  # moves running statistics away from their start
    torch.save(truth.state_dict(), tmp_path / "model.pth")
    net = start(tmp_path, f"model={model}", f"init_from={tmp_path}/model.pth")
    assert equal(net, truth)
    with torch.no_grad():
        assert net.eval()(images).equal(truth.eval()(images))


def test_a_run_starts_from_a_checkpoints_network_alone(tmp_path):
    small = ("model=cnn", "model.net.channels=[4]", *QUIET, "test=false")
    config = experiments.compose(
        *small, "trainer.max_epochs=1", "trainer.limit_train_batches=2", f"run_dir={tmp_path}"
    )
    fit_and_test(build(config), config)
    path = tmp_path / "checkpoints" / "best.ckpt"
    # another optimizer and schedule, and training from the first epoch on
    config = experiments.compose(*small, "optimizer=sgd", "scheduler=step", "trainer.max_epochs=1",
                                 f"init_from={path}", f"run_dir={tmp_path}/second")  # fmt: skip
    experiment = build(config)
    assert equal(experiment.classifier.net, experiments.load(path))
    assert fit_and_test(experiment, config)["epochs"] == 1


def test_a_mismatch_gives_names_and_shapes_of_both_sides(tmp_path):
    weights = SimpleCNN().state_dict()
    weights["fc.weight"] = weights["fc.weight"][:, :9]
    weights["head.bias"] = weights.pop("fc.bias")
    torch.save(weights, tmp_path / "model.pth")
    with pytest.raises(UserError) as raised:
        start(tmp_path, "model=cnn", f"init_from={tmp_path}/model.pth")
    assert str(raised.value).splitlines() == [
        f"the weights in init_from={tmp_path}/model.pth do not fit CNN:",
        "  fc.weight: (10, 3136) in the network, (10, 9) in the file",
        "  fc.bias: (10,) in the network, nothing in the file",
        "  head.bias: nothing in the network, (10,) in the file",
    ]


def test_other_files_are_refused_and_run_nothing(tmp_path):
    torch.save(SimpleCNN(), tmp_path / "module.pth")  # a pickled class, not its weights
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    for name, message in [
        ("module", "module.pth"),
        ("other", "no state_dict"),
        ("none", "it is no file"),
    ]:
        with pytest.raises(UserError, match=message):
            start(tmp_path, "model=cnn", f"init_from={tmp_path}/{name}.pth")

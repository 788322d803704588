import pytest
import torch

import experiments
from experiments.errors import UserError
from experiments.nets import MLP
from experiments.runs.state_dicts import load_initial_weights
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
    small = ("model.net.hidden_features=[4]", *QUIET, "test=false")
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
    weights, fc = NeuralNetwork().state_dict(), "linear_relu_stack.4"
    weights[f"{fc}.weight"] = weights[f"{fc}.weight"][:, :9]
    weights["head.bias"] = weights.pop(f"{fc}.bias")
    torch.save(weights, tmp_path / "model.pth")
    with pytest.raises(UserError) as raised:
        start(tmp_path, f"init_from={tmp_path}/model.pth")
    assert str(raised.value).splitlines() == [
        f"the weights in init_from={tmp_path}/model.pth do not fit MLP:",
        f"  {fc}.weight: (10, 512) in the network, (10, 9) in the file",
        f"  {fc}.bias: (10,) in the network, nothing in the file",
        "  head.bias: nothing in the network, (10,) in the file",
        "  init_from_strict=false takes what fits, and leaves the rest as it is",
    ]


@pytest.mark.parametrize("prefix", ["", "net.", "module.", "model.", "_orig_mod.", "module._orig_mod.", "model.net."])
@pytest.mark.parametrize("kept", ["pth", "ckpt", "safetensors"])
def test_names_may_have_what_wrappers_put_before_them(tmp_path, prefix, kept):
    truth = NeuralNetwork()
    weights = {f"{prefix}{name}": value for name, value in truth.state_dict().items()}
    path = tmp_path / f"model.{kept}"
    if kept == "safetensors":
        pytest.importorskip("safetensors.torch").save_file(weights, path)
    else:
        torch.save({"state_dict": weights, "epoch": 1} if kept == "ckpt" else weights, path)
    net = MLP()
    load_initial_weights(net, path)
    assert equal(net, truth)


def test_weights_that_half_fit_are_taken_and_the_others_named(tmp_path, caplog):
    truth, other = MLP(num_classes=10), MLP(num_classes=3)
    torch.save(truth.state_dict(), tmp_path / "model.pth")
    head = "linear_relu_stack.4"
    before = other.state_dict()[f"{head}.weight"].clone()
    load_initial_weights(other, tmp_path / "model.pth", strict=False)
    assert other.state_dict()[f"{head}.weight"].equal(before)
    for name, value in other.state_dict().items():
        if not name.startswith(head):
            assert value.equal(truth.state_dict()[name]), name
    assert "4 of 6 tensors of the network are taken; left out:" in caplog.text
    assert f"{head}.weight: (3, 512) in the network, (10, 512) in the file" in caplog.text
    torch.save({"else": torch.ones(3)}, tmp_path / "else.pth")
    with pytest.raises(UserError, match="nothing in it fits"):
        load_initial_weights(other, tmp_path / "else.pth", strict=False)


def test_a_safetensors_file_that_is_damaged_is_named(tmp_path):
    pytest.importorskip("safetensors")
    (tmp_path / "model.safetensors").write_bytes(b"not what it says")
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read: "):
        load_initial_weights(MLP(), tmp_path / "model.safetensors")


def test_a_run_starts_from_half_of_a_file_where_it_may(tmp_path):
    torch.save(MLP(num_classes=3).state_dict(), tmp_path / "model.pth")
    typed = (f"init_from={tmp_path}/model.pth",)
    with pytest.raises(UserError, match="init_from_strict=false takes what fits"):
        start(tmp_path, *typed)
    taken = start(tmp_path, *typed, "init_from_strict=false").state_dict()
    stored = torch.load(tmp_path / "model.pth")
    assert [name for name, value in taken.items() if not value.equal(stored[name])] == [
        "linear_relu_stack.4.weight",
        "linear_relu_stack.4.bias",
    ]


def test_other_files_are_refused_and_run_nothing(tmp_path):
    torch.save(NeuralNetwork(), tmp_path / "module.pth")  # a pickled class, not its weights
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    for name, message in [
        ("module", "module.pth"),
        ("other", "no state_dict"),
        ("none", "it is no file"),
    ]:
        with pytest.raises(UserError, match=message):
            start(tmp_path, f"init_from={tmp_path}/{name}.pth")

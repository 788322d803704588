import logging

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.graph_pb2 import GraphDef
from torch import nn

import experiments
from experiments.training.build import build


class Fickle(nn.Module):
    """A network that no tracer follows."""

    def __init__(self, num_classes: int, in_features: int):
        super().__init__()
        self.fc = nn.Linear(in_features, num_classes)

    def forward(self, images):
        if torch.jit.is_tracing():
            raise ValueError("I am not to be traced")
        return self.fc(images.flatten(1))


def fitted(folder, *overrides):
    config = experiments.compose(
        "trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1", "callbacks=default",
        "trainer.accelerator=cpu", f"run_dir={folder}", *overrides,
    )  # fmt: skip
    torch.manual_seed(0)
    experiment = build(config)
    experiment.trainer.fit(experiment.classifier, datamodule=experiment.data)
    return experiment, EventAccumulator(str(folder)).Reload()


@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet", "rnn", "attention"])
def test_every_network_has_a_graph(model, tmp_path):
    experiment, events = fitted(tmp_path, f"model={model}")
    names = [node.name for node in GraphDef.FromString(events.Graph().SerializeToString()).node]
    for name, module in experiment.classifier.net.named_children():
        if next(module.parameters(), None) is not None:  # dropout does nothing here
            assert any(f"[{name}]" in each for each in names), name


@pytest.mark.filterwarnings("error:.*torch.jit")
def test_drawing_it_changes_neither_weights_nor_modes_nor_chance(tmp_path):
    options = ("model.net.dropout=0.5", "model.net.norm=batch")
    with_graph, _ = fitted(tmp_path / "with", *options)
    without, events = fitted(tmp_path / "without", *options, "callbacks.graph=null")
    assert not events.Tags()["graph"]
    for name, value in without.classifier.state_dict().items():
        assert value.equal(with_graph.classifier.state_dict()[name]), name
    modes = {name: module.training for name, module in without.classifier.named_modules()}
    assert modes == {name: module.training for name, module in with_graph.classifier.named_modules()}


def test_a_network_that_cannot_be_traced_trains_without_it(tmp_path, caplog, capsys):
    caplog.set_level(logging.INFO, "experiments")
    target = f"{__name__}.Fickle"
    experiment, events = fitted(tmp_path, "model=custom", f"model.net._target_={target}")
    assert experiment.trainer.global_step == 1
    assert not events.Tags()["graph"]
    assert "shows no graph, for Fickle cannot be traced: I am not to be traced" in caplog.text
    assert "Error occurs" not in capsys.readouterr().out


def test_a_network_without_an_example_has_none(tmp_path):
    config = experiments.compose("trainer.max_epochs=1", "trainer.limit_train_batches=1", f"run_dir={tmp_path}")
    experiment = build(config)
    experiment.classifier.example_input_array = None
    experiment.trainer.fit(experiment.classifier, datamodule=experiment.data)
    assert not EventAccumulator(str(tmp_path)).Reload().Tags()["graph"]

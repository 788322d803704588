"""The networks against the tutorial's own: an independent copy of each class, its print-out, names and shapes."""

import inspect
import pkgutil

import pytest
import torch

from experiments.config.compose import compose
from experiments.config.installation import CONF
from experiments.data import Digits
from experiments.nets import CNN, MLP, ResNet
from experiments.training.build import facts, filled, make
from tests.tutorial import NetWithResBlock, NeuralNetwork, SimpleCNN

MLP_PRINT = """\
  (flatten): Flatten(start_dim=1, end_dim=-1)
  (linear_relu_stack): Sequential(
    (0): Linear(in_features=784, out_features=512, bias=True)
    (1): ReLU()
    (2): Linear(in_features=512, out_features=512, bias=True)
    (3): ReLU()
    (4): Linear(in_features=512, out_features=10, bias=True)
  )
)"""

PAIRS = [
    ("mlp", MLP, NeuralNetwork, 669_706),
    ("cnn", CNN, SimpleCNN, 50_186),
    ("resnet", ResNet, NetWithResBlock, 5_034),
]


def from_conf(choice):
    """The network that `model=<choice>` builds with no override."""
    return make(filled(compose(f"model={choice}")["model"]["net"], Digits()))


def test_printed_structure_of_the_mlp_is_the_tutorials_listing():
    assert str(from_conf("mlp")).split("\n", 1) == ["MLP(", MLP_PRINT]


@pytest.mark.parametrize(("choice", "ours", "tutorials", "count"), PAIRS)
class TestDefaults:
    def test_structure_names_shapes_and_count(self, choice, ours, tutorials, count):
        net, truth = from_conf(choice), tutorials()
        printed = str(truth).replace("TutorialBlock", "ResBlock").split("\n", 1)[1]
        assert str(net).split("\n", 1)[1] == printed
        shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
        assert list(shapes.items()) == [(name, tuple(value.shape)) for name, value in truth.state_dict().items()]
        assert sum(parameter.numel() for parameter in net.parameters()) == count

    @pytest.mark.parametrize("training", [True, False])
    def test_weights_load_strictly_and_logits_are_equal(self, choice, ours, tutorials, count, training):
        torch.manual_seed(0)
        net, truth, images = from_conf(choice), tutorials(), torch.randn(8, 1, 28, 28)
        truth(images)  # moves running statistics away from their start
        net.load_state_dict(truth.state_dict(), strict=True)
        net.train(training)
        truth.train(training)
        assert torch.equal(net(images), truth(images))
        truth.load_state_dict(net.state_dict(), strict=True)

    def test_every_parameter_gets_a_gradient(self, choice, ours, tutorials, count):
        net = from_conf(choice)
        net(torch.randn(4, 1, 28, 28)).logsumexp(1).sum().backward()
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("choice", [path.stem for path in sorted((CONF / "model").glob("*.yaml"))])
def test_yaml_and_constructor_have_the_same_defaults(choice):
    if choice == "custom":
        pytest.skip("names no network")
    stated = {name: value for name, value in compose(f"model={choice}")["model"]["net"].items() if value is not None}
    ours = pkgutil.resolve_name(stated.pop("_target_"))
    defaults = {
        name: p.default for name, p in inspect.signature(ours).parameters.items() if p.kind is not p.VAR_KEYWORD
    }
    from_data = facts(Digits())
    assert set(defaults) - set(stated) == {name for name in defaults if name in from_data}
    for name, value in stated.items():
        assert (tuple(value) if isinstance(value, list) else value) == defaults[name], name


@pytest.mark.parametrize(("choice", "count"), [("rnn", 82_186), ("attention", 71_946)])
def test_the_count_that_a_yaml_states_is_the_networks(choice, count):
    assert sum(parameter.numel() for parameter in from_conf(choice).parameters()) == count
    assert f"{count:,} parameters" in (CONF / "model" / f"{choice}.yaml").read_text()

import pytest
import torch

from experiments.learning.metrics import predictions_of
from experiments.nets import MLP, Ensemble


def test_it_gives_the_logarithm_of_the_mean_probabilities():
    nets = [MLP(hidden_features=[8]) for _ in range(3)]
    images = torch.randn(5, 1, 28, 28)
    mean = torch.stack([net(images).softmax(1) for net in nets]).mean(0)
    torch.testing.assert_close(Ensemble(nets)(images).exp(), mean)


@pytest.mark.parametrize("outputs", ["classes", "labels", "values", "mask"])
def test_each_kind_of_outputs_is_averaged_as_it_is_read(outputs):
    convolutions = [torch.nn.Conv2d(1, 3, 3) for _ in range(3)]
    nets = convolutions if outputs == "mask" else [MLP(hidden_features=[8]) for _ in range(3)]
    images = torch.randn(5, 1, 28, 28)
    mean = torch.stack([predictions_of(net(images), outputs) for net in nets]).mean(0)
    torch.testing.assert_close(predictions_of(Ensemble(nets, outputs)(images), outputs), mean)


def test_labels_that_networks_are_certain_of_stay_certain():
    certain = torch.nn.Identity()
    logits = torch.tensor([[30.0, -30.0, 500.0]])
    torch.testing.assert_close(Ensemble([certain, certain], "labels")(logits), logits)


def test_it_stays_finite_where_networks_are_certain():
    certain = torch.nn.Linear(2, 2, bias=False)
    torch.nn.init.eye_(certain.weight)
    logits = Ensemble([certain, certain])(torch.tensor([[1000.0, -1000.0]]))
    torch.testing.assert_close(logits, torch.tensor([[0.0, -2000.0]]))


def test_networks_in_bf16_are_averaged_in_32_bits():
    nets = [MLP(hidden_features=[8]) for _ in range(3)]
    images = torch.randn(5, 1, 28, 28)
    with torch.autocast("cpu", torch.bfloat16):
        logits = Ensemble(nets)(images)
        mean = torch.stack([net(images).float().softmax(1) for net in nets]).mean(0)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.exp(), mean)


def test_none_is_refused():
    with pytest.raises(ValueError, match="at least one network"):
        Ensemble([])

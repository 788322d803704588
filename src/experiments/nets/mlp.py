"""The tutorial's three-layer MLP."""

from collections.abc import Sequence

from torch import Tensor, nn

from experiments.errors import ranges
from experiments.nets.layers import activation_layer, dropout_layer, linear_norm, stack


class MLP(nn.Module):
    """A multilayer perceptron on flattened images (tutorial, ``NeuralNetwork``): 669,706 parameters by default.

    Input (batch, *shape) with ``in_features`` values a sample, output logits (batch, num_classes). Behind every
    hidden layer stand normalisation, activation and dropout, in this order, where asked for.
    """

    cuda_graph_safe = True

    @ranges(
        in_features="whole, >= 1",
        num_classes="whole, >= 1",
        hidden_features="list, whole, >= 1",
        dropout=">= 0, < 1",
    )
    def __init__(
        self,
        in_features: int = 784,
        num_classes: int = 10,
        hidden_features: Sequence[int] = (512, 512),
        activation: str = "ReLU",
        norm: str = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = in_features
        for after in hidden_features:
            layers += [
                nn.Linear(before, after),
                linear_norm(norm, after),
                activation_layer(activation),
                dropout_layer(dropout),
            ]
            before = after
        self.flatten = nn.Flatten()
        self.linear_relu_stack = stack([*layers, nn.Linear(before, num_classes)])

    def forward(self, x: Tensor) -> Tensor:
        """(batch, *shape) -> logits (batch, num_classes)."""
        return self.linear_relu_stack(self.flatten(x))

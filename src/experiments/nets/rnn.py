"""A recurrent network that reads an image row by row."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from experiments.errors import ranges
from experiments.nets.layers import dropout_layer, grid_size

CELLS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"LSTM": nn.LSTM, "GRU": nn.GRU}


class RNN(nn.Module):
    """LSTM or GRU over image rows; the last layer's final hidden state goes to one linear layer.

    Input (batch, in_channels, height, width), read as ``height`` steps of ``in_channels · width`` features; output
    logits (batch, num_classes). Dropout acts between recurrent layers and before the linear layer.
    """

    cuda_graph_safe = True

    @ranges(
        in_channels="whole, >= 1",
        image_size="list or one, whole, >= 1",
        num_classes="whole, >= 1",
        cell=("LSTM", "GRU"),
        hidden_features="whole, >= 1",
        num_layers="whole, >= 1",
        dropout=">= 0, < 1",
    )
    def __init__(
        self,
        in_channels: int = 1,
        image_size: int | Sequence[int] = 28,
        num_classes: int = 10,
        cell: str = "LSTM",
        hidden_features: int = 128,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _, width = grid_size(image_size, 2)
        self.directions = 2 if bidirectional else 1
        self.dropout = dropout_layer(dropout)
        self.recurrent = CELLS[cell](
            in_channels * width,
            hidden_features,
            num_layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if num_layers > 1 else 0.0,
        )
        self.fc = nn.Linear(self.directions * hidden_features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, height, width) -> logits (batch, num_classes)."""
        rows = x.transpose(1, 2).flatten(2)  # (batch, height, in_channels · width)
        _, hidden = self.recurrent(rows)
        if isinstance(hidden, tuple):  # an LSTM returns its hidden and its cell state
            hidden = hidden[0]
        # (layers · directions, batch, hidden) -> the last layer's states, side by side
        final = torch.cat(tuple(hidden[-self.directions :]), dim=1)
        return self.fc(self.dropout(final))

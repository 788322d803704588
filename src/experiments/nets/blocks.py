"""Submodules that are written once and nest anywhere (tutorial, "custom submodules")."""

from torch import Tensor, nn
from torch.nn import functional as F

from experiments.errors import ranges
from experiments.nets.layers import CONV, activation_layer, conv_norm, dropout_layer


class ResBlock(nn.Module):
    """Two convolutions whose input is added before the last activation (tutorial, "residual block").

    Input (batch, in_channels, *size), output (batch, out_channels, *size / stride). Where the two differ, a 1×1
    convolution brings the input to the output's shape (He et al. 2015, arXiv 1512.03385, option B). Dropout acts
    between the convolutions (Zagoruyko & Komodakis 2016, arXiv 1605.07146).
    """

    same_in_every_step = True

    @ranges(
        in_channels="whole, >= 1",
        out_channels="whole, >= 1",
        stride="whole, >= 1",
        kernel_size="whole, odd, >= 1",
        dropout=">= 0, < 1",
        spatial_dims=(1, 2, 3),
    )
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        kernel_size: int = 3,
        activation: str = "ReLU",
        norm: str = "batch",
        dropout: float = 0.0,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        conv, padding = CONV[spatial_dims], kernel_size // 2
        self.conv1 = conv(in_channels, out_channels, kernel_size, stride=stride, padding=padding)
        self.bn1 = conv_norm(norm, out_channels, spatial_dims)
        self.relu = activation_layer(activation)
        self.conv2 = conv(out_channels, out_channels, kernel_size, padding=padding)
        self.bn2 = conv_norm(norm, out_channels, spatial_dims)
        self.dropout_p = dropout
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = conv(in_channels, out_channels, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, *size) -> (batch, out_channels, *size / stride)."""
        identity = x if self.shortcut is None else self.shortcut(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = F.dropout(out, self.dropout_p, self.training)
        out = self.bn2(self.conv2(out))
        return self.relu(out + identity)


class AttentionBlock(nn.Module):
    """Self-attention and a two-layer MLP, each normalised before and added to its input.

    Input and output (batch, tokens, embed_dim). The pre-norm transformer block of Dosovitskiy et al. 2020 (arXiv
    2010.11929), on torch's ``scaled_dot_product_attention``.
    """

    same_in_every_step = True

    @ranges(embed_dim="whole, >= 1", num_heads="whole, >= 1", mlp_ratio="> 0", dropout=">= 0, < 1")
    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        mlp_ratio: float = 2.0,
        activation: str = "GELU",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim={embed_dim} must be a multiple of num_heads={num_heads}")
        hidden = int(embed_dim * mlp_ratio)
        if hidden < 1:
            raise ValueError(f"mlp_ratio={mlp_ratio!r} leaves no hidden feature: embed_dim × mlp_ratio must reach 1")
        self.num_heads = num_heads
        self.dropout_p = dropout
        self.norm1 = nn.LayerNorm(embed_dim)
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.projection = nn.Linear(embed_dim, embed_dim)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.mlp = nn.Sequential(
            nn.Linear(embed_dim, hidden), activation_layer(activation), nn.Linear(hidden, embed_dim)
        )
        self.residual_dropout = dropout_layer(dropout)

    def attend(self, x: Tensor) -> Tensor:
        """Multi-head self-attention: (batch, tokens, embed_dim) -> the same."""
        batch, tokens, embed_dim = x.shape
        # (batch, tokens, 3 · embed_dim) -> 3 × (batch, heads, tokens, embed_dim / heads)
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, embed_dim // self.num_heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=self.dropout_p if self.training else 0.0)
        return self.projection(mixed.transpose(1, 2).reshape(batch, tokens, embed_dim))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, embed_dim) -> the same."""
        x = x + self.residual_dropout(self.attend(self.norm1(x)))
        return x + self.residual_dropout(self.mlp(self.norm2(x)))

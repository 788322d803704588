"""A small vision transformer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.errors import ranges
from experiments.nets.layers import activation_layer, dropout_layer, grid_size


class AttentionBlock(nn.Module):
    """Self-attention and a two-layer MLP, each normalised before and added to its input.

    Input and output (batch, tokens, embed_dim). The pre-norm transformer block of Dosovitskiy et al. 2020 (arXiv
    2010.11929), on torch's ``scaled_dot_product_attention``.
    """

    cuda_graph_safe = True

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


class VisionTransformer(nn.Module):
    """Image patches as tokens through attention blocks, averaged, to one linear layer.

    Input (batch, in_channels, height, width), output logits (batch, num_classes). Patches are embedded by one
    convolution and get a learned position; the mean over tokens stands for the class token (Dosovitskiy et al.
    2020, arXiv 2010.11929; Beyer et al. 2022, arXiv 2205.01580). Sides that ``patch_size`` does not divide lose
    their remainder.
    """

    cuda_graph_safe = True

    @ranges(
        in_channels="whole, >= 1",
        image_size="list or one, whole, >= 1",
        num_classes="whole, >= 1",
        patch_size="whole, >= 1",
        embed_dim="whole, >= 1",
        depth="whole, >= 1",
        num_heads="whole, >= 1",
        mlp_ratio="> 0",
        dropout=">= 0, < 1",
    )
    def __init__(
        self,
        in_channels: int = 1,
        image_size: int | Sequence[int] = 28,
        num_classes: int = 10,
        patch_size: int = 4,
        embed_dim: int = 64,
        depth: int = 2,
        num_heads: int = 4,
        mlp_ratio: float = 2.0,
        activation: str = "GELU",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        height, width = grid_size(image_size, 2)
        tokens = (height // patch_size) * (width // patch_size)
        if tokens < 1:
            raise ValueError(f"patch_size={patch_size} must not exceed the image's sides, {height} and {width}")
        self.patches = nn.Conv2d(in_channels, embed_dim, patch_size, stride=patch_size)
        self.position = nn.Parameter(torch.randn(1, tokens, embed_dim) * 0.02)
        self.dropout = dropout_layer(dropout)
        self.blocks = nn.Sequential(
            *(AttentionBlock(embed_dim, num_heads, mlp_ratio, activation, dropout) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.fc = nn.Linear(embed_dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, height, width) -> logits (batch, num_classes)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)  # (batch, tokens, embed_dim)
        tokens = self.blocks(self.dropout(tokens + self.position))
        return self.fc(self.norm(tokens).mean(1))

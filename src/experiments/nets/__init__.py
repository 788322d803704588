"""Plain ``nn.Module`` networks that need torch and nothing else."""

from experiments.nets.attention import AttentionBlock, VisionTransformer
from experiments.nets.cnn import CNN
from experiments.nets.ensemble import Ensemble
from experiments.nets.mlp import MLP
from experiments.nets.resnet import ResBlock, ResNet
from experiments.nets.rnn import RNN
from experiments.nets.timm_networks import pretrained

__all__ = ["CNN", "MLP", "RNN", "AttentionBlock", "Ensemble", "ResBlock", "ResNet", "VisionTransformer", "pretrained"]

"""What a training step learns: the LightningModule, losses, metrics, optimizers, schedulers."""

from experiments.learning.classifier import Classifier
from experiments.learning.losses import FocalLoss, WeightedCrossEntropy
from experiments.learning.optimizers import MuonAdamW
from experiments.learning.schedulers import WarmupCosine

__all__ = ["Classifier", "FocalLoss", "MuonAdamW", "WarmupCosine", "WeightedCrossEntropy"]

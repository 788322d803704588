"""What may change, guard or end training."""

from experiments.callbacks.averaging import AveragedWeights
from experiments.callbacks.finite_loss import FiniteLoss
from experiments.callbacks.history import MetricHistory
from experiments.callbacks.progress import Progress
from experiments.callbacks.pruning import Pruning
from experiments.callbacks.rolling_checkpoint import RollingCheckpoint
from experiments.callbacks.throughput import Throughput

__all__ = [
    "AveragedWeights",
    "FiniteLoss",
    "MetricHistory",
    "Progress",
    "Pruning",
    "RollingCheckpoint",
    "Throughput",
]

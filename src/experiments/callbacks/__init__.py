"""What happens beside training."""

from experiments.callbacks.averaging import AveragedWeights
from experiments.callbacks.finite import FiniteLoss
from experiments.callbacks.pictures import AugmentedImages
from experiments.callbacks.progress import Progress
from experiments.callbacks.pruning import Pruning
from experiments.callbacks.rolling import RollingCheckpoint
from experiments.callbacks.stopwatch import Stopwatch

__all__ = [
    "AugmentedImages",
    "AveragedWeights",
    "FiniteLoss",
    "Progress",
    "Pruning",
    "RollingCheckpoint",
    "Stopwatch",
]

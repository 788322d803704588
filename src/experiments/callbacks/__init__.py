"""What happens beside training."""

from experiments.callbacks.averaging import AveragedWeights
from experiments.callbacks.progress import Progress

__all__ = ["AveragedWeights", "Progress"]

"""What happens beside training."""

from experiments.callbacks.averaging import AveragedWeights
from experiments.callbacks.confusion import Confusion, PRCurves
from experiments.callbacks.curves import EpochSeconds, GradientNorm, Histograms, Layout, LearningRate
from experiments.callbacks.finite import FiniteLoss
from experiments.callbacks.graph import Graph
from experiments.callbacks.history import History
from experiments.callbacks.mistakes import Mistakes
from experiments.callbacks.pictures import AugmentedImages
from experiments.callbacks.progress import Progress
from experiments.callbacks.pruning import Pruning
from experiments.callbacks.report import Report
from experiments.callbacks.rolling import RollingCheckpoint
from experiments.callbacks.stopwatch import Stopwatch

__all__ = [
    "AugmentedImages",
    "AveragedWeights",
    "Confusion",
    "EpochSeconds",
    "FiniteLoss",
    "GradientNorm",
    "Graph",
    "Histograms",
    "History",
    "Layout",
    "LearningRate",
    "Mistakes",
    "PRCurves",
    "Progress",
    "Pruning",
    "Report",
    "RollingCheckpoint",
    "Stopwatch",
]

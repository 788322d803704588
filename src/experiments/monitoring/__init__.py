"""What shows a run: loggers, pictures for TensorBoard, the report."""

from experiments.monitoring.augmented_images import AugmentedImages
from experiments.monitoring.confusion import Confusion, PRCurves
from experiments.monitoring.curves import EpochSeconds, GradientNorm, Histograms, Layout, LearningRate
from experiments.monitoring.graph import Graph
from experiments.monitoring.loggers import TensorBoardLogger
from experiments.monitoring.report import Report
from experiments.monitoring.worst_predictions import WorstPredictions

__all__ = [
    "AugmentedImages",
    "Confusion",
    "EpochSeconds",
    "GradientNorm",
    "Graph",
    "Histograms",
    "Layout",
    "LearningRate",
    "PRCurves",
    "Report",
    "TensorBoardLogger",
    "WorstPredictions",
]

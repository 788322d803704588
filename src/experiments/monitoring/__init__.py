"""What shows a run: loggers, pictures for TensorBoard, the report."""

from experiments.monitoring.augmented_images import AugmentedImages as AugmentedImages
from experiments.monitoring.confusion import Confusion as Confusion
from experiments.monitoring.confusion import PRCurves as PRCurves
from experiments.monitoring.curves import EpochSeconds as EpochSeconds
from experiments.monitoring.curves import GradientNorm as GradientNorm
from experiments.monitoring.curves import Histograms as Histograms
from experiments.monitoring.curves import Layout as Layout
from experiments.monitoring.curves import LearningRate as LearningRate
from experiments.monitoring.graph import Graph as Graph
from experiments.monitoring.loggers.trackers import MLFlowLogger as MLFlowLogger
from experiments.monitoring.loggers.trackers import TensorBoardLogger as TensorBoardLogger
from experiments.monitoring.loggers.trackers import WandbLogger as WandbLogger
from experiments.monitoring.model_summary import ModelSummary as ModelSummary
from experiments.monitoring.report import Report as Report
from experiments.monitoring.worst_predictions import WorstPredictions as WorstPredictions

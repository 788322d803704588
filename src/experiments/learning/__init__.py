"""What a training step learns: the LightningModule, losses, metrics, optimizers, schedulers."""

from experiments.learning.classifier import Classifier as Classifier
from experiments.learning.losses import FocalLoss as FocalLoss
from experiments.learning.losses import WeightedCrossEntropy as WeightedCrossEntropy
from experiments.learning.optimizers import MuonAdamW as MuonAdamW
from experiments.learning.param_groups import ParamGroup as ParamGroup
from experiments.learning.schedulers import WarmupCosine as WarmupCosine
from experiments.learning.task import Task as Task

"""What may change, guard or end training."""

from experiments.callbacks.averaging import AveragedWeights as AveragedWeights
from experiments.callbacks.finite_loss import FiniteLoss as FiniteLoss
from experiments.callbacks.freezing import Freeze as Freeze
from experiments.callbacks.history import MetricHistory as MetricHistory
from experiments.callbacks.monitored import Monitored as Monitored
from experiments.callbacks.progress import Progress as Progress
from experiments.callbacks.pruning import Pruning as Pruning
from experiments.callbacks.rolling_checkpoint import RollingCheckpoint as RollingCheckpoint
from experiments.callbacks.throughput import Throughput as Throughput

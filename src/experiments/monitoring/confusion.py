"""Which classes are taken for which, and how well each is told from the others."""

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from experiments.errors import ranges
from experiments.monitoring import drawing
from experiments.monitoring.loggers.log import log_picture, take_pictures
from experiments.monitoring.prediction_watcher import PredictionWatcher, probabilities, sum_over_ranks


class Confusion(PredictionWatcher):
    """Draws the confusion matrix, as counts and as rates of the true class, and each class's precision and recall.

    ``matrices``: for ``val`` and ``test``, int64 (num_classes, num_classes): true class, predicted class.
    """

    def __init__(self) -> None:
        super().__init__()
        self.matrices: dict[str, Tensor] = {}
        self._counts = torch.zeros(0)

    def reset(self, pl_module: LightningModule, image_shape: tuple[int, ...]) -> None:
        """Zeros."""
        size = len(self.class_names)
        self._counts = torch.zeros(size, size, dtype=torch.int64, device=pl_module.device)

    def update(self, images: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count true and predicted classes; what is labelled with no class counts nothing."""
        size = len(self._counts)
        known = (labels >= 0) & (labels < size)
        where = labels[known] * size + logits.argmax(1)[known]
        self._counts += torch.bincount(where, minlength=size * size).view_as(self._counts)

    def reduce(self, trainer: Trainer, stage: str) -> None:
        """Sum over ranks."""
        self.matrices[stage] = sum_over_ranks(trainer, self._counts)

    def show(self, trainer: Trainer, stage: str) -> None:
        """``confusion_<stage>/counts`` and ``/rates``, ``precision_recall_<stage>``."""
        if stage not in self.matrices or not take_pictures(trainer.loggers):
            return
        matrix, names = self.matrices[stage].numpy(), self.class_names
        for kind in ("counts", "rates"):
            picture = drawing.confusion_matrix(matrix, names, rates=kind == "rates")
            log_picture(trainer.loggers, f"confusion_{stage}/{kind}", picture, trainer.global_step)
        picture = drawing.precision_and_recall(matrix, names)
        log_picture(trainer.loggers, f"precision_recall/{stage}", picture, trainer.global_step)


class PRCurves(PredictionWatcher):
    """Shows TensorBoard precision against recall: of all classes together, and of each where they are few enough."""

    @ranges(max_classes="whole, >= 0", num_thresholds="whole, >= 2")
    def __init__(self, max_classes: int = 20, num_thresholds: int = 127) -> None:
        super().__init__()
        self.max_classes = max_classes
        self.num_thresholds = num_thresholds
        self.counts: dict[str, Tensor] = {}
        self._counts = torch.zeros(0)

    def reset(self, pl_module: LightningModule, image_shape: tuple[int, ...]) -> None:
        """Zeros: (not this class, this class) by class by probability."""
        shape = (2, len(self.class_names), self.num_thresholds)
        self._counts = torch.zeros(shape, dtype=torch.int64, device=pl_module.device)

    def update(self, images: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count each class's probability on each image, by whether the image is of that class."""
        classes = torch.arange(len(self.class_names), device=logits.device)
        step = (probabilities(logits) * (self.num_thresholds - 1)).long()
        own = (labels[:, None] == classes).long()
        where = (own * len(classes) + classes) * self.num_thresholds + step
        # far faster than index_put_, which adds one by one
        self._counts += torch.bincount(where.flatten(), minlength=self._counts.numel()).view_as(self._counts)

    def reduce(self, trainer: Trainer, stage: str) -> None:
        """Sum over ranks."""
        self.counts[stage] = sum_over_ranks(trainer, self._counts)

    def show(self, trainer: Trainer, stage: str) -> None:
        """``pr_<stage>/all`` and ``pr_<stage>/<class>``."""
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if stage not in self.counts or not loggers:
            return
        counts = self.counts[stage]
        curves = {"all": counts.sum(1)}
        if len(self.class_names) <= self.max_classes:
            curves |= {name: counts[:, number] for number, name in enumerate(self.class_names)}
        for name, (others, own) in curves.items():
            # at or above each threshold
            false, true = (values.flip(0).cumsum(0).flip(0).double() for values in (others, own))
            for logger in loggers:
                logger.experiment.add_pr_curve_raw(
                    f"pr_{stage}/{name}",
                    true.numpy(),
                    false.numpy(),
                    (false[0] - false).numpy(),
                    (true[0] - true).numpy(),
                    (true / (true + false).clamp(min=1)).numpy(),
                    (true / true[0].clamp(min=1)).numpy(),
                    trainer.global_step,
                    self.num_thresholds,
                )

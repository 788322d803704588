"""Report a trial's values to its study, and end the trial where the study prunes it."""

import math
from collections.abc import Callable

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from experiments.errors import UserError


class Pruning(Callback):
    """Reports ``metric`` after every validation and stops the run when ``report`` says that it is to be pruned.

    Args:
        report: takes a value and the number of validations so far; on the first rank alone.
        metric: the name of what is logged, such as ``val/accuracy``.
        direction: ``maximize`` or ``minimize``: what makes a value the ``best`` of the run.
    """

    def __init__(self, report: Callable[[float, int], bool], metric: str, direction: str) -> None:
        self.report = report
        self.metric = metric
        self.better = max if direction == "maximize" else min
        self.best: float | None = None
        self.pruned = False
        self._validations = 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, and stop if told so."""
        if trainer.sanity_checking:
            return
        if self.metric not in trainer.callback_metrics:
            known = ", ".join(sorted(name for name in trainer.callback_metrics if name.startswith("val/")))
            raise UserError(f"hydra.sweeper.metric={self.metric} is not logged; validation logs {known}")
        value = float(trainer.callback_metrics[self.metric])
        self._validations += 1
        if not math.isnan(value):
            self.best = value if self.best is None else self.better(self.best, value)
        prune = trainer.is_global_zero and self.report(value, self._validations) and not _is_last(trainer)
        if trainer.world_size > 1:
            prune = trainer.strategy.broadcast(prune)
        if prune:
            self.pruned = trainer.should_stop = True


def _is_last(trainer: Trainer) -> bool:
    """Whether the run ends with this validation anyway."""
    if 0 <= trainer.max_steps <= trainer.global_step:
        return True
    return trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs

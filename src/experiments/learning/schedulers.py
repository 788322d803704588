"""Learning-rate schedules that torch does not have as one class, and how many steps a schedule plans for."""

import inspect
import logging
import math
from collections.abc import Callable
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Timer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from experiments.data.batches import steps_per_epoch
from experiments.errors import UserError, ranges

log = logging.getLogger(__name__)


class WarmupCosine(LRScheduler):
    """Linear warm-up from 0, then half a cosine down to ``final_factor`` of the learning rate.

    The first ``warmup`` part of ``total_steps`` warms up (Loshchilov & Hutter 2017, arXiv 1608.03983, without
    restarts; Goyal et al. 2017, arXiv 1706.02677, for the warm-up).

    Raises:
        ValueError: if ``warmup`` or ``final_factor`` is outside [0, 1).
    """

    @ranges(warmup=">= 0, < 1", final_factor=">= 0, < 1")
    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup: float = 0.05,
        final_factor: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        self.total_steps = total_steps
        self.warmup_steps = round(warmup * total_steps)
        self.final_factor = final_factor
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:  # type: ignore[override]  # torch allows tensors too
        """The learning rate of each parameter group for the step to come."""
        step = self.last_epoch
        if step < self.warmup_steps:
            factor = (step + 1) / (self.warmup_steps + 1)
        else:
            done = min(1.0, (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps))
            factor = self.final_factor + (1 - self.final_factor) * (1 + math.cos(math.pi * done)) / 2
        return [float(base) * factor for base in self.base_lrs]


def planned_schedule(
    make: Callable[..., LRScheduler], optimizer: Optimizer, trainer: Trainer, monitor: str
) -> dict[str, Any]:
    """A schedule with what it takes of the run, in the form that Lightning expects.

    One that takes ``total_steps`` advances every optimizer step, any other every epoch.

    Raises:
        UserError: if it refuses its arguments, or needs an end that the run does not have.
    """
    takes = inspect.signature(make).parameters
    typed = {name: value for name, value in getattr(make, "keywords", {}).items() if value}
    by_step = "total_steps" in takes
    own: dict[str, Any] = {}
    if by_step:
        asked = typed.get("total_steps") or typed.get("epochs", 0) * typed.get("steps_per_epoch", 0)
        own["total_steps"] = planned_steps(trainer, asked or None)
        if any(isinstance(callback, Timer) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            log.warning("the schedule plans %d steps; trainer.max_time may end before it", own["total_steps"])
    if "max_lr" in takes and "max_lr" not in typed:
        own["max_lr"] = [group["lr"] for group in optimizer.param_groups]
    factors = [group.get("lr_factor", 1.0) for group in optimizer.param_groups]
    for name in {"max_lr", "base_lr"} & typed.keys():  # torch would give all groups the same rate
        if type(typed[name]) in (int, float):
            own[name] = [typed[name] * factor for factor in factors]
    try:
        schedule = make(optimizer, **own)
    except (TypeError, ValueError) as error:
        raise UserError(f"the scheduler refuses its arguments: {error}") from error
    plan: dict[str, Any] = {"scheduler": schedule, "interval": "step" if by_step else "epoch"}
    if isinstance(schedule, ReduceLROnPlateau):
        plan |= {"monitor": monitor, "frequency": trainer.check_val_every_n_epoch or 1}
    return plan


def planned_steps(trainer: Trainer, asked: int | None = None) -> int:
    """A schedule's length: how many optimizer steps a run is planned to take, or as many as were ``asked`` for.

    Raises:
        UserError: if the run has no end, or goes on behind the schedule's.
    """
    if asked is None:
        return total_steps(trainer)
    if trainer.max_epochs != -1 and asked < (steps := total_steps(trainer)):
        raise UserError(
            f"scheduler.total_steps={asked}: the run takes {steps} steps, and the schedule must not end before it. "
            f"Leave it out, or add trainer.max_steps={asked}"
        )
    return asked


def total_steps(trainer: Trainer) -> int:
    """How many optimizer steps a run is planned to take.

    Raises:
        UserError: if it has no end.
    """
    steps = trainer.estimated_stepping_batches
    if steps == float("inf"):
        raise UserError(
            "this scheduler needs to know the number of steps: set trainer.max_epochs or trainer.max_steps, "
            "or use scheduler=constant"
        )
    per_epoch = steps_per_epoch(trainer.train_dataloader)
    if per_epoch and trainer.max_epochs != -1:  # a list of batches is one of Lightning's batches
        steps = per_epoch * max(trainer.max_epochs or 0, 1)
        steps = min(steps, trainer.max_steps) if trainer.max_steps != -1 else steps
    return int(steps)

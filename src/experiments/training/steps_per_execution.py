"""Decide how many optimizer steps Lightning handles as one batch."""

import inspect

from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    GradientAccumulationScheduler,
    ModelCheckpoint,
    ProgressBar,
    StochasticWeightAveraging,
    Timer,
    WeightAveraging,
)
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.profilers import PassThroughProfiler
from torch.optim import Optimizer

from experiments.data import ImageDataModule
from experiments.errors import UserError
from experiments.learning.classifier import Classifier
from experiments.learning.lightning_internals import saves_by_steps

BATCH_HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_before_zero_grad",
)


# Fewer, longer batches make no difference to them, or they are called after every optimizer step.
INDIFFERENT = (ModelCheckpoint, ProgressBar, Timer, WeightAveraging)


# They reach into Lightning's loop, or change what it is fed, without a hook for batches.
INTERFERING = (BatchSizeFinder, GradientAccumulationScheduler, StochasticWeightAveraging)


def steps_per_execution(
    asked: int | str, data: LightningDataModule, module: LightningModule, trainer: Trainer
) -> int | None:
    """How many optimizer steps one of Lightning's batches is; None leaves the number to the data module.

    Raises:
        UserError: if more than one was asked for, and something needs single steps.
    """
    if asked != "auto" and not (isinstance(asked, int) and asked >= 1):
        raise UserError(f"steps_per_execution={asked} must be auto, or a whole number of at least 1")
    reasons = reasons_for_single_steps(data, module, trainer)
    if asked == "auto":
        return 1 if reasons else None
    if int(asked) > 1 and reasons:
        raise UserError(
            f"steps_per_execution={asked} does not go with {', '.join(reasons)}: leave that out, or set "
            "steps_per_execution=auto"
        )
    return int(asked)


def reasons_for_single_steps(data: LightningDataModule, module: LightningModule, trainer: Trainer) -> list[str]:
    """What counts, cuts or watches single steps."""
    precision = trainer.precision_plugin
    conditions = {
        f"data={type(data).__name__}": not isinstance(data, ImageDataModule),
        f"model={type(module).__name__}": type(module) is not Classifier,
        "an optimizer that needs a closure": isinstance(module, Classifier) and _needs_closure(module),
        "more than one device": trainer.world_size > 1,
        "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches != 1,
        "trainer.limit_train_batches": not _is_all(trainer.limit_train_batches),
        "trainer.overfit_batches": trainer.overfit_batches != 0.0,  # type: ignore[attr-defined]
        "trainer.val_check_interval": not _is_all(getattr(trainer, "val_check_interval", 0)),
        "trainer.precision=16-mixed": isinstance(precision, MixedPrecision) and precision.scaler is not None,
        "trainer.profiler": not isinstance(trainer.profiler, PassThroughProfiler),  # type: ignore[attr-defined]
    }
    watchers = [f"the callback {type(one).__name__}" for one in trainer.callbacks if _watches_steps(one)]  # type: ignore[attr-defined]
    return [name for name, applies in conditions.items() if applies] + watchers


def _is_all(limit: float | None) -> bool:
    """Whether Lightning takes it for the whole epoch: 1.0 is, 1 is one batch."""
    return limit is None or (limit == 1.0 and isinstance(limit, float))


def _watches_steps(callback: Callback) -> bool:
    if vars(type(callback)).get("handles_batch_lists"):  # its class says so; a class made from it must say so again
        return False
    if isinstance(callback, INTERFERING) or (isinstance(callback, ModelCheckpoint) and saves_by_steps(callback)):
        return True
    harmless = "lightning." if isinstance(callback, INDIFFERENT) else Callback.__module__
    hooks = (getattr(callback, name) for name in BATCH_HOOKS)  # of it, not of its class: it may be made of functions
    return not all(str(hook.__module__).startswith(harmless) for hook in hooks)


def _needs_closure(module: Classifier) -> bool:
    optimizer = getattr(module.make_optimizer, "func", None)
    if not (inspect.isclass(optimizer) and issubclass(optimizer, Optimizer)):
        return False
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty

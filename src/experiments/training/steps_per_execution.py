"""Decide how many optimizer steps Lightning handles as one batch, and whether they are replayed as CUDA graphs."""

import inspect
import logging

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
from experiments.data.batches import AUTO_STEPS, AUTO_STEPS_CUDA_GRAPHS
from experiments.errors import UserError
from experiments.learning import Task
from experiments.learning.lightning_internals import saves_by_steps

log = logging.getLogger(__name__)
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


# Libraries whose networks decide nothing in Python that differs from step to step; our classes say so themselves.
CUDA_GRAPH_SAFE = ("timm", "torch", "torchvision")

# They reach into Lightning's loop, or change what it is fed, without a hook for batches.
INTERFERING = (BatchSizeFinder, GradientAccumulationScheduler, StochasticWeightAveraging)


def set_up_lists(
    steps: int | str, graphs: bool | str, data: LightningDataModule, module: LightningModule, trainer: Trainer
) -> None:
    """Tell data and module how many optimizer steps Lightning handles as one batch, and whether as CUDA graphs.

    Raises:
        UserError: if more than one was asked for, and something needs single steps.
    """
    several = steps_per_execution(steps, data, module, trainer)
    replayed = uses_cuda_graphs(graphs, several, module, trainer)
    if isinstance(data, ImageDataModule):
        data.steps_per_execution = several
        data.auto_steps = AUTO_STEPS_CUDA_GRAPHS if replayed else AUTO_STEPS
    if isinstance(module, Task):
        module.cuda_graphs = replayed


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
        f"model={type(module).__name__}": not isinstance(module, Task) or _takes_own_steps(module),
        "an optimizer that needs a closure": isinstance(module, Task) and _needs_closure(module),
        "more than one device": trainer.world_size > 1,
        "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches != 1,
        "trainer.limit_train_batches": not _is_all(trainer.limit_train_batches),
        "trainer.overfit_batches": trainer.overfit_batches != 0.0,  # type: ignore[attr-defined]
        "trainer.val_check_interval": not _is_all(trainer.val_check_interval),
        "trainer.precision=16-mixed": isinstance(precision, MixedPrecision) and precision.scaler is not None,
        "trainer.profiler": not isinstance(trainer.profiler, PassThroughProfiler),  # type: ignore[attr-defined]
    }
    watchers = [f"the callback {type(one).__name__}" for one in trainer.callbacks if _watches_steps(one)]  # type: ignore[attr-defined]
    return [name for name, applies in conditions.items() if applies] + watchers


def uses_cuda_graphs(asked: bool | str, several: int | None, module: LightningModule, trainer: Trainer) -> bool:
    """Whether the steps of a list are replayed as CUDA graphs; says why not, if that was asked for."""
    device = trainer.strategy.root_device
    if not asked or device.type != "cuda" or several == 1:
        if asked is True:
            where = f"on {device}" if device.type != "cuda" else "in single steps"
            log.info("cuda_graphs=true: there are none, since this run trains %s", where)
        return False
    assert isinstance(module, Task)  # or its steps would be single ones
    own = sorted(own_classes(module))
    if own and asked == "auto":
        log.info("%s: with cuda_graphs=true it trains faster, if it does the same in every step", ", ".join(own))
    return asked is True or not own


def own_classes(module: Task) -> set[str]:
    """Names of the classes of task, network and loss that neither come from a known library nor say that they may."""
    classes = {type(module)} | {type(part) for own in (module.net, module.loss) for part in own.modules()}
    return {
        each.__qualname__
        for each in classes
        if each.__module__.partition(".")[0] not in CUDA_GRAPH_SAFE and not vars(each).get("cuda_graph_safe")
    }


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


def _takes_own_steps(module: Task) -> bool:
    """Whether a subclass replaces hooks of Lightning's, which steps of a list are taken without."""
    above = type(module).__mro__[: type(module).__mro__.index(Task)]
    replaced = {name for each in above for name in vars(each) if not name.startswith("_")}
    return bool(replaced & (set(dir(LightningModule)) - {"forward"}))


def _needs_closure(module: Task) -> bool:
    optimizer = getattr(module.make_optimizer, "func", None)
    if not (inspect.isclass(optimizer) and issubclass(optimizer, Optimizer)):
        return False
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty

"""Take optimizer steps as Lightning does, without its hooks around them, counted as Lightning counts them."""

import logging
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch import Tensor
from torch.optim import Optimizer

from experiments.learning.cuda_graphs import StepGraphs
from experiments.learning.lightning_internals import (
    call_before_optimizer_step,
    count_logged_steps,
    count_optimizer_step,
)
from experiments.learning.metrics import at_least_32_bits
from experiments.learning.optimizers import takes_tensor_rates

if TYPE_CHECKING:
    from experiments.learning.task import Task

log = logging.getLogger(__name__)
Batch = tuple[Tensor, Tensor]
StepOutputs = tuple[Tensor, Tensor, Tensor]  # of some steps: losses (steps,), outputs and targets of all their images


def take_step(
    module: "Task", optimizer: Optimizer, batch: Batch, log_as_step: int | None = None
) -> tuple[Tensor, Tensor]:
    """Take one step, logged under a number if it is given one; return the mean loss and the outputs."""
    trainer = module.trainer
    with trainer.precision_plugin.train_step_context():
        loss, outputs = module.step(batch)
    optimizer.zero_grad()
    loss.backward()
    if log_as_step is not None:
        module.log_step(log_as_step, loss)
        # callbacks that look at gradients now and then find them here too
        call_before_optimizer_step(trainer, optimizer)
    if trainer.gradient_clip_val is not None:
        module.configure_gradient_clipping(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
    module.on_before_optimizer_step(optimizer)
    optimizer.step()
    return loss.detach(), outputs.detach()


def clip_gradients(
    module: "Task",
    optimizer: Optimizer,
    gradient_clip_val: float | None = None,
    gradient_clip_algorithm: str | None = None,
) -> None:
    """Clip as Lightning does; in bf16 also for fused optimizers, where nothing scales gradients."""
    plugin = module.trainer.precision_plugin
    if isinstance(plugin, MixedPrecision) and plugin.scaler is None:
        kind = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
        Precision.clip_gradients(plugin, optimizer, gradient_clip_val or 0, kind)
    else:
        module.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)


def merge_outputs(outputs: list[StepOutputs]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The mean loss over all images of some steps, beside their losses, outputs and targets.

    There must be two steps or more, all batches but the last one equally large.
    """
    losses, all_outputs, targets = (torch.cat(parts) for parts in zip(*outputs, strict=True))
    losses, last = at_least_32_bits(losses), len(outputs[-1][2])
    batch_size = (len(targets) - last) // (len(losses) - 1)
    total = losses[:-1].sum() * batch_size + losses[-1] * last
    return total / len(targets), losses, all_outputs, targets


def steps_until_logged(trainer: Trainer, step: int) -> int:
    """How many steps come before the next one that is logged; 0 if this one is."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return every - 1 - step % every if every > 0 else sys.maxsize


def step_graphs(module: "Task") -> StepGraphs | None:
    """What replays a module's steps on a GPU as CUDA graphs; None where it cannot.

    With ``cuda_graphs`` off it only rounds learning rates as graphs would, so that the weights are the same.
    """
    optimizer = module.optimizers(use_pl_optimizer=False)
    if module.device.type != "cuda" or not isinstance(optimizer, Optimizer):
        return None
    if not takes_tensor_rates(optimizer):
        if module.cuda_graphs:
            log.info("steps are taken without CUDA graphs: %s is not fused", type(optimizer).__name__)
        return None

    def clipping() -> Any:
        return module.trainer.gradient_clip_val, module.trainer.gradient_clip_algorithm

    take = partial(take_step, module, optimizer)
    return StepGraphs([module.net, module.loss], optimizer, take, clipping, module.cuda_graphs)


def take_steps(module: "Task", batches: list[Batch], graphs: StepGraphs | None, batch_idx: int) -> list[StepOutputs]:
    """Take a step for each batch: the list's but for the last, which Lightning takes.

    Steps that are not logged are replayed as CUDA graphs, where these are captured.
    """
    trainer = module.trainer
    optimizer = module.optimizers(use_pl_optimizer=False)
    assert isinstance(optimizer, Optimizer)
    schedules = [plan.scheduler for plan in trainer.lr_scheduler_configs if plan.interval == "step"]
    averaging = [callback for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]  # type: ignore[attr-defined]

    def finish_step() -> None:
        count_optimizer_step(trainer)
        for schedule in schedules:
            schedule.step()

    outputs: list[StepOutputs] = []
    done = 0
    if graphs:
        graphs.begin_list(batches[0])
    while done < len(batches):
        batch, step = batches[done], trainer.global_step
        steps_before_log = steps_until_logged(trainer, step)
        if graphs and steps_before_log and graphs.ensure_captured(batch):
            longest = min(1 if averaging else steps_before_log, len(batches) - done)
            learning_rates: list[list[float]] = []
            while len(learning_rates) < longest and graphs.optimizer_settings_unchanged():
                learning_rates.append([group["lr"] for group in optimizer.param_groups])
                finish_step()
            taken = batches[done : done + len(learning_rates)]
            losses, all_outputs = zip(*graphs.replay(taken, learning_rates), strict=True)
            outputs.append((torch.cat(losses), torch.cat(all_outputs), torch.cat([targets for _, targets in taken])))
        else:
            if graphs and steps_before_log:
                loss, step_outputs = graphs.warm_up(batch)
            else:
                loss, step_outputs = take_step(module, optimizer, batch, None if steps_before_log else step)
            finish_step()
            taken = [batch]
            outputs.append((loss.reshape(1), step_outputs, batch[1]))
        for callback in averaging:
            callback.on_train_batch_end(trainer, module, None, batch, batch_idx)
        done += len(taken)
    count_logged_steps(trainer, len(batches))
    return outputs


class HostCopies:
    """Tensors on their way to main memory, each with what to do once it is there.

    Reading a GPU's tensor at once makes Python wait for all work before it, and then the GPU for Python.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[torch.cuda.Event, Tensor, Callable[[Tensor], None]]] = deque()

    def __reduce__(self) -> Any:
        """Pickled or copied, it begins without any."""
        return HostCopies, ()

    def add(self, value: Tensor, use: Callable[[Tensor], None]) -> None:
        """Copy a tensor and call ``use`` with the copy: at once on a CPU, else from ``use_arrived``."""
        if not value.is_cuda:
            use(value.detach())
            return
        copy = value.detach().to("cpu", non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self._pending.append((arrived, copy, use))

    def use_arrived(self, wait: bool = False) -> None:
        """Use the copies that have arrived, in their order; all of them, if told to wait."""
        while self._pending and (wait or self._pending[0][0].query()):
            arrived, copy, use = self._pending.popleft()
            arrived.synchronize()
            use(copy)

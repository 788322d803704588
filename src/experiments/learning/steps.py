"""Take optimizer steps as Lightning does, without its hooks around them, counted as Lightning counts them."""

from typing import TYPE_CHECKING

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim import Optimizer

from experiments.learning.cuda_graphs import StepGraphs
from experiments.learning.lightning_internals import (
    call_before_optimizer_step,
    count_logged_steps,
    count_optimizer_step,
)

if TYPE_CHECKING:
    from experiments.learning.classifier import Classifier

Batch = tuple[Tensor, Tensor]
Taken = tuple[Tensor, Tensor, Tensor]  # of some steps: losses (steps,), logits and labels of all their images


def take_step(
    module: "Classifier", optimizer: Optimizer, batch: Batch, logged_as: int | None = None
) -> tuple[Tensor, Tensor]:
    """Take one step, logged under a number if it is given one; return the mean loss and the logits."""
    trainer = module.trainer
    with trainer.precision_plugin.train_step_context():
        loss, logits = module.step(batch)
    optimizer.zero_grad()
    loss.backward()
    if logged_as is not None:
        module.log_step(logged_as, loss)
        # callbacks that look at gradients now and then find them here too
        call_before_optimizer_step(trainer, optimizer)
    if trainer.gradient_clip_val is not None:
        module.configure_gradient_clipping(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
    optimizer.step()
    return loss.detach(), logits.detach()


def take_steps(module: "Classifier", batches: list[Batch], graphs: StepGraphs | None, batch_idx: int) -> list[Taken]:
    """Take a step for each batch; those that are not logged as CUDA graphs, where these are ready."""
    trainer = module.trainer
    optimizer = module.optimizers(use_pl_optimizer=False)
    assert isinstance(optimizer, Optimizer)
    schedules = [plan.scheduler for plan in trainer.lr_scheduler_configs if plan.interval == "step"]
    averages = [average for average in trainer.callbacks if isinstance(average, WeightAveraging)]  # type: ignore[attr-defined]

    def finish_step() -> None:
        count_optimizer_step(trainer)
        for schedule in schedules:
            schedule.step()

    taken: list[Taken] = []
    done = 0
    if graphs:
        graphs.start_list(batches[0])
    while done < len(batches):
        batch, step = batches[done], trainer.global_step
        quiet = module.steps_until_logged(step)
        if graphs and quiet and graphs.are_ready(batch):
            longest = min(1 if averages else quiet, len(batches) - done)
            rates: list[list[float]] = []
            while len(rates) < longest and graphs.same_settings():
                rates.append([group["lr"] for group in optimizer.param_groups])
                finish_step()
            some = batches[done : done + len(rates)]
            losses, logits = zip(*graphs.replay(some, rates), strict=True)
            taken.append((torch.cat(losses), torch.cat(logits), torch.cat([labels for _, labels in some])))
        else:
            if graphs and quiet:
                loss, outputs = graphs.warm_up(batch)
            else:
                loss, outputs = take_step(module, optimizer, batch, None if quiet else step)
            finish_step()
            some = [batch]
            taken.append((loss.reshape(1), outputs, batch[1]))
        for average in averages:
            average.on_train_batch_end(trainer, module, None, batch, batch_idx)
        done += len(some)
    count_logged_steps(trainer, len(batches))
    return taken

"""Curves beside loss and accuracy, over optimizer steps, and which of them share a chart."""

import time
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from experiments.errors import ranges
from experiments.learning.steps import HostCopies, steps_until_logged
from experiments.monitoring.loggers.log import log_values


class LearningRate(Callback):
    """Logs the learning rate of each parameter group, as it is at every ``log_every_n_steps``-th optimizer step."""

    handles_batch_lists = True

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """``learning_rate``, or ``learning_rate/<name or number>`` where there are several groups."""
        if steps_until_logged(trainer, trainer.global_step):
            return
        groups = [group for each in trainer.optimizers for group in each.param_groups]
        values = {f"learning_rate/{group.get('name', n)}": float(group["lr"]) for n, group in enumerate(groups)}
        if len(groups) == 1:
            values = {"learning_rate": float(groups[0]["lr"])}
        log_values(trainer.loggers, values, trainer.global_step)


class GradientNorm(Callback):
    """Logs the 2-norm of all gradients before clipping, at every ``log_every_n_steps``-th optimizer step."""

    handles_batch_lists = True

    def __init__(self) -> None:
        self._to_log = HostCopies()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what a fit before has left, which may have ended in the middle."""
        self._to_log = HostCopies()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """``gradient_norm``."""
        if steps_until_logged(trainer, trainer.global_step) or not trainer.loggers:
            return
        self._to_log.use_arrived()
        gradients = [
            parameter.grad
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        if gradients:
            step = trainer.global_step

            def log_norm(norm: Tensor) -> None:
                log_values(trainer.loggers, {"gradient_norm": norm.item()}, step)

            self._to_log.add(get_total_norm(gradients), log_norm)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Log what is left: a resumed run would not log it again."""
        self._to_log.use_arrived(wait=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._to_log.use_arrived(wait=True)


class EpochSeconds(Callback):
    """Logs how long an epoch took, with its validations, but without what a killed run has to do again."""

    def __init__(self) -> None:
        self._started: float | None = None

    def state_dict(self) -> dict[str, float]:
        return {} if self._started is None else {"seconds": time.perf_counter() - self._started}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on in the epoch."""
        if "seconds" in state_dict:
            self._started = time.perf_counter() - state_dict["seconds"]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """``epoch_seconds``."""
        if self._started is not None:
            seconds = time.perf_counter() - self._started
            log_values(trainer.loggers, {"epoch_seconds": seconds}, max(0, trainer.global_step - 1))
        self._started = None


class Layout(Callback):
    """Gives TensorBoard's tab Custom Scalars its charts: train and validation of one metric in one of them."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the layout, once."""
        if not trainer.is_global_zero:
            return
        stage_metrics = getattr(pl_module, "stage_metrics", None)  # a LightningModule of the user's own has none
        known = [name for name, _ in stage_metrics("val")] if stage_metrics else ["accuracy", "loss"]
        names = sorted(known, key=lambda name: (name != "accuracy", name != "loss"))
        layout = {
            "train and validation": {name: ["Multiline", [f"(train|val)/{name}$"]] for name in names},
            "training": {
                "loss of single steps": ["Multiline", ["train/loss_step$"]],
                "learning rate": ["Multiline", [r"learning_rate(/\d+)?$"]],
                "gradient norm": ["Multiline", ["gradient_norm$"]],
                "images per second": ["Multiline", ["throughput/images_per_second$"]],
                "seconds an epoch": ["Multiline", ["epoch_seconds$"]],
            },
        }
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_custom_scalars(layout)


class Histograms(Callback):
    """Shows TensorBoard how weights and gradients are distributed, every ``every_n_steps`` optimizer steps."""

    @ranges(every_n_steps="whole, >= 1")
    def __init__(self, every_n_steps: int = 200) -> None:
        self.every_n_steps = every_n_steps

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """``weights/<name>`` and ``gradients/<name>`` of every parameter, at the first step and then when due."""
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if trainer.global_step % self.every_n_steps or not trainer.is_global_zero or not loggers:
            return
        for name, parameter in getattr(pl_module, "net", pl_module).named_parameters():
            for kind, values in (("weights", parameter), ("gradients", parameter.grad)):
                finite = torch.empty(0) if values is None else values.detach().float().flatten()
                finite = finite[finite.isfinite()]  # the writer refuses others
                if finite.numel():
                    for logger in loggers:
                        logger.experiment.add_histogram(f"{kind}/{name}", finite.cpu(), trainer.global_step)

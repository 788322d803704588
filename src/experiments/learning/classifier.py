"""The LightningModule: loss, metrics and optimizer around any network that gives logits."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from experiments.data.batches import as_batch_list
from experiments.errors import UserError
from experiments.learning.cuda_graphs import StepGraphs
from experiments.learning.host_copies import HostCopies
from experiments.learning.lightning_internals import is_accumulating
from experiments.learning.losses import measured, require_single_labels
from experiments.learning.metrics import MeanLoss, own_metrics, single_number
from experiments.learning.optimizers import make_optimizer
from experiments.learning.param_groups import ParamGroup
from experiments.learning.schedulers import planned_schedule
from experiments.learning.steps import StepOutputs, merge_outputs, step_graphs, steps_until_logged, take_steps

STAGES = ("train", "val", "test")
Batch = tuple[Tensor, Tensor]


class Classifier(LightningModule):
    """Trains a network that maps normalised images (batch, C, H, W) to logits (batch, num_classes).

    Logs ``loss`` and ``accuracy`` once an epoch as ``train/*``, ``val/*`` and ``test/*``, and ``train/loss_step``
    every ``log_every_n_steps`` steps. ``metrics`` adds further ones to ``val/*`` and ``test/*``; they receive class
    probabilities (batch, num_classes) and labels.

    ``optimizer`` receives the parameters, in ``param_groups`` if any. ``scheduler`` receives the optimizer; one that
    takes ``total_steps`` gets the run's number of optimizer steps and advances with each of them, any other once an
    epoch. One that takes ``max_lr`` and is given none gets the optimizer's rates. ``ReduceLROnPlateau`` watches
    ``monitor``.

    A batch may be a list of batches, which then are as many optimizer steps (``steps_per_execution``): the same
    weights bit for bit, and what Lightning costs a step is paid once a list. With ``cuda_graphs``, steps of lists are
    replayed as CUDA graphs.

    ``card`` is what a checkpoint says of its network, in plain values; ``experiments.load`` rebuilds it from there.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        num_classes: int,
        scheduler: Callable[..., LRScheduler] | None = None,
        metrics: Mapping[str, Metric] | None = None,
        card: dict[str, Any] | None = None,
        monitor: str = "val/accuracy",
        param_groups: Mapping[str, ParamGroup] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters("num_classes", "card", logger=False)
        self.net = net
        self.loss = loss
        self.num_classes = num_classes
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.monitor = monitor
        self.param_groups = param_groups
        if card and card["image_shape"]:
            # Lightning's model summary and TensorBoard's graph follow it through the network
            self.example_input_array = torch.zeros(1, *card["image_shape"])
        extra = dict(metrics or {})
        if taken := {"loss", "accuracy"} & set(extra):
            raise ValueError(f"metrics.{taken.pop()} is there already: give the further metric another name")
        self.metrics = nn.ModuleDict()
        for stage in STAGES:
            accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False)  # a GPU would wait
            own = {"loss": MeanLoss(), "accuracy": accuracy}
            further = {} if stage == "train" else own_metrics(extra, num_classes)
            # A ModuleDict cannot have the key "train": that is a method of every module.
            self.metrics[f"{stage}/"] = nn.ModuleDict({**own, **further})
        self.cuda_graphs = False  # whether steps of lists are to be replayed as such
        self._graphs: StepGraphs | None = None
        self._outputs: list[StepOutputs] = []  # of the first steps of a list
        self._loss_step: Tensor | None = None  # for the progress bar
        self._to_log = HostCopies()

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (batch, C, H, W) -> logits (batch, num_classes)."""
        return self.net(images)

    def stage_metrics(self, stage: str) -> Iterable[tuple[str, Metric]]:
        """The stage's metrics by their name."""
        return self.metrics[f"{stage}/"].items()  # type: ignore[operator]  # a ModuleDict of metrics

    def step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """One forward pass: the mean loss, a scalar, and the logits (batch, num_classes)."""
        images, labels = batch
        if labels.ndim != 1 and (not self.training or self.trainer.global_step == 0):
            require_single_labels(labels)
        logits = self(images)
        if logits.ndim != 2 or logits.shape[1] < self.num_classes:
            raise UserError(
                f"model.net: it gives outputs {tuple(logits.shape)}, and the data have {self.num_classes} classes. "
                f"It must give logits (batch, {self.num_classes})"
            )
        return measured(self.loss, logits, labels), logits

    def count(self, stage: str, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Update the stage's metrics with a mean loss, logits (batch, num_classes) and labels."""
        if not len(labels):  # of an odd number of images, a rank's share
            return
        (_, mean_loss), (_, accuracy), *further = self.stage_metrics(stage)
        mean_loss.update(loss.detach(), len(labels))
        # of mixed images, the class with the larger part counts
        accuracy.update(logits.detach(), labels.argmax(1) if labels.is_floating_point() else labels)
        if further:  # given logits, torchmetrics would guess from a batch's range that they are none
            probabilities = torch.softmax(logits.detach().float(), dim=1)
            for _, metric in further:
                metric.update(probabilities, labels)

    def log_epoch(self, stage: str) -> None:
        """Log the stage's metrics over the epoch, summed over all ranks, and start anew."""
        for name, metric in self.stage_metrics(stage):
            value = single_number(name, metric)  # has met the other ranks already
            self.log(f"{stage}/{name}", value, prog_bar=name == "accuracy", rank_zero_only=False)
            metric.reset()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Of a list of batches, take all optimizer steps but the last, which is Lightning's."""
        batches = as_batch_list(batch)
        room = self.trainer.max_steps - self.trainer.global_step
        if 0 < room < len(batches):
            del batches[room:]
        if before := batches[:-1]:
            self._outputs = take_steps(self, before, self._graphs, batch_idx)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the loss of a batch; of a list, the last one's, beside the losses of all."""
        step = self.trainer.global_step
        last = as_batch_list(batch)[-1]
        loss, logits = self.step(last)
        self.log_losses()
        if not steps_until_logged(self.trainer, step) and not is_accumulating(self.trainer):
            self.log_step(step, loss)
        if self._loss_step is not None:
            self.log("train/loss_step", self._loss_step, prog_bar=True, logger=False)
            self._loss_step = None
        before, self._outputs = self._outputs, []
        if not before:
            self.count("train", loss, logits, last[1])
            return loss
        mean_loss, losses, logits, labels = merge_outputs(
            [*before, (loss.detach().reshape(1), logits.detach(), last[1])]
        )
        self.count("train", mean_loss, logits, labels)
        return {"loss": loss, "losses": losses}

    def on_train_start(self) -> None:
        """Prepare graphs on a GPU, or let it round its rates as they would; forget what a fit before has left."""
        self._to_log, self._outputs = HostCopies(), []
        self._close_graphs()
        self._graphs = step_graphs(self)

    def _close_graphs(self) -> None:
        if self._graphs:
            self._graphs.close()
        self._graphs = None

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Round the learning rates as graphs read them."""
        if self._graphs:
            self._graphs.prepare_rates()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Where ``max_steps`` ends the run inside an epoch, let Lightning validate once more."""
        if 0 <= self.trainer.max_steps <= self.trainer.global_step:
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        """Take it back: Lightning would not start the next fit of this Trainer, such as a tuner's trials are."""
        self._close_graphs()
        if 0 <= self.trainer.max_steps <= self.trainer.global_step:
            self.trainer.should_stop = False

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip as Lightning does; in bf16 also for fused optimizers, where nothing scales gradients."""
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is None:
            kind = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val or 0, kind)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def log_step(self, step: int, loss: Tensor) -> None:
        """Log the loss of a step, once it is there to be read."""
        self._loss_step = loss.detach()
        self._to_log.add(self._loss_step, partial(self._log_loss, step))

    def log_losses(self, wait: bool = False) -> None:
        """Log the losses of steps that can be read by now; all of them, if told to wait."""
        self._to_log.use_arrived(wait)

    def _log_loss(self, step: int, loss: Tensor) -> None:
        for logger in self.loggers:
            logger.log_metrics({"train/loss_step": loss.item()}, step=step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Log what is left: a resumed run would not log it again."""
        self.log_losses(wait=True)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one validation batch."""
        self.count("val", *self.step(batch), batch[1])

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one test batch."""
        self.count("test", *self.step(batch), batch[1])

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Class probabilities (batch, num_classes) of a batch of images, with or without labels."""
        images = batch[0] if isinstance(batch, (tuple, list)) else batch
        return torch.softmax(self(images), dim=1)

    def on_train_epoch_end(self) -> None:
        """Log ``train/*``."""
        self.log_losses(wait=True)
        self.log_epoch("train")

    def on_validation_epoch_end(self) -> None:
        """Log ``val/*``."""
        self.log_epoch("val")

    def on_test_epoch_end(self) -> None:
        """Log ``test/*``."""
        self.log_epoch("test")

    def configure_optimizers(self) -> Any:
        """Build the optimizer and its schedule, in the form that Lightning expects."""
        optimizer = make_optimizer(self.make_optimizer, self, self.num_classes, self.param_groups)
        if self.make_scheduler is None:
            return optimizer
        plan = planned_schedule(self.make_scheduler, optimizer, self.trainer, self.monitor)
        return {"optimizer": optimizer, "lr_scheduler": plan}

"""The LightningModule around any network: its loss, metrics and optimizer, its steps and their lists, its logging."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from experiments.data.batches import Batch, as_batch_list
from experiments.errors import ranges
from experiments.learning import steps
from experiments.learning.cuda_graphs import StepGraphs
from experiments.learning.lightning_internals import is_accumulating
from experiments.learning.losses import compute_loss, library_errors, require_matching_loss, require_shapes
from experiments.learning.metrics import MeanLoss, own_metrics, predictions_of, single_number
from experiments.learning.optimizers import make_optimizer
from experiments.learning.param_groups import ParamGroup
from experiments.learning.schedulers import planned_schedule


class Task(LightningModule):
    """Trains a network by a loss between its outputs and a batch's targets.

    ``outputs`` says how outputs are read, by metrics and by who loads a checkpoint; K is ``num_classes``:

    - ``classes``: logits (batch, K), of which an image is one; targets int64 (batch,).
    - ``labels``: logits (batch, K), of which an image has any number; targets from 0 to 1 (batch, K); above 0.5 counts.
    - ``values``: numbers (batch, K); targets (batch, K).
    - ``mask``: logits (batch, K, H, W), one class for each pixel; targets int64 (batch, H, W).

    Logs ``loss`` once an epoch as ``train/*``, ``val/*`` and ``test/*``, and ``train/loss_step`` every
    ``log_every_n_steps`` steps. ``metrics`` adds further ones to ``val/*`` and ``test/*``; they receive
    probabilities, or values, and targets. A subclass may take another ``step``, or update metrics otherwise.

    ``optimizer`` receives the parameters, in ``param_groups`` if any. ``scheduler`` receives the optimizer; one that
    takes ``total_steps`` gets the run's number of optimizer steps and advances with each of them, any other once an
    epoch. One that takes ``max_lr`` and is given none gets the optimizer's rates. ``ReduceLROnPlateau`` watches
    ``monitor``.

    A batch may be a list of batches, which then are as many optimizer steps (``steps_per_execution``): the same
    weights bit for bit, and what Lightning costs a step is paid once a list. With ``cuda_graphs``, steps of lists are
    replayed as CUDA graphs.

    ``card`` is what a checkpoint says of its network, in plain values; ``experiments.load`` rebuilds it from there.
    """

    cuda_graph_safe = True

    @ranges(outputs=("classes", "labels", "values", "mask"))
    def __init__(
        self,
        net: nn.Module,
        loss: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        num_classes: int | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
        metrics: Mapping[str, Metric] | None = None,
        card: dict[str, Any] | None = None,
        monitor: str = "val/loss",
        param_groups: Mapping[str, ParamGroup] | None = None,
        *,
        outputs: str,
    ) -> None:
        super().__init__()
        self.save_hyperparameters("num_classes", "card", logger=False)
        self.net = net
        self.loss = loss
        self.num_classes = num_classes
        self.outputs = outputs
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.monitor = monitor
        self.param_groups = param_groups
        if card:
            self.hparams["card"] = {**card, "outputs": outputs}
            if card["image_shape"]:  # Lightning's model summary and TensorBoard's graph follow it through the network
                self.example_input_array = torch.zeros(1, *card["image_shape"])
        extra = dict(metrics or {})
        require_matching_loss(outputs, loss, extra)
        if taken := {*self.make_metrics("train", {})} & set(extra):
            raise ValueError(f"metrics.{taken.pop()} is there already: give the further metric another name")
        # A ModuleDict cannot have the key "train": that is a method of every module.
        self.metrics = nn.ModuleDict(
            {f"{stage}/": nn.ModuleDict(self.make_metrics(stage, extra)) for stage in ("train", "val", "test")}
        )
        self.cuda_graphs = False  # whether steps of lists are to be replayed as such
        self._graphs: StepGraphs | None = None
        self._outputs: list[steps.StepOutputs] = []  # of the first steps of a list
        self._loss_step: Tensor | None = None  # for the progress bar
        self._to_log = steps.HostCopies()

    def make_metrics(self, stage: str, further: Mapping[str, Metric]) -> dict[str, Metric]:
        """A stage's metrics, the mean loss first; of the further ones, copies."""
        classes = self.num_classes if self.outputs == "classes" else None
        return {"loss": MeanLoss(), **({} if stage == "train" else own_metrics(further, classes))}

    def stage_metrics(self, stage: str) -> Iterable[tuple[str, Metric]]:
        """The stage's metrics by their name."""
        return self.metrics[f"{stage}/"].items()  # type: ignore[operator]  # a ModuleDict of metrics

    def forward(self, inputs: Tensor) -> Tensor:
        """The network's outputs."""
        return self.net(inputs)

    def step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """One forward pass: the mean loss, a scalar, and the outputs."""
        inputs, targets = batch
        outputs = self(inputs)
        require_shapes(self.outputs, outputs, targets, self.num_classes)
        if self.outputs in ("labels", "values"):  # which half precision would round
            return compute_loss(self.loss, outputs.float(), targets.float()), outputs
        return compute_loss(self.loss, outputs, targets), outputs

    def update_stage(self, stage: str, loss: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Update the stage's metrics with a mean loss, outputs and targets of a batch."""
        if not len(targets):  # of an odd number of images, a rank's share
            return
        (_, mean_loss), *others = self.stage_metrics(stage)
        mean_loss.update(loss.detach(), len(targets))
        if others:
            self.update_metrics(others, outputs.detach(), targets)

    def update_metrics(self, metrics: Sequence[tuple[str, Metric]], outputs: Tensor, targets: Tensor) -> None:
        """Update metrics, all but the loss, with probabilities or values; UserError if one does not take them."""
        predictions = predictions_of(outputs.float(), self.outputs)  # torchmetrics would guess what logits are
        targets = (targets > 0.5).long() if self.outputs == "labels" else targets
        for name, metric in metrics:
            with library_errors(f"metrics.{name}: {type(metric).__name__}", predictions, targets):
                metric.update(predictions, targets)

    def log_epoch(self, stage: str) -> None:
        """Log the stage's metrics over the epoch, summed over all ranks, and start anew."""
        on_bar = "accuracy", self.monitor.partition("/")[2]
        for name, metric in self.stage_metrics(stage):
            value = single_number(name, metric)  # has met the other ranks already
            self.log(f"{stage}/{name}", value, prog_bar=name in on_bar, rank_zero_only=False)
            metric.reset()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Of a list of batches, take all optimizer steps but the last, which is Lightning's."""
        batches = as_batch_list(batch)
        room = self.trainer.max_steps - self.trainer.global_step
        if 0 < room < len(batches):
            del batches[room:]
        if before := batches[:-1]:
            self._outputs = steps.take_steps(self, before, self._graphs, batch_idx)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the loss of a batch; of a list, the last one's, beside the losses of all."""
        step, last = self.trainer.global_step, as_batch_list(batch)[-1]
        loss, outputs = self.step(last)
        self.log_losses()
        if not steps.steps_until_logged(self.trainer, step) and not is_accumulating(self.trainer):
            self.log_step(step, loss)
        if self._loss_step is not None:
            self.log("train/loss_step", self._loss_step, prog_bar=True, logger=False)
            self._loss_step = None
        before, self._outputs = self._outputs, []
        if not before:
            self.update_stage("train", loss, outputs, last[1])
            return loss
        mean_loss, losses, all_outputs, targets = steps.merge_outputs(
            [*before, (loss.detach().reshape(1), outputs.detach(), last[1])]
        )
        self.update_stage("train", mean_loss, all_outputs, targets)
        return {"loss": loss, "losses": losses}

    def on_train_start(self) -> None:
        """Prepare graphs on a GPU, or let it round its rates as they would; forget what a fit before has left."""
        self._to_log, self._outputs = steps.HostCopies(), []
        self._close_graphs()
        self._graphs = steps.step_graphs(self)

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

    configure_gradient_clipping = steps.clip_gradients

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
        self.update_stage("val", *self.step(batch), batch[1])

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one test batch."""
        self.update_stage("test", *self.step(batch), batch[1])

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Predictions of a batch of inputs, with or without targets: probabilities, or values."""
        inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
        return predictions_of(self(inputs), self.outputs)

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

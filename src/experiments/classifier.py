"""The LightningModule: loss, metrics and optimizer around any network that gives logits."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from experiments.errors import UserError
from experiments.metrics import MeanLoss

STAGES = ("train", "val", "test")


class Classifier(LightningModule):
    """Trains a network that maps normalised images (batch, C, H, W) to logits (batch, num_classes).

    Logs ``loss`` and ``accuracy`` once an epoch as ``train/*``, ``val/*`` and ``test/*``, and ``train/loss_step``
    every ``log_every_n_steps`` steps. ``metrics`` adds further ones to ``val/*`` and ``test/*``; they receive class
    probabilities (batch, num_classes) and labels.

    ``optimizer`` receives the parameters. ``scheduler`` receives the optimizer; one that takes ``total_steps`` gets
    the run's number of optimizer steps and advances with each of them, any other advances once an epoch.
    ``ReduceLROnPlateau`` watches ``val/loss`` (mode ``min``) or ``val/accuracy`` (mode ``max``).

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
    ) -> None:
        super().__init__()
        self.save_hyperparameters("num_classes", "card", logger=False)
        self.net = net
        self.loss = loss
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        if card and card["image_shape"]:
            # Lightning's model summary and TensorBoard's graph follow it through the network
            self.example_input_array = torch.zeros(1, *card["image_shape"])
        extra = dict(metrics or {})
        if taken := {"loss", "accuracy"} & set(extra):
            raise ValueError(f"metrics.{taken.pop()} is there already: give the further metric another name")
        self.metrics = nn.ModuleDict()
        for stage in STAGES:
            own = {"loss": MeanLoss(), "accuracy": MulticlassAccuracy(num_classes, average="micro")}
            further = {} if stage == "train" else {name: metric.clone() for name, metric in extra.items()}
            # A ModuleDict cannot have the key "train": that is a method of every module.
            self.metrics[f"{stage}/"] = nn.ModuleDict({**own, **further})

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (batch, C, H, W) -> logits (batch, num_classes)."""
        return self.net(images)

    def stage_metrics(self, stage: str) -> Iterable[tuple[str, Metric]]:
        """The stage's metrics by their name."""
        return self.metrics[f"{stage}/"].items()  # type: ignore[operator]  # a ModuleDict of metrics

    def step(self, batch: tuple[Tensor, Tensor], stage: str) -> Tensor:
        """One forward pass: updates the stage's metrics and returns the mean loss, a scalar."""
        images, labels = batch
        logits = self(images)
        loss: Tensor = self.loss(logits, labels)
        (_, mean_loss), (_, accuracy), *further = self.stage_metrics(stage)
        mean_loss.update(loss.detach(), len(labels))
        # of mixed images, the class with the larger part counts
        accuracy.update(logits.detach(), labels.argmax(1) if labels.is_floating_point() else labels)
        if further:  # given logits, torchmetrics would guess from a batch's range that they are none
            probabilities = torch.softmax(logits.detach().float(), dim=1)
            for _, metric in further:
                metric.update(probabilities, labels)
        return loss

    def log_epoch(self, stage: str) -> None:
        """Log the stage's metrics over the epoch, summed over all ranks, and start anew."""
        for name, metric in self.stage_metrics(stage):
            # compute() has met the other ranks already
            self.log(f"{stage}/{name}", metric.compute(), prog_bar=name == "accuracy", rank_zero_only=False)
            metric.reset()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch; Lightning takes the optimizer step."""
        loss = self.step(batch, "train")
        if (self.trainer.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log("train/loss_step", loss.detach(), on_step=True, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count one validation batch."""
        self.step(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count one test batch."""
        self.step(batch, "test")

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Class probabilities (batch, num_classes) of a batch of images, with or without labels."""
        images = batch[0] if isinstance(batch, (tuple, list)) else batch
        return torch.softmax(self(images), dim=1)

    def on_train_epoch_end(self) -> None:
        """Log ``train/*``."""
        self.log_epoch("train")

    def on_validation_epoch_end(self) -> None:
        """Log ``val/*``."""
        self.log_epoch("val")

    def on_test_epoch_end(self) -> None:
        """Log ``test/*``."""
        self.log_epoch("test")

    def configure_optimizers(self) -> Any:
        """Build the optimizer and its schedule, in the form that Lightning expects."""
        try:
            optimizer = self.make_optimizer(self.parameters())
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"the optimizer refuses its arguments: {error}") from error
        if self.make_scheduler is None:
            return optimizer
        by_step = "total_steps" in inspect.signature(self.make_scheduler).parameters
        steps = {"total_steps": self._total_steps()} if by_step else {}
        try:
            schedule = self.make_scheduler(optimizer, **steps)
        except (TypeError, ValueError) as error:
            raise UserError(f"the scheduler refuses its arguments: {error}") from error
        plan = {"scheduler": schedule, "interval": "step" if by_step else "epoch"}
        if isinstance(schedule, ReduceLROnPlateau):
            plan["monitor"] = "val/accuracy" if schedule.mode == "max" else "val/loss"
        return {"optimizer": optimizer, "lr_scheduler": plan}

    def _total_steps(self) -> int:
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise UserError(
                "this scheduler needs to know the number of steps: set trainer.max_epochs or trainer.max_steps, "
                "or use scheduler=constant"
            )
        return int(steps)

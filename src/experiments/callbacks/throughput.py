"""Measure how long training takes, and images and steps a second."""

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from experiments.data.batches import as_batch_list


@dataclass
class _Lap:
    seconds: float = 0.0
    images: int = 0
    steps: int = 0
    waited: float = 0.0  # seconds; NaN where the data module does not say

    def add(self, other: "_Lap") -> None:
        self.seconds += other.seconds
        self.images += other.images
        self.steps += other.steps
        self.waited += other.waited

    @property
    def rates(self) -> dict[str, float]:
        if self.seconds <= 0:
            return {}
        rates = {
            "images_per_second": self.images / self.seconds,
            "steps_per_second": self.steps / self.seconds,
            "data_share": self.waited / self.seconds,
        }
        return {name: round(rate, 4) for name, rate in rates.items() if not math.isnan(rate)}


class Throughput(Callback):
    """Times training.

    ``seconds`` is training with validation, without set-up, test and report; it goes on counting in a resumed run.
    ``rates`` are those of the training steps alone, of all processes together; loggers get each epoch's.
    """

    handles_batch_lists = True

    def __init__(self) -> None:
        self._before = 0.0
        self._started = math.nan
        self.seconds = 0.0
        self._total = _Lap()
        self._epoch = _Lap()
        self._paused: float | None = None

    @property
    def rates(self) -> dict[str, float]:
        """Images and optimizer steps a second, and the share of the time that data were waited for, where known."""
        return self._total.rates

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self._before + self._elapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = state_dict["seconds"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run of this trainer's before is over."""
        self._started = math.nan

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start_lap(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """A resumed run starts inside an epoch."""
        if math.isnan(self._started):
            self._start_lap(trainer)
        self._leave_pause_out()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._epoch.images += as_batch_list(batch).num_images * trainer.world_size  # ranks have equally many

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _finish_steps(trainer)
        self._paused = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._leave_pause_out()
        _finish_steps(trainer)
        lap = self._epoch
        lap.seconds += time.perf_counter()
        lap.steps += trainer.global_step
        lap.waited += _waited(trainer)
        self._total.add(lap)
        seen = {f"throughput/{name}": value for name, value in lap.rates.items()}
        for logger in trainer.loggers:
            logger.log_metrics(seen, step=trainer.global_step - 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = self._before + self._elapsed

    def _leave_pause_out(self) -> None:
        """Leave out a validation that is over, with what follows it: checkpoints, pictures."""
        if self._paused is not None:
            self._epoch.seconds -= time.perf_counter() - self._paused
        self._paused = None

    @property
    def _elapsed(self) -> float:
        return 0.0 if math.isnan(self._started) else time.perf_counter() - self._started

    def _start_lap(self, trainer: Trainer) -> None:
        if math.isnan(self._started):
            self._started = time.perf_counter()
        self._paused = None  # by a validation before training
        self._epoch = _Lap(seconds=-time.perf_counter(), steps=-trainer.global_step, waited=-_waited(trainer))


def _finish_steps(trainer: Trainer) -> None:
    """Wait for what a GPU has not done yet."""
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize()


def _waited(trainer: Trainer) -> float:
    clock = getattr(getattr(trainer, "datamodule", None), "waiting", None)
    return clock.seconds if clock is not None else math.nan

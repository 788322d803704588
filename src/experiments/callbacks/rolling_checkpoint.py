"""Checkpoints to resume from, saved at intervals and on signals, where Lightning resumes exactly."""

import logging
import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from experiments.callbacks.history import MetricHistory
from experiments.callbacks.random_states import EXACT_STATE, exact_state, restore_exact_state
from experiments.data.batches import ShuffledBatches
from experiments.errors import Stopped, UserError, ranges
from experiments.learning.lightning_internals import (
    end_resumed_epoch,
    is_accumulating,
    is_validation_due,
    restore_loader_position,
)
from experiments.runs.checkpoint_files import AtomicCheckpointIO, rolling_files, rolling_name
from experiments.runs.files import remove_temporaries

log = logging.getLogger(__name__)
SIGNALS = [number for name in ("SIGTERM", "SIGINT", "SIGUSR1") if (number := getattr(signal, name, None))]


class RollingCheckpoint(Checkpoint):
    """Keeps the last ``keep`` checkpoints; a run that resumes from one equals an uninterrupted one, bit for bit.

    On one device, a write goes on in the background, and there are ``keep`` and one more for that time.

    Saves are due every so many epochs, optimizer steps or minutes, and at SIGTERM, SIGINT (Ctrl-C) and SIGUSR1, which
    end the run after the save; a second Ctrl-C ends it at once. A save that is due on an epoch's last batch, or where
    validation or a gradient is pending, waits for the next batch: Lightning would resume it without the validation
    and without what happens at an epoch's end. A finished run is saved before its last batch, to go on longer from
    there. Runs of one batch an epoch never save, and start over when resumed.
    """

    handles_batch_lists = True  # it needs no call for each batch of a list

    @ranges(every_n_epochs="whole, >= 1", every_n_steps="whole, >= 1", every_minutes="> 0", keep="whole, >= 1")
    def __init__(
        self,
        dirpath: str,
        every_n_epochs: int | None = 1,
        every_n_steps: int | None = None,
        every_minutes: float | None = None,
        keep: int = 2,
    ) -> None:
        self.dirpath = Path(dirpath)
        self.every_n_epochs = every_n_epochs
        self.every_n_steps = every_n_steps
        self.every_minutes = every_minutes
        self.keep = keep
        self._due = False
        self._saved_step = 0
        self._saved_time = 0.0
        self._signal: int | None = None
        self._handlers: dict[int, Any] = {}
        self._state: dict[str, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove what writes that were killed left behind."""
        if stage == "fit" and trainer.is_global_zero:
            remove_temporaries(self.dirpath)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add random states and half accumulated metrics, which Lightning leaves out."""
        checkpoint[EXACT_STATE] = exact_state(trainer, pl_module)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep them until training starts."""
        self._state = checkpoint.get(EXACT_STATE, {})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore, and listen for signals from here on: Lightning's own handlers were installed before."""
        self._saved_step = trainer.global_step
        self._saved_time = time.monotonic()
        self._due = False
        files = trainer.strategy.checkpoint_io
        if isinstance(files, AtomicCheckpointIO) and trainer.world_size == 1:  # other ranks would not wait for them
            files.write_in_background()
        if self._state:
            restore_loader_position(trainer)
            restore_exact_state(trainer, pl_module, self._state)
            recount_batches(trainer)
            restore_best_checkpoint_state(trainer)
            self._state = {}
        if trainer.is_global_zero:  # damaged, or of a continuation that was given up
            for step, path in rolling_files(self.dirpath):
                if step > trainer.global_step:
                    log.info("removing %s: the run resumes before it", path)
                    trainer.strategy.remove_checkpoint(path)
            self._remove_old(trainer)  # a kill may come between a save and this
        try:
            self._handlers = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        except ValueError:  # not in the main thread, where alone Python lets signals be handled
            self._handlers = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An epoch is over: a save may be due."""
        epoch = trainer.current_epoch
        if self.every_n_epochs and epoch and epoch % self.every_n_epochs == 0:
            self._due = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Save if it is due and can be resumed from; then stop if a signal asked for it."""
        signal_number = self._requested_signal(trainer)
        if not (signal_number or self._is_due(trainer) or is_almost_over(trainer)) or not can_resume_here(trainer):
            return
        self.save(trainer)
        if signal_number:
            self._finish_save(trainer)
            raise Stopped(signal_number)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let plateau schedulers see the validation of a resumed epoch, which Lightning skips."""
        end_resumed_epoch(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give signals back; one that came too late for a save ends the run all the same."""
        self._restore_handlers()
        self._finish_save(trainer)
        if signal_number := self._requested_signal(trainer):
            raise Stopped(signal_number)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Only log an error of the pending save: the first exception is the one to report."""
        self._restore_handlers()
        try:
            self._finish_save(trainer)
        except UserError as error:
            log.error("%s", error)

    def save(self, trainer: Trainer) -> None:
        """Remove all but the last ``keep`` up to this step, then write one more."""
        step = trainer.global_step
        self._finish_save(trainer)
        trainer.save_checkpoint(self.dirpath / rolling_name(trainer.current_epoch, step), weights_only=False)
        self._due = False
        self._saved_step, self._saved_time = step, time.monotonic()

    def _finish_save(self, trainer: Trainer) -> None:
        """Wait until the last save is written, and remove those that it makes superfluous."""
        if isinstance(files := trainer.strategy.checkpoint_io, AtomicCheckpointIO):
            files.finish_writing()
        if trainer.is_global_zero:
            self._remove_old(trainer)

    def _remove_old(self, trainer: Trainer) -> None:
        for path in [path for at, path in rolling_files(self.dirpath) if at <= trainer.global_step][self.keep :]:
            trainer.strategy.remove_checkpoint(path)

    def _is_due(self, trainer: Trainer) -> bool:
        if self.every_n_steps and trainer.global_step // self.every_n_steps > self._saved_step // self.every_n_steps:
            self._due = True
        if self.every_minutes and time.monotonic() - self._saved_time >= 60 * self.every_minutes:
            self._due = True
        if self.every_minutes and trainer.world_size > 1:  # clocks differ, and a save needs every rank
            self._due = trainer.strategy.reduce_boolean_decision(self._due, all=False)
        return self._due

    def _requested_signal(self, trainer: Trainer) -> int | None:
        if trainer.world_size == 1:
            return self._signal
        asked = torch.tensor(self._signal or 0, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)  # one rank's signal stops them all
        return int(asked) or None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal == signal.SIGINT == number:
            os._exit(128 + number)
        self._signal = number
        again = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
        log.warning("%s: saving a checkpoint after this step, then stopping%s", signal.Signals(number).name, again)

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}


def recount_batches(trainer: Trainer) -> None:
    """Set Lightning's count of the epoch's batches to the resumed sampler's position, which counts items."""
    sampler = getattr(trainer.train_dataloader, "sampler", None)
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    if isinstance(sampler, ShuffledBatches) and sampler.start != progress.ready:
        progress.ready = progress.started = progress.processed = sampler.start
        progress.completed = sampler.start - 1  # a save comes before Lightning has counted its batch


def restore_best_checkpoint_state(trainer: Trainer) -> None:
    """Restore the callback's state from a best checkpoint that is of a later step than the resumed one.

    With another ``max_steps`` or on another device, the validation that chose it does not come again.
    """
    histories = [callback for callback in trainer.callbacks if isinstance(callback, MetricHistory)]  # type: ignore[attr-defined]
    for best in trainer.checkpoint_callbacks:
        if not (isinstance(best, ModelCheckpoint) and best.best_model_path):
            continue
        try:
            content = trainer.strategy.checkpoint_io.load_checkpoint(best.best_model_path)
        except UserError as error:  # the next validation writes another
            log.warning("passed over: %s", error)
            continue
        if content.get("global_step", 0) > trainer.global_step:
            for callback in (best, *histories):
                if state := content["callbacks"].get(callback.state_key):
                    callback.load_state_dict(state)


def is_almost_over(trainer: Trainer) -> bool:
    """Whether only the run's last optimizer step remains: a finished run can become longer from here."""
    if trainer.current_epoch + 1 != trainer.max_epochs or not isinstance(trainer.num_training_batches, int):
        return False
    left = trainer.num_training_batches - trainer.fit_loop.epoch_loop.batch_idx - 1
    return 0 < left <= trainer.accumulate_grad_batches


def can_resume_here(trainer: Trainer) -> bool:
    """Whether a checkpoint of this moment, at a batch's end, loses nothing when Lightning resumes it."""
    return not (
        trainer.is_last_batch
        or is_accumulating(trainer)
        or is_validation_due(trainer)
        or 0 <= trainer.max_steps <= trainer.global_step
    )

"""Progress: a bar on a terminal, one line an epoch everywhere."""

import logging
import math
import multiprocessing
import os
import shutil
import sys
import time
from datetime import timedelta
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from experiments.config.installation import in_notebook
from experiments.data.batches import steps_in_items, steps_per_epoch
from experiments.errors import ranges

log = logging.getLogger(__name__)
EPOCH_METRICS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")


def has_screen() -> bool:
    """Whether somebody watches: a notebook, or a terminal that is neither CI's nor a sweep worker's."""
    return (
        (sys.stderr.isatty() or in_notebook())
        and not os.environ.get("CI")
        and multiprocessing.parent_process() is None
    )


class Progress(TQDMProgressBar):
    """Lightning's bar where there is a terminal, and one line an epoch that stays.

    Under redirection, in CI and in a sweep's workers there is no bar: logs hold one line an epoch and nothing else.
    """

    handles_batch_lists = True

    @ranges(refresh_rate="whole, >= 0")
    def __init__(self, refresh_rate: int = 20, monitor: str = "val/accuracy", mode: str = "max") -> None:
        super().__init__(refresh_rate=refresh_rate if has_screen() else 0)
        self.monitor, self.better = monitor, max if mode == "max" else min
        self._epoch_started = 0.0
        self._best: float | None = None
        self._validated = False  # since the last line
        self._started = (0.0, 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed run may start in the middle of an epoch."""
        super().on_train_start(trainer, pl_module)
        self._started = time.perf_counter(), share_done(trainer)
        if trainer.fit_loop.is_resuming:
            self._epoch_started = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Close the line of the epoch before: only now are all its values logged."""
        super().on_train_epoch_start(trainer, *args)
        if self._epoch_started:
            self._say(trainer, trainer.current_epoch)
        if self.train_progress_bar is not None:  # counted as the lines are
            self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1}")
        self._epoch_started = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if trainer.sanity_checking:
            return
        self._validated = True
        if (value := trainer.callback_metrics.get(self.monitor)) is not None:
            self._best = float(value) if self._best is None else self.better(float(value), self._best)

    @property
    def total_train_batches(self) -> int | float:
        """Optimizer steps, where one of Lightning's batches is several."""
        return steps_per_epoch(self.trainer.train_dataloader) or super().total_train_batches

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if steps_per_epoch(trainer.train_dataloader) is None:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        elif self.train_progress_bar is not None and self.is_enabled:
            done = steps_in_items(trainer.train_dataloader, batch_idx + 1)
            if self.train_progress_bar.update(done - self.train_progress_bar.n):  # it was drawn: for the next time
                self.train_progress_bar.set_postfix(self.get_metrics(trainer, pl_module), refresh=False)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far of what is monitored."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best = state_dict["best"]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the last epoch's line."""
        super().on_train_end(trainer, pl_module)
        if self._epoch_started:
            self._say(trainer, trainer.current_epoch)
        self._epoch_started = 0.0

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What stands behind the bar: loss, accuracy, the best so far and the time that is left."""
        shown = {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}
        best = None if self._best is None else f"{self._best:.4f}"
        first = {"left": self.time_left(trainer), "best": best}  # a narrow terminal shows no more
        return {**{name: value for name, value in first.items() if value}, **shown}

    def time_left(self, trainer: Trainer) -> str | None:
        """Until the last epoch's end, at the pace so far; None before there is one, and where no end is set."""
        since, share = self._started
        done = share_done(trainer)
        timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
        seconds = [remaining for timer in timers if (remaining := timer.time_remaining()) is not None]  # of max_time
        if share < done < 1:
            seconds.append((time.perf_counter() - since) / (done - share) * (1 - done))
        return str(timedelta(seconds=math.ceil(max(0.0, min(seconds))))) if seconds and done < 1 else None

    def _say(self, trainer: Trainer, epoch: int) -> None:
        if not trainer.is_global_zero:
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        names = [
            name
            for name in dict.fromkeys((*EPOCH_METRICS, self.monitor))
            if name in values and (self._validated or not name.startswith("val/"))
        ]
        self._validated = False
        end = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
        parts = {"epoch": f"epoch {epoch}{end}"} | {name: f"{name} {values[name]:.4f}" for name in names}
        if self._best is not None:
            parts["best"] = f"best {self._best:.4f}"
        parts["seconds"] = f"{time.perf_counter() - self._epoch_started:.1f} s"
        if left := self.time_left(trainer):
            parts["left"] = f"left {left}"
        width = shutil.get_terminal_size().columns if has_screen() and not in_notebook() else math.inf
        for name in ("left", "best", "train/accuracy", "train/loss"):  # the bar of a terminal shows the first two
            if len("  ".join(parts.values())) >= width:
                parts.pop(name, None)
        with Tqdm.external_write_mode(sys.stderr):  # the bar steps aside
            log.info("%s", "  ".join(parts.values()))


def share_done(trainer: Trainer) -> float:
    """The share of the run's batches or steps, whichever ends it first, that were taken; 0 where no end is set."""
    batches, epochs = trainer.num_training_batches, trainer.max_epochs or -1
    taken = trainer.fit_loop.epoch_loop.total_batch_idx + 1
    shares = [taken / (epochs * batches)] if epochs > 0 and 0 < batches < math.inf else []
    if trainer.max_steps > 0:
        shares.append(trainer.global_step / trainer.max_steps)
    return min(1.0, max(shares, default=0.0))

"""A callback that sends its own process a signal, once, at a stated moment."""

import os
from pathlib import Path

from lightning import Callback

from experiments.runs import files


class SignalAt(Callback):
    """Signal ``number`` in the ``moment``: a step, a validation, or the write of a checkpoint; never twice."""

    def __init__(self, moment: str, number: int, marker: str) -> None:
        self.moment, self.number, self.marker = moment, number, Path(marker)

    def fire(self, moment: str) -> None:
        if moment == self.moment and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), self.number)

    def on_before_optimizer_step(self, trainer, *_) -> None:
        if trainer.global_step == 31:
            self.fire("step")

    def on_validation_batch_start(self, trainer, *_) -> None:
        if trainer.current_epoch == 2:
            self.fire("validation")

    def setup(self, *_, **__) -> None:
        if self.moment == "write":
            whole_fsync = os.fsync

            def fsync(file) -> None:
                checkpoint_files = [path.name for path in (self.marker.parent / "checkpoints").iterdir()]
                writing = any(name.endswith(".tmp") for name in checkpoint_files)
                if writing and sum(name.startswith("rolling") for name in checkpoint_files) == 2:
                    self.fire("write")
                whole_fsync(file)

            files.os.fsync = fsync

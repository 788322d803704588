"""How large a network is, in one line."""

import logging

from lightning import LightningModule, Trainer
from lightning.pytorch import callbacks as lightning

from experiments.errors import ranges

log = logging.getLogger(__name__)


class ModelSummary(lightning.ModelSummary):
    """One line: parameters, megabytes and operations. With ``max_depth`` above 1, or -1, Lightning's table."""

    @ranges(max_depth="whole, >= 0, or -1")
    def __init__(self, max_depth: int = 1) -> None:
        super().__init__(max_depth)
        self.max_depth = max_depth

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.max_depth != 1:
            super().on_fit_start(trainer, pl_module)
        elif trainer.is_global_zero:
            found = self._summary(trainer, pl_module)
            parts = [f"parameters: {found.total_parameters:,} ({found.model_size:.1f} MB in 32 bits)"]
            if frozen := found.total_parameters - found.trainable_parameters:
                parts.append(f"{frozen:,} of them frozen")
            if flops := getattr(found, "total_flops", 0):
                parts.append(f"{flops:,} FLOPs an image")
            log.info("%s", ", ".join(parts))

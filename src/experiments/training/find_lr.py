"""The learning-rate range test (Smith 2017, arXiv 1506.01186) on any config."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.tuner.tuning import Tuner

from experiments.errors import UserError
from experiments.training.build import build
from experiments.training.process import prepare_process


def find_lr(
    config: Mapping[str, Any],
    min_lr: float = 1e-6,
    max_lr: float = 1.0,
    steps: int = 100,
    picture: str | Path | None = None,
) -> tuple[float, float]:
    """Train ``steps`` steps at a learning rate that grows from ``min_lr`` to ``max_lr``; nothing of it stays.

    Args:
        config: what ``experiments.compose`` returns; its schedule, groups of parameters and callbacks are left out.
        picture: where to draw the loss over the learning rate, which needs matplotlib.

    Returns:
        The learning rates at which the smoothed loss fell fastest, which noise may put anywhere, and at which it was
        lowest: a tenth of that is a good start (Howard & Gugger 2020, "Deep Learning for Coders", chapter 5).

    Raises:
        UserError: if the loss never fell, or the numbers make no range.
    """
    if not 0 < min_lr < max_lr or steps < 20:
        raise UserError(
            f"min_lr={min_lr:g} must lie between 0 and max_lr={max_lr:g}, and steps={steps} be at least 20"
        )
    prepare_process()
    for talker in ("tuner.lr_finder", "trainer.connectors.checkpoint_connector"):
        logging.getLogger(f"lightning.pytorch.{talker}").setLevel(logging.WARNING)
    quiet = {"enable_progress_bar": False, "enable_checkpointing": False, "max_epochs": -1, "max_steps": steps}
    quiet["limit_val_batches"] = 0  # a network at the largest rate is not worth a look
    trainer = {**config["trainer"], **quiet}
    alone = {"callbacks": {}, "logger": {}, "param_groups": {}, "trainer": trainer, "steps_per_execution": 1}
    experiment = build({**config, **alone})
    finder: Any = Tuner(experiment.trainer).lr_find(
        experiment.classifier,
        datamodule=experiment.data,
        min_lr=min_lr,
        max_lr=max_lr,
        num_training=steps,
        update_attr=False,
    )
    suggestion = finder and finder.suggestion()
    if suggestion is None:
        raise UserError("the loss fell at no learning rate that was tried: lower min_lr, or look at network and data")
    tried = zip(finder.results["loss"], finder.results["lr"], strict=False)
    _, lowest = min((loss, lr) for loss, lr in tried if lr >= suggestion and math.isfinite(loss))
    if picture:
        try:
            Path(picture).expanduser().parent.mkdir(parents=True, exist_ok=True)
            finder.plot(suggest=True).savefig(picture)
        except (OSError, ValueError) as error:  # ValueError: no format that matplotlib writes
            raise UserError(
                f"picture={picture} cannot be written: {error}. The loss fell fastest at {suggestion:.2g}, and was "
                f"lowest at {lowest:.2g}"
            ) from error
    return float(suggestion), float(lowest)

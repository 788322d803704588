"""Save and restore what Lightning leaves out of a checkpoint: random states, half-counted metrics."""

import random
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from torchmetrics import Metric

from experiments.learning.torch_internals import set_update_count

EXACT_STATE = "exact"  # its key in a checkpoint


def exact_state(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """Random states and half-counted metrics of every rank, and the metrics logged last. Plain values and tensors.

    All ranks must call it: they exchange their states.
    """
    states = [_rank_state(module)]
    if trainer.world_size > 1:
        gathered: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(gathered, states[0])
        states = gathered
    return {"ranks": states, "logged": {name: float(value) for name, value in trainer.callback_metrics.items()}}


def restore_exact_state(trainer: Trainer, module: LightningModule, state: dict[str, Any]) -> None:
    """Put back what ``exact_state`` returned; the last thing before the first step."""
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in state["logged"].items()})
    if len(state["ranks"]) != trainer.world_size:
        return  # another number of ranks: going on is allowed, exactness is not to be had
    rank = state["ranks"][trainer.global_rank]
    for name, metric in _metrics(module).items():
        values = rank["metrics"].get(name, {})
        for key, value in values.get("states", {}).items():
            setattr(metric, key, value.to(metric.device))
        set_update_count(metric, values.get("updates", 0))
    version, internal, gauss = rank["python"]
    random.setstate((version, tuple(map(int, internal)), gauss))
    kind, keys, position, has_gauss, cached = rank["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(rank["torch"].cpu())
    if rank["cuda"] is not None and trainer.strategy.root_device.type == "cuda":
        torch.cuda.set_rng_state(rank["cuda"].cpu(), trainer.strategy.root_device)


def _rank_state(module: LightningModule) -> dict[str, Any]:
    version, internal, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": (version, torch.tensor(internal), gauss),  # a list would be pickled number by number
        "numpy": (kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(module.device) if module.device.type == "cuda" else None,
        "metrics": {
            name: {
                "states": {
                    key: value.clone() for key, value in metric.metric_state.items() if torch.is_tensor(value)
                },
                "updates": metric.update_count,
            }
            for name, metric in _metrics(module).items()
        },
    }


def _metrics(module: LightningModule) -> dict[str, Metric]:
    return {name: part for name, part in module.named_modules() if isinstance(part, Metric)}

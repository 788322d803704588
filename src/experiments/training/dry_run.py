"""Do what ``check=true`` asks: build everything, run one batch through every stage, write nothing."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning import Trainer, seed_everything
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from experiments.data.download import forbidden
from experiments.data.memory import format_bytes
from experiments.training.build import build, build_trainer

log = logging.getLogger(__name__)


def dry_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """Build what a config describes and take one batch through training, validation and test, on one device.

    Nothing is written or downloaded; loggers and checkpoints are built and left alone. Returns ``status`` (checked),
    ``parameters`` and the bytes that a training step takes.

    Raises:
        UserError: for what the run itself would end with.
    """
    seed_everything(config["seed"], workers=True, verbose=False)
    with TemporaryDirectory() as folder, forbidden("check=true writes nothing"), _unchanged_logging():
        build_trainer(config)  # with its own devices and strategy
        data = {**config["data"], **({"cache": folder} if "cache" in config["data"] else {})}
        trainer = {
            **config["trainer"],
            "default_root_dir": folder,
            "fast_dev_run": 1,
            "devices": 1,
            "num_nodes": 1,
            "strategy": "auto",
            "enable_progress_bar": False,
            "profiler": None,
        }
        quiet = {"progress": None, "model_summary": None}
        callbacks = {name: part for name, part in config["callbacks"].items() if name not in quiet}
        experiment = build({**config, "data": data, "trainer": trainer, "callbacks": callbacks})
        run: Trainer = experiment.trainer
        run.fit(experiment.classifier, datamodule=experiment.data)
        measured = {name: float(value) for name, value in run.callback_metrics.items()}
        memory = _memory(run, config)
        if config["test"]:
            (results,) = run.test(experiment.classifier, datamodule=experiment.data, verbose=False)
            measured |= {name: float(value) for name, value in results.items()}
    net = getattr(experiment.classifier, "net", experiment.classifier)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    log.info("%s", net)
    log.info("parameters: %s", f"{parameters:,}")
    log.info(
        "memory of a training step: %s", ", ".join(f"{name} {format_bytes(size)}" for name, size in memory.items())
    )
    log.info("one batch each: %s", "  ".join(f"{name} {value:.4f}" for name, value in sorted(measured.items())))
    log.info("no mistake found; nothing was written")
    return {"status": "checked", "parameters": parameters, "bytes": sum(memory.values())}


def _memory(run: Trainer, config: Mapping[str, Any]) -> dict[str, int]:
    """Bytes that a training step takes: what can be counted, and a GPU's peak where it is one."""
    module: Any = run.lightning_module
    parameters = list(module.parameters())
    state = [part for optimizer in run.optimizers for held in optimizer.state.values() for part in held.values()]
    found = {
        "weights": sum(value.nbytes for value in [*parameters, *module.buffers()]),
        "gradients": sum(value.nbytes for value in parameters if value.requires_grad),
        "optimizer": sum(value.nbytes for value in state if isinstance(value, torch.Tensor)),
    }
    batch = next(iter(run.datamodule.train_dataloader()))  # type: ignore[attr-defined]
    images = run.datamodule.on_after_batch_transfer(batch, 0)[0].to(module.device)  # type: ignore[attr-defined]
    found["activations"] = kept_for_backward(getattr(module, "net", module), images)
    if module.device.type == "cuda":
        found["peak on the GPU"] = torch.cuda.max_memory_allocated(module.device)
    return found


@contextmanager
def _unchanged_logging() -> Iterator[None]:
    """Keep Lightning from saying what a rehearsal does not need to hear."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def kept_for_backward(net: nn.Module, images: torch.Tensor) -> int:
    """Bytes that a training step on the images keeps until its backward pass, without parameters and images."""
    own = {value.untyped_storage().data_ptr() for value in [*net.parameters(), *net.buffers(), images]}
    kept: dict[int, int] = {}

    def keep(saved: torch.Tensor) -> torch.Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()  # several saved tensors may be views of one storage
        return saved

    net.train()
    with torch.random.fork_rng(devices=[]), saved_tensors_hooks(keep, lambda saved: saved):
        output = net(images)
    del output  # until here the graph held what was saved: no address can have been taken twice
    return sum(kept.values())

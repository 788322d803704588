"""What a run tells its loggers about itself: hyperparameters, the config and network as text, final results."""

from collections.abc import Iterable, Mapping
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf
from torch import nn
from torch.utils.tensorboard.summary import hparams

RESULTS = ("val/accuracy", "test/accuracy", "test/loss", "train_seconds")


def hyperparameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """The flat, readable hyperparameters of a config: short names, plain values, classes by their name."""
    sections = {
        "net": config["model"].get("net") or {},
        "data": config["data"],
        "loss": config["loss"],
        "optimizer": config["optimizer"],
        "scheduler": config["scheduler"] or {},
    }
    flat: dict[str, Any] = {"seed": config["seed"], "max_epochs": config["trainer"]["max_epochs"]}
    for section, values in sections.items():
        for name, value in values.items():
            if name == "_target_":
                flat[section] = str(value).rpartition(".")[2]
            elif isinstance(value, (str, int, float)) and not name.startswith("_"):
                flat[f"{section}.{name}"] = value
            elif isinstance(value, list):
                flat[f"{section}.{name}"] = str(value)
    return flat


@rank_zero_only  # on other ranks a logger is a dummy
def introduce(loggers: Iterable[Logger], config: Mapping[str, Any], net: nn.Module) -> None:
    """Before training: hyperparameters to every logger; config and network as text to TensorBoard."""
    flat = hyperparameters(config)
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.hparams.update(flat)  # what hparams.yaml will say
            # The HPARAMS tab shows a column only for metrics that are named at the start. Their values come at the
            # end; log_hyperparams would write one now, which the tab shows as a result.
            for summary in hparams(flat, {f"hp/{name}": 0.0 for name in RESULTS}):
                logger.experiment.file_writer.add_summary(summary)
            logger.experiment.add_text("config", f"```yaml\n{OmegaConf.to_yaml(OmegaConf.create(dict(config)))}```")
            logger.experiment.add_text("network", f"```\n{net}\n```")
        else:
            logger.log_hyperparams(flat)


@rank_zero_only
def conclude(loggers: Iterable[Logger], summary: Mapping[str, Any]) -> None:
    """After training: the final results, under the names that ``introduce`` gave."""
    results = {f"hp/{name}": summary[name] for name in RESULTS if summary.get(name) is not None}
    for logger in loggers:
        logger.log_metrics(results, step=summary["steps"])
        logger.save()
        logger.finalize("success")

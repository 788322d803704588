"""Tell loggers about a run: hyperparameters, config and network as text, pictures, results."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from textwrap import indent
from typing import Any

import numpy as np
from lightning.pytorch import loggers as lightning
from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf
from PIL.Image import Image
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from torch import nn
from torch.utils.tensorboard.summary import hparams

from experiments.monitoring.loggers.trackers import TensorBoardLogger
from experiments.runs.run_directory import on_test

log = logging.getLogger(__name__)
RESULTS = ("val/accuracy", "val/loss", "test/accuracy", "test/loss", "train_seconds", "parameters")
MAIN_COLUMNS = ("data", "net", "optimizer", "optimizer.lr", "seed")


# where files lie and how fast they are read changes nothing that is learned
NOT_HYPERPARAMETERS = ("data.root", "data.cache", "data.seed", "data.eval_batch_size")


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
    if config.get("tags"):
        flat["tags"] = ", ".join(config["tags"])
    if config.get("note"):
        flat["note"] = str(config["note"])
    for section, values in sections.items():
        for name, value in values.items():
            if name == "_target_":
                flat[section] = str(value).rpartition(".")[2]
            elif f"{section}.{name}" in NOT_HYPERPARAMETERS:
                continue
            elif isinstance(value, (str, int, float)) and not name.startswith("_"):
                flat[f"{section}.{name}"] = value
            elif isinstance(value, list):
                flat[f"{section}.{name}"] = str(value)
    if augment := config["data"].get("augment"):
        flat["data.augment"] = ", ".join(name for name, value in augment.items() if value)
    return flat


@rank_zero_only  # on other ranks a logger is a dummy
def log_start(loggers: Iterable[Logger], config: Mapping[str, Any], net: nn.Module) -> None:
    """Before training: hyperparameters to every logger; config and network as text to TensorBoard."""
    flat = hyperparameters(config)
    for logger in loggers:
        if isinstance(logger, lightning.TensorBoardLogger):
            logger.hparams.update(flat)  # what hparams.yaml will say
            # The HPARAMS tab shows a column only for metrics that are named at the start. Their values and the
            # session's end come at the end; log_hyperparams would write both now, and the tab show them as results.
            names = results(str(config["monitor"]))
            expected = [name for name in names if config["test"] or not name.startswith("test/")]
            readable = {
                name: str(value).lower() if isinstance(value, bool) else value for name, value in flat.items()
            }
            experiment, start, _ = hparams(readable, {f"hp/{name}": 0.0 for name in expected})
            for summary in (_main_first(experiment), start):
                logger.experiment.file_writer.add_summary(summary)
            # indented, not fenced: no value can end the block
            text = OmegaConf.to_yaml(OmegaConf.create(dict(config)))
            logger.experiment.add_text("config", indent(text, "    ", lambda line: True))
            logger.experiment.add_text("network", indent(str(net), "    ", lambda line: True))
        else:
            logger.log_hyperparams(flat)


def results(monitor: str) -> list[str]:
    """Which of a run's results loggers show beside its hyperparameters: also what is monitored."""
    return list(dict.fromkeys((*RESULTS, monitor, on_test(monitor))))


@rank_zero_only
def log_end(loggers: Iterable[Logger], summary: Mapping[str, Any], monitor: str) -> None:
    """After training, or what there was of it: the final results, under the names that ``log_start`` gave."""
    failed = summary["status"] == "failed"
    values = {f"hp/{name}": summary[name] for name in results(monitor) if summary.get(name) is not None}
    for logger in loggers:
        logger.log_metrics(values, step=summary.get("steps", 0))
        if isinstance(logger, lightning.TensorBoardLogger):
            logger.experiment.file_writer.add_summary(_session_end(failed))
        logger.save()
        logger.finalize("failed" if failed else "success")
        if isinstance(logger, TensorBoardLogger):
            logger.close()
        elif isinstance(logger, MLFlowLogger):
            log.info("MLflow: mlflow ui --backend-store-uri %s", logger.experiment.tracking_uri)
        elif isinstance(logger, WandbLogger):  # else the next run of this process would go on in it
            logger.experiment.finish(exit_code=int(failed))


def _main_first(experiment: Summary) -> Summary:
    """The HPARAMS tab shows the first few columns: what it is told differs between runs, then the rest by name."""
    plugin = experiment.value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(plugin.content)
    for info in content.experiment.hparam_infos:
        info.differs = info.name in MAIN_COLUMNS
    plugin.content = content.SerializeToString()
    return experiment


def _session_end(failed: bool) -> Summary:
    """What torch's ``hparams`` makes for a success, and cannot for a failure."""
    end = SessionEndInfo(status=STATUS_FAILURE if failed else STATUS_SUCCESS)
    content = HParamsPluginData(session_end_info=end, version=metadata.PLUGIN_DATA_VERSION).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content)
    tag = metadata.SESSION_END_INFO_TAG
    return Summary(value=[Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))])


@rank_zero_only
def log_values(loggers: Iterable[Logger], values: Mapping[str, float], step: int) -> None:
    """Values at an optimizer step, counted from 0 as Lightning does."""
    for logger in loggers:
        logger.log_metrics(dict(values), step=step)


def take_pictures(loggers: Sequence[Logger]) -> bool:
    """Whether drawing is worth it."""
    return any(isinstance(each, (lightning.TensorBoardLogger, WandbLogger, MLFlowLogger)) for each in loggers)


@rank_zero_only
def log_picture(loggers: Iterable[Logger], name: str, picture: Image, step: int) -> None:
    """A picture to every logger that takes pictures."""
    for logger in loggers:
        if isinstance(logger, lightning.TensorBoardLogger):
            logger.experiment.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(name, [picture], step)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, picture, artifact_file=f"{name}.png")

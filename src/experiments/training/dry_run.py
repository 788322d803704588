"""Do what ``check=true`` asks: build everything, run one batch through every stage, write nothing."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from lightning import Trainer, seed_everything

from experiments.data.download import forbidden
from experiments.nets.timm_networks import require_weights
from experiments.runs.allowed_classes import PRETRAINED, without_pretrained_weights
from experiments.training.build import build, build_trainer
from experiments.training.pretrained import weights_file

log = logging.getLogger(__name__)


def dry_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """Build what a config describes and take one batch through training, validation and test, on one device.

    Nothing is written or downloaded; loggers and checkpoints are built and left alone. Returns ``status`` (checked)
    and ``parameters``.

    Raises:
        UserError: for what the run itself would end with.
    """
    seed_everything(config["seed"], workers=True, verbose=False)
    with TemporaryDirectory() as folder, forbidden("check=true writes nothing"), _unchanged_logging():
        store = {"tracking_uri": f"sqlite:///{folder}/mlflow.db"}  # which MLflow makes when it is built
        loggers = {
            name: {**part, **store} if "tracking_uri" in part else part
            for name, part in (config["logger"] or {}).items()
            if part
        }
        config = {**config, "logger": loggers}
        described = config["model"].get("net") or {}
        if not weights_file(described):
            config["model"] = without_pretrained_weights(config["model"])
        if described.get("_target_") == PRETRAINED and described.get("weights") == "default":
            require_weights(described["name"])
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
        parts = {"data": data, "trainer": trainer, "callbacks": callbacks}
        experiment = build({**config, **parts, "steps_per_execution": "auto"})  # one batch is no list
        run: Trainer = experiment.trainer
        run.fit(experiment.classifier, datamodule=experiment.data)
        measured = {name: float(value) for name, value in run.callback_metrics.items()}
        if config["test"]:
            (results,) = run.test(experiment.classifier, datamodule=experiment.data, verbose=False)
            measured |= {name: float(value) for name, value in results.items()}
    net = getattr(experiment.classifier, "net", experiment.classifier)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    log.info("%s", net)
    log.info("parameters: %s", f"{parameters:,}")
    log.info("one batch each: %s", "  ".join(f"{name} {value:.4f}" for name, value in sorted(measured.items())))
    log.info("no mistake found; nothing was written")
    return {"status": "checked", "parameters": parameters}


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

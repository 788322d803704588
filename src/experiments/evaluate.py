"""Measure a finished run again, from its directory alone."""

from collections.abc import Sequence
from pathlib import Path

from lightning import Trainer

from experiments import checkpoints, runs
from experiments.build import build_classifier, check_accelerator, make
from experiments.errors import UserError
from experiments.run import prepare_process
from experiments.trust import check_config


def evaluate(
    run: str | Path,
    checkpoint: str | Path | None = None,
    root: str | None = None,
    accelerator: str = "auto",
    trust: Sequence[str] = (),
) -> dict[str, float]:
    """Return ``test/accuracy`` and the other test metrics of a run's best checkpoint.

    Args:
        run: the run directory.
        checkpoint: another checkpoint than the best.
        root: where the data set's files lie, if not where the run found them.
        accelerator: as Lightning names them.
        trust: packages of your own that the run's config may name.

    Raises:
        UserError: if the directory holds no whole run, or its config names what is not trusted.
    """
    prepare_process()
    check_accelerator(accelerator)
    run = Path(run)
    config = runs.read_config(run)
    parts = ("data", "model", "loss", "optimizer", "scheduler", "metrics")
    check_config({part: config.get(part) for part in parts}, str(run / "config.yaml"), trust)
    path = Path(checkpoint) if checkpoint else runs.best_checkpoint(run)
    if root is not None:
        if "root" not in config["data"]:
            raise UserError(f"root={root}: the data set of this run, {config['data']['_target_']}, has no files")
        config["data"]["root"] = root
    data = make(config["data"])
    classifier = build_classifier(config, data)
    trainer = Trainer(
        accelerator=accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    checkpoints.load_weights(classifier, path)
    (results,) = trainer.test(classifier, datamodule=data, verbose=False)
    return {name: float(value) for name, value in results.items()}

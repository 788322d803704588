"""Measure a finished run again, from its directory alone, on its own test split or on other data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException

from experiments.config.checks.check import describe_mistake, require_none
from experiments.config.checks.classes import class_mistakes
from experiments.config.checks.ranges import MATMUL_PRECISIONS
from experiments.config.checks.sections import section
from experiments.config.checks.values import out_of_place
from experiments.config.compose import compose
from experiments.config.plain_values import given_values
from experiments.data import ImageFolder
from experiments.errors import UserError, did_you_mean
from experiments.inference.load import load_ensemble
from experiments.monitoring import Confusion
from experiments.monitoring.per_class import Predictions, write_class_tables
from experiments.runs.allowed_classes import check_allowed, check_paths, without_pretrained_weights
from experiments.runs.checkpoint_files import read_checkpoint
from experiments.runs.run_directory import best_checkpoint, expand_multirun, read_config
from experiments.runs.state_dicts import load_weights, network_card
from experiments.training.build import build_classifier, constructing, facts, make
from experiments.training.devices import check_accelerator
from experiments.training.process import prepare_process

FOR_TRAINING = ("limit", "batch_size", "balanced", "augment")
SPLIT = ("_target_", "split", "val_size", "test_size", "num_folds", "fold")  # what decides who is a validation image


def evaluate(
    run: str | Path | Sequence[str | Path],
    checkpoint: str | Path | None = None,
    data: str | None = None,
    data_keys: Sequence[str] = (),
    accelerator: str = "auto",
    trust: Sequence[str] = (),
    split: str = "test",
    output: str | Path | None = None,
) -> dict[str, float]:
    """Return ``test/accuracy`` and the other test metrics of a run's best checkpoint.

    Of several runs, the mean of their networks' probabilities is measured, on the data of the first. Other data must
    have the image shape and the number of classes that the network was built for. They are normalised as the
    network's own training data were. Computed in the run's precision.

    Args:
        run: the run directory, or those of an ensemble; a multirun's directory is the ensemble of its finished runs.
        checkpoint: another checkpoint than the best.
        data: another data set than the run's: a choice of ``conf/data``.
        data_keys: the data set's own keys, such as ``data.root=<where its files lie now>``.
        accelerator: as Lightning names them.
        trust: packages of your own that the run's config may name.
        split: ``test`` or ``val``: what to choose an ensemble's members by.
        output: a folder for ``per_class_<split>.csv``, ``confusion_<split>.csv`` and ``predictions_<split>.csv``.

    Raises:
        UserError: if the directory holds no whole run, its config names what is not trusted, or the data or the
            networks of an ensemble do not fit.
    """
    prepare_process()
    check_accelerator(accelerator)
    if split not in ("test", "val"):
        raise UserError(f"split={split} is not one of test, val")
    named = [run] if isinstance(run, (str, Path)) else [*run] or [""]
    run, *others = [found for one in named for found in expand_multirun(Path(one))]
    if others and checkpoint:
        raise UserError("checkpoint= names one network's: leave it out for an ensemble of several runs")
    if run.is_file():
        raise UserError(f"run={run} is a file: name the run's directory, and a checkpoint in it by checkpoint=")
    config = without_pretrained_weights(read_config(run))
    parts = ("data", "model", "loss", "optimizer", "scheduler", "metrics")
    check_allowed({part: config.get(part) for part in parts}, str(run / "config.yaml"), trust)
    source = run / "config.yaml"
    for part in ("data", "model", "loss", "optimizer"):
        if not isinstance(config.get(part), dict) or "_target_" not in config[part]:
            raise UserError(f"{source} is damaged: it names no {part}")
    config = {
        "scheduler": None,
        "matmul_precision": "highest",
        **config,
        "metrics": config.get("metrics") or {},
        "param_groups": {},
    }
    if (matmul := config["matmul_precision"]) not in MATMUL_PRECISIONS:
        raise UserError(
            f"{source} is damaged: matmul_precision={matmul} is not one of {', '.join(MATMUL_PRECISIONS)}"
        )
    torch.set_float32_matmul_precision(matmul)
    if split == "val":
        _require_same_validation(config, run, others)
    path = Path(checkpoint) if checkpoint else best_checkpoint(run)
    checkpoint_content = read_checkpoint(path)
    card = checkpoint_content.get("hyper_parameters", {}).get("card") or {}
    if data is None:
        measured = _with_keys(config["data"], data_keys)
        check_paths({"data": measured}, run, [argument.partition("=")[0] for argument in data_keys])
    else:
        card = network_card(checkpoint_content, path)
        check_allowed(card["net"], str(path), trust)
        where = [f"data_root={config['data_root']}"] if isinstance(config.get("data_root"), str) else []
        measured = compose(*where, f"data={data}", *data_keys)["data"]
        if measured["_target_"] == config["data"]["_target_"]:  # the run's own data set, where it lies
            measured = _with_keys(config["data"], data_keys)
    unused = FOR_TRAINING if split == "val" else (*FOR_TRAINING, "val_size", "seed", "num_folds", "fold")
    for_training = [key for key in unused if any(given.startswith(f"data.{key}=") for given in data_keys)]
    if for_training:
        raise UserError(
            f"data.{for_training[0]}: it changes nothing of the {split} split, all of which is measured. Leave it out"
        )
    found = [describe_mistake(*fault, data_keys) for fault in out_of_place({"data": measured}, "data")]
    require_none(found or class_mistakes({"data": measured}, data_keys))
    module = make(measured, "data")
    same_set = measured["_target_"] == config["data"]["_target_"]
    if same_set and _trained_the_run(module, config["data"], checkpoint_content, split):
        _require_unseen(measured, config["data"], split)
    if data is not None:
        _require_fit(card, module, data)
        config["model"]["net"] = without_pretrained_weights(card["net"])
    if card.get("mean"):
        module.mean, module.std = card["mean"], card["std"]  # what the network was trained with
    try:
        classifier = build_classifier(config, module)
    except (RuntimeError, MemoryError) as error:
        raise UserError(f"what {source} describes cannot be built: {str(error).splitlines()[0]}") from error
    if not others:
        load_weights(classifier, checkpoint_content.get("state_dict"), str(path))
    else:
        classifier.net = load_ensemble([best_checkpoint(one) for one in (run, *others)], trust)
    if output and (output_type := getattr(classifier, "outputs", "classes")) != "classes":
        raise UserError(f"output={output}: its tables are of classes, and this network's outputs are {output_type}")
    confusion, predictions = Confusion(), Predictions()
    with constructing("lightning.Trainer"):
        trainer = Trainer(
            accelerator=accelerator,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[confusion, predictions] if output else None,
            precision=section(config, "trainer").get("precision", "32-true"),
        )
    measure = trainer.test if split == "test" else trainer.validate
    try:
        results = measure(classifier, datamodule=module, verbose=False)
    except MisconfigurationException as error:  # a data set of the user's own may lack the split
        raise UserError(f"the {split} split cannot be measured: {str(error).splitlines()[0]}") from error
    if len(results) != 1:
        raise UserError(f"the {split} split has {len(results)} loaders: evaluate measures one")
    if output:
        if split not in confusion.matrices:
            raise UserError(f"output={output}: the data set does not say what its classes are, so there is no table")
        write_class_tables(Path(output), split, confusion.matrices[split].numpy(), confusion.class_names)
        files = (
            [path for path, _ in module.files["test"]]
            if isinstance(module, ImageFolder) and split == "test"
            else None
        )
        predictions.write(Path(output) / f"predictions_{split}.csv", files)
    return {name: float(value) for name, value in results[0].items()}


def _with_keys(config: dict[str, Any], data_keys: Sequence[str]) -> dict[str, Any]:
    """The run's own data config with some keys changed."""
    given = {key.removeprefix("data."): value for key, value in given_values(data_keys).items()}
    for key, argument in zip(given, data_keys, strict=True):
        if key not in config:
            raise UserError(
                f"{argument}: the data set of this run, {config['_target_']}, has no such key."
                f"{did_you_mean(key, list(config))} There are {', '.join(list(config)[1:])}"
            )
    return {**config, **given}


def _trained_the_run(
    module: LightningDataModule, trained: Mapping[str, Any], checkpoint: Mapping[str, Any], split: str
) -> bool:
    """Whether a data set of the run's kind holds the images that trained it: a folder, if its files are the same.

    Raises:
        UserError: if the run's folder has changed since, where its splits are drawn from all of its files.
    """
    if not isinstance(module, ImageFolder):
        return True
    before = (checkpoint.get("ImageFolder") or checkpoint.get("ImageTable") or {}).get("files")
    if before in (None, module.fingerprint):
        return True
    same_root = Path(str(trained.get("root"))).expanduser().resolve() == module.root.resolve()
    if same_root and split in module.drawn:
        raise UserError(
            f"the files in {module.root} are not those that the run was trained with, so split={split} would be "
            "drawn anew and hold images that trained it: restore them, or put images of their own into "
            f"{module.root / split}"
        )
    return False


def _require_unseen(measured: Mapping[str, Any], trained: Mapping[str, Any], split: str) -> None:
    """Raise UserError where a split of the images that a run was trained with would hold some that trained it."""
    for key in SPLIT if split == "val" else ("test_size", "split"):
        if measured.get(key) != trained.get(key):
            raise UserError(
                f"data.{key}={measured.get(key)} with split={split} would measure images that the network was "
                f"trained on: its run has data.{key}={trained.get(key)}"
            )


def _require_same_validation(config: Mapping[str, Any], run: Path, others: Sequence[Path]) -> None:
    """Raise UserError where validation images of the first run may have trained another one."""
    for other in others:
        theirs = section(read_config(other), "data")
        for key in SPLIT:
            if (mine := config["data"].get(key)) != theirs.get(key):
                raise UserError(
                    f"{other} was trained with data.{key}={theirs.get(key)}, {run} with {mine}: one's validation "
                    "images trained the other, so split=val says nothing of their ensemble"
                )


def _require_fit(card: Mapping[str, Any], module: LightningDataModule, data: str) -> None:
    """Raise UserError if a network cannot be measured on a data set."""
    known = facts(module)
    if missing := {"in_channels", "num_classes"} - set(known):
        lacking = {"in_channels": "image_shape", "num_classes": "num_classes"}[missing.pop()]
        raise UserError(f"data={data} does not say its {lacking}, so nothing tells whether the network fits it")
    theirs = [known["in_channels"], *known["image_size"]], known["num_classes"]
    ours = card["image_shape"], len(card["class_names"])
    if theirs != ours:
        has, wants = (
            f"images of {' × '.join(map(str, shape))} in {classes} classes" for shape, classes in (theirs, ours)
        )
        raise UserError(f"data={data} has {has}; the network of this run was built for {wants}")

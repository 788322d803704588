"""Find what is right by itself and does not go together."""

from collections.abc import Iterator, Mapping
from typing import Any

from experiments.config.checks.ranges import WORST
from experiments.config.checks.sections import OURS, Config, number_at, section, shown, value_at
from experiments.errors import did_you_mean


def combinations(config: Config) -> Iterator[tuple[str, Any, str]]:
    """What is right by itself and does not go together."""

    def get(name: str) -> Any:
        return value_at(config, name)

    if get("check") is True and get("resume") is not None:
        yield "check", True, "looks at new runs: leave out resume"
    folds, fold = get("data.num_folds"), get("data.fold")
    if str(get("data._target_")).startswith(OURS):
        if (folds is None) != (fold is None):
            missing = "data.fold" if fold is None else "data.num_folds"
            yield missing, None, f"must be given with data.num_folds={shown(folds)} and data.fold={shown(fold)}"
        elif type(folds) is int and type(fold) is int and 0 <= folds <= fold:
            yield "data.fold", fold, f"must be from 0 to {folds - 1}, with data.num_folds={folds}"
    least, most = number_at(config, "trainer.min_epochs"), number_at(config, "trainer.max_epochs")
    if least is not None and most is not None and 0 < most < least:
        yield "trainer.min_epochs", least, f"exceeds trainer.max_epochs={most}"
    if get("optimizer.nesterov") is True and get("optimizer.momentum") == 0:
        yield "optimizer.nesterov", True, "needs a momentum above 0: optimizer.momentum=0.9"
    every = section(config, "trainer").get("check_val_every_n_epoch", 1)
    if every is None and str(get("scheduler._target_")).endswith("OnPlateau"):
        yield (
            "trainer.check_val_every_n_epoch",
            None,
            "leaves epochs without a validation, which scheduler=plateau watches: set it to 1",
        )
    half = get("trainer.precision") in ("16-mixed", "16", 16)
    if half and get("optimizer.fused") is True and get("trainer.gradient_clip_val"):
        yield (
            "trainer.gradient_clip_val",
            get("trainer.gradient_clip_val"),
            (
                "cannot act on a fused optimizer in 16-bit precision: add optimizer.fused=false, or use "
                "trainer.precision=bf16-mixed"
            ),
        )
    mixing = [
        key
        for key, part in section(config, "augment").items()
        if str(value_at(part, "_target_")).endswith(("Mixup", "Cutmix"))
    ]
    if mixing and get("loss._target_") in ("torch.nn.MultiMarginLoss", "torch.nn.NLLLoss"):
        yield (
            "loss._target_",
            get("loss._target_"),
            (f"takes whole classes as labels, and augment={mixing[0]} blends them: use loss=cross_entropy or focal"),
        )
    callbacks = {key: part for key, part in section(config, "callbacks").items() if isinstance(part, Mapping)}
    if get("trainer.overfit_batches") and str(get("data._target_")).startswith(OURS):
        yield (
            "trainer.overfit_batches",
            get("trainer.overfit_batches"),
            "does not go with data in memory: debug=overfit trains on a few images, data.limit on any number of them",
        )
    if get("trainer.enable_progress_bar") is False and "progress" in callbacks:
        yield "trainer.enable_progress_bar", False, "needs callbacks.progress=null beside it"
    loggers = [part for part in section(config, "logger").values() if part]
    for key, part in callbacks.items():
        if str(part.get("_target_")).endswith(".LearningRateMonitor") and not loggers:
            yield (
                f"callbacks.{key}",
                "",
                f"needs a logger, and there is none: add callbacks.{key}=null, or choose one, such as logger=csv",
            )
    if get("model._target_") == "experiments.learning.Classifier":
        yield from _monitored(config, callbacks)


def _monitored(config: Config, callbacks: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Callbacks that watch what is never logged, or watch it the wrong way round."""
    no_validation = number_at(config, "trainer.limit_val_batches") == 0
    every, epochs = (number_at(config, f"trainer.{key}") for key in ("check_val_every_n_epoch", "max_epochs"))
    never = every is not None and epochs is not None and 0 < epochs < every
    measured = ["loss", "accuracy", *(name for name, part in section(config, "metrics").items() if part)]
    logged = ["train/loss", "train/accuracy", *(f"val/{name}" for name in measured)]
    for key, part in callbacks.items():
        name, monitor, mode = f"callbacks.{key}.monitor", part.get("monitor"), part.get("mode")
        if monitor is None or not str(part.get("_target_")).startswith("lightning."):
            continue
        if monitor not in logged and not str(part.get("_target_")).endswith("ThroughputMonitor"):
            near = did_you_mean(str(monitor), logged)
            yield name, monitor, f"is not logged.{near} There are {', '.join(logged)}"
        elif str(monitor).startswith("val/") and (no_validation or never):
            cause = "trainer.limit_val_batches=0" if no_validation else f"trainer.check_val_every_n_epoch={every}"
            yield (
                name,
                monitor,
                f"is never measured: {cause} leaves no validation. Watch train/loss, or set callbacks.{key}=null",
            )
        elif WORST.get(str(monitor).rpartition("/")[2]) == mode:
            better = "min" if mode == "max" else "max"
            yield f"callbacks.{key}.mode", mode, f"keeps the worst {monitor}: it must be {better}"

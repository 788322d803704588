"""Find what is right by itself and does not go together."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.config.checks.ranges import WORST
from experiments.config.checks.sections import OURS, Config, number_at, section, value_at
from experiments.config.plain_values import CLASSIFIER, TASKS
from experiments.errors import did_you_mean

UNFIT = {  # callbacks of Lightning's that no run can be with
    "LearningRateFinder": "is a search before the run: type scripts/find_lr.py with what train.py takes",
    "BatchSizeFinder": "changes the batch size under way: check=true tells the memory of a data.batch_size",
    "BackboneFinetuning": 'is for modules with a backbone of this name: type "callbacks=[default,freeze]"',
}


def combinations(config: Config) -> Iterator[tuple[str, Any, str]]:
    """What is right by itself and does not go together."""

    def get(name: str) -> Any:
        return value_at(config, name)

    if get("check") is True and get("resume") is not None:
        yield "check", True, "looks at new runs: leave out resume"
    folds, fold = get("data.num_folds"), get("data.fold")
    if str(get("data._target_")).startswith(OURS):
        if (folds is None) != (fold is None):
            given, other = ("data.num_folds", "data.fold=0") if fold is None else ("data.fold", "data.num_folds=5")
            yield given, get(given), f"needs the other one too, such as {other}"
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
    if get("trainer.use_distributed_sampler") is True and str(get("data._target_")).startswith(OURS):
        yield "trainer.use_distributed_sampler", True, "would split batches twice: data share them out by themselves"
    loggers = [part for part in section(config, "logger").values() if part]
    for key, part in callbacks.items():
        kind = str(part.get("_target_")).rpartition(".")[2]
        if (fault := UNFIT.get(kind)) and (kind != "BackboneFinetuning" or get("model._target_") in TASKS):
            yield f"callbacks.{key}", "", fault
        if str(part.get("_target_")).endswith(".LearningRateMonitor") and not loggers:
            yield (
                f"callbacks.{key}",
                "",
                f"needs a logger, and there is none: add callbacks.{key}=null, or choose one, such as logger=csv",
            )
    strategy = get("trainer.strategy")
    if isinstance(strategy, str) and ("_spawn" in strategy or "_fork" in strategy or "_notebook" in strategy):
        way = re.sub("_spawn|_fork|_notebook", "", strategy)
        yield (
            "trainer.strategy",
            strategy,
            f"trains in processes whose results never come back to this one: use trainer.strategy={way}",
        )
    if get("trainer.limit_train_batches") == 0:
        yield "trainer.limit_train_batches", 0, "trains nothing: scripts/evaluate.py run=... measures a run"
    if get("trainer.limit_test_batches") == 0 and get("test") is True:
        yield "trainer.limit_test_batches", 0, "leaves nothing to test: add test=false"
    if get("trainer.barebones") is True and (callbacks or loggers):
        yield "trainer.barebones", True, "takes no callbacks and no logger: add callbacks=none logger=none"
    precision = get("trainer.precision")
    if get("model.outputs") == "values" and precision in ("bf16-true", "16-true"):
        yield "trainer.precision", precision, "rounds the values to learn: type bf16-mixed or 16-mixed"
    if get("model._target_") in TASKS:
        yield from _monitored(config, callbacks)


def _monitored(config: Config, callbacks: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """What is monitored and never logged, or watched the wrong way round."""
    no_validation = number_at(config, "trainer.limit_val_batches") == 0
    every, epochs = (number_at(config, f"trainer.{key}") for key in ("check_val_every_n_epoch", "max_epochs"))
    never = every is not None and epochs is not None and 0 < epochs < every
    own = ["loss", "accuracy"] if value_at(config, "model._target_") == CLASSIFIER else ["loss"]
    measured = [*own, *(name for name, part in section(config, "metrics").items() if part)]
    logged = [
        *(f"train/{name}" for name in own),
        "train/loss_step",
        "step",
        "epoch",
        *(f"val/{name}" for name in measured),
    ]
    main = config.get("monitor"), config.get("mode")
    plateau = str(value_at(config, "scheduler._target_")).endswith("OnPlateau")
    watched = {"": main} | ({"scheduler.": (main[0], value_at(config, "scheduler.mode"))} if plateau else {})
    for key, part in callbacks.items():
        target = str(part.get("_target_"))
        if part.get("monitor") is not None and target.startswith("lightning.") and "ThroughputM" not in target:
            watched[f"callbacks.{key}."] = part["monitor"], part.get("mode")
    unlogged = main[0] not in logged
    for prefix, (monitor, mode) in watched.items():
        ours = prefix.startswith("callbacks.") or not prefix
        if monitor not in logged:
            near = did_you_mean(str(monitor), logged)
            if not prefix or not (unlogged and monitor == main[0]):
                yield f"{prefix}monitor", monitor, f"is not logged.{near} There are {', '.join(logged)}"
        elif str(monitor).startswith("val/") and (no_validation or never) and prefix:
            cause = "trainer.limit_val_batches=0" if no_validation else f"trainer.check_val_every_n_epoch={every:g}"
            off = f"callbacks.{prefix.split('.')[1]}=null" if ours else "scheduler=none"
            name = f"{prefix}monitor" if ours else "scheduler"
            yield name, monitor if ours else "", f"is never measured: {cause} leaves no validation. Set {off}"
        elif WORST.get(str(monitor).rpartition("/")[2]) == mode and (not prefix or (monitor, mode) != main):
            yield f"{prefix}mode", mode, f"keeps the worst {monitor}: it must be {'min' if mode == 'max' else 'max'}"

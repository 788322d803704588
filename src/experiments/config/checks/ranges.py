"""State which range and kind each value of a config must have."""

import math
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from experiments.errors import did_you_mean


def _number(low: float, high: float = math.inf, words: str = "", above: bool = False) -> tuple[Any, str]:
    def test(value: Any) -> bool:
        finite = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return finite and (low < value if above else low <= value) and value <= high

    words = words or (f"more than {low:g}" if above else f"at least {low:g}")
    return test, f"a number {words}" + (f", up to {high:.10g}" if high < math.inf else "")


def _whole(low: int, high: float = math.inf, also: tuple[Any, ...] = ()) -> tuple[Any, str]:
    def test(value: Any) -> bool:
        return value in also or (type(value) is int and low <= value <= high)

    words = f"a whole number from {low} to {high:.10g}" if high < math.inf else f"a whole number of at least {low}"
    return test, " or ".join([words, *map(str, also)])


def _one_of(*choices: Any) -> tuple[Any, str]:
    return lambda value: value in choices, "one of " + ", ".join(map(str, choices))


def _share_or_count(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf and (value <= 1 or value == int(value))


def _part_of_an_epoch(value: Any) -> bool:
    return (type(value) is int and value >= 0) or (type(value) is float and 0 <= value <= 1)


def _widths(value: Any) -> bool:
    return all(type(width) is int and width > 0 for width in (value if isinstance(value, list) else [value]))


def _is_name(value: Any) -> bool:
    parts = Path(str(value)).parts
    return bool(parts) and ".." not in parts and not Path(str(value)).is_absolute() and "\0" not in str(value)


def _pair_below_1(value: Any) -> bool:
    return len(value) == 2 and all(type(part) in (int, float) and 0 <= part < 1 for part in value)


PROBABILITY = (lambda value: type(value) in (int, float) and 0 <= value < 1, "at least 0 and less than 1")
POSITIVE, NOT_NEGATIVE = _number(0, above=True), _number(0)
COUNT = _whole(1)
PART = (_part_of_an_epoch, "a fraction from 0.0 to 1.0, or a whole number of batches")
EXTENT = (_share_or_count, "a fraction between 0 and 1, or a whole number of images")
WIDTHS = (_widths, "whole numbers of at least 1")
WORST = {"loss": "max", "accuracy": "min"}  # the mode that would keep the worst of a metric
MATMUL_PRECISIONS = ("highest", "high", "medium")  # torch.set_float32_matmul_precision


#: key -> (test, words); the first that matches rules. Only for classes of ours and of torch, never for a user's own.
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seed": _whole(0, 2**32 - 1),
    "steps_per_execution": _whole(1, also=("auto",)),
    "channels_last": (lambda value: value == "auto" or isinstance(value, bool), "auto, true or false"),
    "deterministic": (lambda value: value == "warn" or isinstance(value, bool), "true, false or warn"),
    "matmul_precision": _one_of(*MATMUL_PRECISIONS),
    "mode": _one_of("min", "max"),
    "name": (_is_name, "a name, since a folder below runs gets it"),
    "data.*batch_size": COUNT,
    "data.val_size": EXTENT,
    "data.test_size": EXTENT,
    "data.limit": EXTENT,
    "data.num_folds": _whole(2),
    "data.fold": _whole(0),
    "model.net.dropout": PROBABILITY,
    "model.net.mlp_ratio": POSITIVE,
    **{
        f"model.net.{name}": COUNT
        for name in ("in_channels", "in_features", "num_classes", "patch_size", "embed_dim", "depth", "num_heads")
    },
    **{f"model.net.{name}": COUNT for name in ("num_layers", "blocks_per_stage", "stride", "kernel_size")},
    **{f"model.net.{name}": WIDTHS for name in ("hidden_features", "channels", "image_size")},
    "loss.label_smoothing": _number(0, 1, "from 0"),
    "loss.gamma": NOT_NEGATIVE,
    "loss.p": _one_of(1, 2),
    "optimizer.lr": POSITIVE,
    "optimizer.betas": (_pair_below_1, "two numbers, each at least 0 and less than 1"),
    "optimizer.eps": NOT_NEGATIVE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.momentum": NOT_NEGATIVE,
    "optimizer.alpha": _number(0, 1, "from 0"),
    "scheduler.warmup": PROBABILITY,
    "scheduler.final_factor": PROBABILITY,
    "scheduler.pct_start": _number(0, 1, "from 0"),
    "scheduler.*div_factor": POSITIVE,
    "scheduler.step_size": COUNT,
    "scheduler.patience": _whole(0),
    "scheduler.factor": POSITIVE,
    "metrics.*.top_k": COUNT,
    "metrics.*.n_bins": COUNT,
    "trainer.devices": (
        lambda value: value == -1 or not isinstance(value, (int, float)) or (type(value) is int and value > 0),
        "a count of at least 1, -1 or auto for all of them, or a list of indices",
    ),
    "trainer.num_nodes": COUNT,
    "trainer.max_epochs": _whole(1, also=(-1,)),
    "trainer.max_steps": _whole(1, also=(-1,)),
    "trainer.min_*": COUNT,
    "trainer.limit_*_batches": PART,
    "trainer.overfit_batches": PART,
    "trainer.reload_dataloaders_every_n_epochs": _whole(0),
    "trainer.val_check_interval": (
        lambda value: type(value) not in (int, float) or (_part_of_an_epoch(value) and value > 0),
        "a fraction of an epoch up to 1.0, or a whole number of batches",
    ),
    "trainer.check_val_every_n_epoch": COUNT,
    "trainer.log_every_n_steps": _whole(0),
    "trainer.num_sanity_val_steps": _whole(0, also=(-1,)),
    "trainer.accumulate_grad_batches": COUNT,
    "trainer.gradient_clip_val": NOT_NEGATIVE,
    "trainer.gradient_clip_algorithm": _one_of("norm", "value"),
    "trainer.profiler": (
        lambda value: not isinstance(value, str) or value in ("simple", "advanced", "pytorch", "xla"),
        "one of simple, advanced, pytorch",
    ),
    "callbacks.*.patience": _whole(0),
    "callbacks.*.decay": PROBABILITY,
    "callbacks.*.min_delta": NOT_NEGATIVE,
    "callbacks.*.refresh_rate": _whole(0),
    "callbacks.*.every_minutes": POSITIVE,
    "callbacks.*.every_n_*": _whole(0),
    "callbacks.*.update_every_n_steps": COUNT,
    "callbacks.*.update_starting_at_step": _whole(0),
    "callbacks.*.keep": COUNT,
    "callbacks.*.num_images": COUNT,
    "callbacks.*.save_top_k": _whole(0, also=(-1,)),
    "callbacks.*.max_depth": _whole(0, also=(-1,)),
    "augment.*.margin": _whole(0, 1000),
    "augment.*.size": _whole(1, 10_000),
    "augment.*.spacing": _whole(1, 1000),
    "augment.*.magnitude": _number(0, 1000, "from 0"),
    "augment.*.degrees": _number(0, 180, "from 0"),
    "augment.*.translate": _number(0, 1, "from 0"),
    "augment.*.shear": _number(0, 80, "from 0"),
    "augment.*.padding": _one_of("zeros", "border", "reflection"),
    "augment.*.horizontal": _number(0, 1, "from 0"),
    "augment.*.vertical": _number(0, 1, "from 0"),
    "augment.*.alpha": _number(1e-3, 1000, "from 0.001"),
}
FAMILIES: dict[str, tuple[Any, str]] = {
    "switch": (bool, "true or false"),
    "number": ((int, float), "a number"),
    "text": (str, "text"),
    "list": ((list, tuple), "a list"),
    "mapping": (Mapping, "a mapping"),
}


#: Where what stands in the YAML is one of several kinds of value.
ALSO = {
    "devices": ("text", "list"),
    "image_size": ("list",),
    "val_check_interval": ("text", "mapping"),
    "fast_dev_run": ("number",),
    "deterministic": ("text",),
    "channels_last": ("switch",),
}


def family(value: Any) -> str | None:
    """The kind of a value, out of ``FAMILIES``."""
    return next((name for name, (types, _) in FAMILIES.items() if isinstance(value, types)), None)


def kind_mismatch(key: str, value: Any, default: Any) -> str | None:
    """What ``value`` must be, if it cannot stand where the YAML has ``default``."""
    expected, found = family(default), family(value)
    open_default = expected is None or (isinstance(default, str) and ("${" in default or default == "???"))
    if value is None or open_default or found == expected:
        return None
    if found in ALSO.get(key, ()) or (isinstance(value, Mapping) and "_target_" in value):
        return None
    if expected == "text" and found == "number":  # precision=16; the class's annotation has the last word
        return None
    example = f", such as [{value}]" if expected == "list" and found in ("number", "text") else f", such as {default}"
    return FAMILIES[str(expected)][1] + (example if expected in ("number", "list") else "")


def ruled(name: str, value: Any) -> Iterator[tuple[str, Any, str]]:
    """What is wrong with a value by ``RULES``."""
    rule = next((rule for pattern, rule in RULES.items() if fnmatchcase(name, pattern)), None)
    if rule is None or value is None or (isinstance(value, Mapping) and "_target_" in value):
        return
    test, words = rule
    try:
        fine = test(value)
    except (TypeError, ValueError, OverflowError):
        fine = False
    if not fine:
        near = did_you_mean(value, words.removeprefix("one of ").split(", ")) if isinstance(value, str) else ""
        yield name, value, f"must be {words}.{near}" if near else f"must be {words}"

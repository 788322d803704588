"""State which range and kind each value of a config must have."""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from experiments.config.installation import PACKAGE
from experiments.errors import Rule, out_of_range

WORST = {"loss": "max", "accuracy": "min"}  # the mode that would keep the worst of a metric
MATMUL_PRECISIONS = ("highest", "high", "medium")  # torch.set_float32_matmul_precision


def _is_name(value: Any) -> bool:
    parts = Path(str(value)).parts
    return bool(parts) and ".." not in parts and not Path(str(value)).is_absolute() and "\0" not in str(value)


def _pair_below_1(value: Any) -> bool:
    return len(value) == 2 and all(type(part) in (int, float) and 0 <= part < 1 for part in value)


def _are_words(value: Any) -> bool:
    return all(isinstance(word, str) and word and "," not in word for word in value)


def _part_of_an_epoch(value: Any) -> bool:
    return (type(value) is int and value >= 0) or (type(value) is float and 0 <= value <= 1)


FRACTION_OR_COUNT: tuple[Callable[[Any], bool], str] = (
    _part_of_an_epoch,
    "a fraction from 0.0 to 1.0, or a whole number of batches",
)

#: The pattern of a key -> what ``ranges`` takes, or a test and its words; the first that matches counts. For the
#: experiment's own keys and for classes of torch and Lightning: ours declare theirs, and nobody knows a user's own.
RULES: dict[str, Rule | tuple[Callable[[Any], bool], str]] = {
    "seed": "whole, >= 0, <= 4294967295",
    "steps_per_execution": "whole, >= 1, or auto",
    "channels_last": ("auto", True, False),
    "cuda_graphs": ("auto", True, False),
    "deterministic": ("warn", True, False),
    "matmul_precision": MATMUL_PRECISIONS,
    "mode": ("min", "max"),
    "tags": (_are_words, "a list of words without commas, such as [baseline,wide]"),
    "note": (lambda value: not isinstance(value, (list, dict)), "a sentence"),
    "name": (_is_name, "a name, since a folder below runs gets it"),
    "loss.label_smoothing": ">= 0, <= 1",
    "loss.p": (1, 2),
    "optimizer.lr": "> 0",
    "optimizer.betas": (_pair_below_1, "two numbers, each at least 0 and less than 1"),
    "optimizer.weight_decay": ">= 0",
    "optimizer.momentum": ">= 0",
    "optimizer.alpha": ">= 0, <= 1",
    "scheduler.pct_start": ">= 0, <= 1",
    "scheduler.*div_factor": "> 0",
    "scheduler.step_size": "whole, >= 1",
    "scheduler.patience": "whole, >= 0",
    "scheduler.factor": "> 0",
    "metrics.*.top_k": "whole, >= 1",
    "metrics.*.n_bins": "whole, >= 1",
    "trainer.accelerator": (
        lambda value: ":" not in str(value),
        "a kind, such as gpu; trainer.devices=[0] says which",
    ),
    "trainer.devices": (
        lambda value: value == -1 or not isinstance(value, (int, float)) or (type(value) is int and value > 0),
        "a count of at least 1, -1 or auto for all of them, or a list of indices",
    ),
    "trainer.num_nodes": "whole, >= 1",
    "trainer.max_epochs": "whole, >= 1, or -1",
    "trainer.max_steps": "whole, >= 1, or -1",
    "trainer.min_*": "whole, >= 1",
    "trainer.limit_*_batches": FRACTION_OR_COUNT,
    "trainer.overfit_batches": FRACTION_OR_COUNT,
    "trainer.reload_dataloaders_every_n_epochs": "whole, >= 0",
    "trainer.val_check_interval": (
        lambda value: type(value) not in (int, float) or (_part_of_an_epoch(value) and value > 0),
        "a fraction of an epoch up to 1.0, or a whole number of batches",
    ),
    "trainer.check_val_every_n_epoch": "whole, >= 1",
    "trainer.log_every_n_steps": "whole, >= 0",
    "trainer.num_sanity_val_steps": "whole, >= 0, or -1",
    "trainer.accumulate_grad_batches": "whole, >= 1",
    "trainer.gradient_clip_val": ">= 0, or inf",
    "trainer.gradient_clip_algorithm": ("norm", "value"),
    "trainer.profiler": (
        lambda value: not isinstance(value, str) or value in ("simple", "advanced", "pytorch", "xla"),
        "one of simple, advanced, pytorch",
    ),
    "callbacks.*.patience": "whole, >= 0",
    "callbacks.*.decay": ">= 0, < 1",
    "callbacks.*.min_delta": ">= 0",
    "callbacks.*.every_n_*": "whole, >= 0",
    "callbacks.*.update_every_n_steps": "whole, >= 1",
    "callbacks.*.update_starting_at_step": "whole, >= 0",
    "callbacks.*.save_top_k": "whole, >= 0, or -1",
}


@lru_cache
def declared_ranges(target: str) -> dict[str, Rule]:
    """What a class of this project and its bases declare with ``ranges``, read without importing it."""
    module, _, name = target.rpartition(".")
    place = PACKAGE.parent.joinpath(*module.split("."))
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not module.startswith("experiments") or not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    if elsewhere := re.search(rf"^from (\S+) import (?:\([^)]*|[^(\n]*)\b{re.escape(name)}\b", text, re.MULTILINE):
        return declared_ranges(f"{elsewhere[1]}.{name}")
    header = re.search(rf"^class {re.escape(name)}\b(?:\(([\w, ]*)\))?", text, re.MULTILINE)
    rules: dict[str, Rule] = {}
    for base in (header[1] or "").split(", ") if header else ():
        rules |= declared_ranges(f"{module}.{base}")
    if header and "@ranges(" in text:  # to parse it takes milliseconds
        (made,) = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == name)
        for call in (call for method in made.body for call in getattr(method, "decorator_list", ())):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "ranges":
                rules |= {str(given.arg): ast.literal_eval(given.value) for given in call.keywords}
    return rules


KINDS: dict[str, tuple[Any, str]] = {
    "switch": (bool, "true or false"),
    "number": ((int, float), "a number"),
    "text": (str, "text"),
    "list": ((list, tuple), "a list"),
    "mapping": (Mapping, "a mapping"),
}


PAIRS = ("betas", "scale")  # lists of two numbers
NUMBER_AS_TEXT = ". This is text, as what oc.env reads is: ${oc.decode:${oc.env:NAME}} is a number"

#: Kinds of value that a key takes beside its default's.
EXTRA_KINDS = {
    "devices": ("text", "list"),
    "image_size": ("list",),
    "val_check_interval": ("text", "mapping"),
    "fast_dev_run": ("number",),
    "deterministic": ("text",),
    "channels_last": ("switch",),
    "cuda_graphs": ("switch",),
}


def kind_of(value: Any) -> str | None:
    """The kind of a value, out of ``KINDS``."""
    return next((name for name, (types, _) in KINDS.items() if isinstance(value, types)), None)


def kind_mismatch(key: str, value: Any, default: Any) -> str | None:
    """What ``value`` must be, if it cannot stand where the YAML has ``default``."""
    expected, found = kind_of(default), kind_of(value)
    open_default = expected is None or (isinstance(default, str) and ("${" in default or default == "???"))
    if value is None or open_default or found == expected:
        return None
    if found in EXTRA_KINDS.get(key, ()) or (isinstance(value, Mapping) and "_target_" in value):
        return None
    if expected == "text" and found == "number":  # precision=16; the class's annotation has the last word
        return None
    if expected == "list" and found == "text" and value.startswith("["):
        return "a list, and is text: leave out the quotes around it"
    could_be_wrapped = expected == "list" and found in ("number", "text") and key not in PAIRS
    example = f", such as [{value}]" if could_be_wrapped else f", such as {default}"
    text = NUMBER_AS_TEXT if expected == "number" and _is_number_as_text(value) else ""
    return KINDS[str(expected)][1] + (example if expected in ("number", "list") else "") + text


def _is_number_as_text(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", value, re.IGNORECASE))


def range_mistakes(name: str, value: Any, target: str = "") -> Iterator[tuple[str, Any, str]]:
    """What is wrong with a value by what its class declares, or else by ``RULES``."""
    rule = declared_ranges(target).get(name.rpartition(".")[2]) or next(
        (rule for pattern, rule in RULES.items() if fnmatchcase(name, pattern)), None
    )
    if rule is None or value is None or (isinstance(value, Mapping) and "_target_" in value):
        return
    if isinstance(rule, tuple) and callable(rule[0]):
        try:
            wrong = None if rule[0](value) else rule[1]
        except (TypeError, ValueError, OverflowError):
            wrong = rule[1]
    else:
        wrong = out_of_range(value, rule)
    if wrong:
        yield name, value, f"must be {wrong}{NUMBER_AS_TEXT if _is_number_as_text(value) else ''}"

"""Walk through the parts of a config."""

from collections.abc import Iterator, Mapping
from typing import Any

Config = Mapping[str, Any]
Fault = tuple[str, Any, str]  # a key, its value, and what is wrong with it
OURS = ("experiments.", "torch.", "torchmetrics.", "lightning.")
MUST_BE_THERE = ("model", "data", "loss", "optimizer", "trainer")
LISTS = ("callbacks", "logger", "metrics", "augment", "param_groups")  # whose choices go together
GROUPS = (*MUST_BE_THERE, "scheduler", "callbacks", "logger", "metrics", "param_groups")


def shown(value: Any) -> str:
    """A value as one would type it; of a long one, both ends."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 80 else f"{text[:37]}...{text[-40:]}"


def leaves(value: Any, name: str, ours: bool = True) -> Iterator[tuple[str, Any, bool, str]]:
    """Every value below a config's key: its name, itself, whether its class is known, and the class's import path."""
    if not isinstance(value, Mapping):
        return
    target = value.get("_target_")
    ours = str(target).startswith(OURS) if target is not None else ours
    for key, part in value.items():
        if key not in ("_target_", "_partial_"):
            yield f"{name}.{key}", part, ours, str(target)
            yield from leaves(part, f"{name}.{key}", ours)


def targets(config: Config) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every part of a config that names a class, by its key."""

    def below(value: Any, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        if isinstance(value, Mapping):
            if "_target_" in value:
                yield name, value
            for key, part in value.items():
                yield from below(part, f"{name}.{key}")

    for group in GROUPS:
        yield from below(config.get(group), group)


def value_at(config: Any, name: str) -> Any:
    """Return the value under a dotted key; None where there is none."""
    for key in name.split("."):
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


def section(config: Any, name: str) -> Mapping[str, Any]:
    """The part of a config under a key; empty where there is none."""
    part = value_at(config, name)
    return part if isinstance(part, Mapping) else {}


def number_at(config: Any, name: str) -> float | None:
    """Return the number under a dotted key; None for anything else."""
    value = value_at(config, name)
    return value if type(value) in (int, float) else None

"""Look at a grid before its first job starts: at each value by itself, then at as many points as a moment allows."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Transformer
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict

from experiments.config import conf_files
from experiments.config.checks.check import config_mistakes, require_none
from experiments.config.hydra_internals import grid_points
from experiments.config.overrides import explain
from experiments.config.plain_values import job_values, overrides_of
from experiments.errors import UserError, together

SECONDS = 5.0  # that points are looked at before the first job starts; the others are when they start
log = logging.getLogger(__name__)


def check_grid(config: DictConfig) -> None:
    """Raise UserError with the mistakes of a grid's points; none for a sweeper that chooses them later."""
    if not str(config.hydra.sweeper._target_).endswith((".BasicSweeper", ".GridSweeper")):
        return
    started = time.monotonic()
    overrides = _overrides(config)
    if overrides is None:
        return
    faults: dict[str, str] = {}  # a mistake, and the point of the grid where it is seen first
    typed = overrides_of(config.hydra)
    points = grid_points(overrides)
    if len(points) > 1:
        for varied, values in _single_values(config, overrides):
            for fault in config_mistakes(values, typed):
                faults.setdefault(fault, varied)
        require_none([f"{fault} (at {point})" for fault, point in faults.items()])
    looked, combinations = 0, len({_choices(point) for point in points})
    for point in _most_different_first(points):
        if looked >= combinations and time.monotonic() - started > SECONDS:
            break
        try:
            composed = GlobalHydra.instance().config_loader().load_sweep_config(config, list(point))
        except HydraException as error:
            raise UserError(together(explain(error, [*point, "--multirun"]))) from error
        number = points.index(point)
        with open_dict(composed):
            composed.hydra.job.id, composed.hydra.job.num = str(number), number
        for fault in config_mistakes(job_values(composed), overrides_of(composed.hydra)):
            faults.setdefault(fault, " ".join(point))
        looked += 1
    require_none([f"{fault} (at {point})" if point else fault for fault, point in faults.items()])
    if looked < len(points):
        print(f"{looked} of {len(points)} runs were checked for mistakes, the others are when they start", flush=True)


def _choices(point: Sequence[str]) -> tuple[str, ...]:
    """What of a point chooses files, without which keys there are depends on nothing."""
    return tuple(one for one in point if conf_files.is_group(one.lstrip("+~").partition("=")[0]))


def _most_different_first(points: Sequence[list[str]]) -> list[list[str]]:
    """The points, one of each combination of choices before the others."""
    seen: set[tuple[str, ...]] = set()
    first: list[list[str]] = []
    rest: list[list[str]] = []
    for point in points:
        choices = _choices(point)
        (rest if choices in seen else first).append(point)
        seen.add(choices)
    return [*first, *rest]


def _overrides(config: DictConfig) -> list[Override] | None:
    typed = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    try:
        return parser.parse_overrides([*typed, *overrides_of(config.hydra)])
    except HydraException:
        return None


def _single_values(config: DictConfig, overrides: list[Override]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The config with each value of each key that is varied, one at a time: the sum of them, not the product."""
    plain: dict[str, Any] | None = None
    for override in overrides:
        key = override.key_or_group
        if not override.is_sweep_override() or conf_files.is_group(key) or "/" in key or key.startswith("hydra."):
            continue
        if plain is None:
            try:
                plain = job_values(config)
            except Exception:  # without its varied values it does not resolve
                return
        for value in override.sweep_iterator(transformer=Transformer.identity):
            if isinstance(value, (int, float, bool, type(None))):
                yield f"{key}={value}", _with(plain, key.split("."), value)


def _with(config: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    if len(path) == 1:
        return {**config, path[0]: value}
    below = config.get(path[0])
    return {**config, path[0]: _with(below if isinstance(below, Mapping) else {}, path[1:], value)}

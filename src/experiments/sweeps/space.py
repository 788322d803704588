"""What a sweep varies: overrides in Hydra's grammar, as Optuna's distributions."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, Quote, QuotedString, RangeSweep
from hydra.errors import OverrideParseException
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from experiments.config import conf_files
from experiments.errors import UserError

Space = dict[str, BaseDistribution]


def parse(overrides: Sequence[str], loader: ConfigLoader | None = None) -> tuple[list[str], Space]:
    """Split overrides into those that are fixed, as they were typed, and the space to search.

    ``interval(1,8)`` is a float, ``int(interval(4,32))`` a whole number with both ends, ``range(1,8)`` ends before 8
    as Hydra's does, ``a,b,c`` and ``choice(a,b,c)`` are choices, ``tag(log,...)`` is on a logarithmic scale. The last
    override of a key counts.

    Raises:
        UserError: for what cannot be read, and for bounds that make no range.
    """
    try:
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise UserError(f"{error.override} cannot be read: {str(error).splitlines()[0]}") from error
    last = {override.get_key_element().lstrip("+"): override for override in parsed}
    fixed = [str(override.input_line) for override in last.values() if not override.is_sweep_override()]
    space = {
        override.get_key_element(): distribution(override)
        for override in last.values()
        if override.is_sweep_override()
    }
    return fixed, space


def distribution(override: Override) -> BaseDistribution:
    """One swept override as a distribution.

    Raises:
        UserError: if it has no values, or tags that mean nothing here.
    """
    shown = override.input_line
    swept = override.value()
    tags: set[str] = getattr(swept, "tags", set())
    if tags - {"log"}:
        raise UserError(f"{shown}: the tag {sorted(tags - {'log'})[0]!r} is unknown; there is log, for a log scale")
    log = "log" in tags
    try:
        if isinstance(swept, IntervalSweep):
            low, high = swept.start, swept.end
            assert low is not None
            assert high is not None
            if isinstance(low, int) and isinstance(high, int):
                return IntDistribution(low, high, log=log)
            return FloatDistribution(float(low), float(high), log=log)
        if isinstance(swept, RangeSweep):
            values = list(swept.range())
            if not values:
                raise ValueError("the range is empty: its end does not belong to it")
            low, high, step = min(values), max(values), abs(swept.step)
            if all(isinstance(value, int) for value in values):
                return IntDistribution(int(low), int(high), log=log, step=int(step))
            return FloatDistribution(float(low), float(high), log=log, step=float(step))
    except ValueError as error:
        raise UserError(f"{shown} makes no range: {error}") from error
    choices = list(dict.fromkeys(override.sweep_string_iterator()))
    if not choices or log:
        raise UserError(f"{shown}: {'choices have no log scale' if log else 'there is nothing to choose from'}")
    return CategoricalDistribution(choices)


def without_sweep(overrides: Sequence[str]) -> list[str]:
    """Overrides for a single run: in place of ``sweep=<name>``, the choices that its file makes beside the space."""
    chosen = {one.partition("=")[0] for one in overrides}
    found: list[str] = []
    for override in overrides:
        name, _, choice = override.partition("=")
        path = conf_files.find(f"sweep/{choice}") if name == "sweep" else None
        if path is None:
            found.append(override)
            continue
        for entry in yaml.safe_load(path.read_text(encoding="utf-8")).get("defaults", []):
            for key, value in entry.items() if isinstance(entry, dict) else ():
                group = key.removeprefix("override ").removeprefix("/")
                if not group.startswith("hydra/") and group not in chosen:
                    found.append(f"{group}={value}")
    return found


def as_overrides(values: Mapping[str, Any]) -> list[str]:
    """Values of a space as overrides; choices are in Hydra's grammar already."""
    return [f"{name}={value}" for name, value in values.items()]


def quoted(text: str) -> str:
    """Any text, such as a path, as a value in Hydra's grammar."""
    return QuotedString(text, Quote.single).with_quotes()


def grid(space: Space) -> dict[str, list[Any]]:
    """Every value of every distribution.

    Raises:
        UserError: if one has infinitely many.
    """
    values: dict[str, list[Any]] = {}
    for name, one in space.items():
        if isinstance(one, CategoricalDistribution):
            values[name] = list(one.choices)
        elif isinstance(one, IntDistribution):
            values[name] = list(range(one.low, one.high + 1, one.step))
        elif isinstance(one, FloatDistribution) and one.step is not None:
            count = round((one.high - one.low) / one.step) + 1
            values[name] = [one.low + index * one.step for index in range(count)]
        else:
            raise UserError(f"{name} is an interval, which has no grid: give choices, or a range with a step")
    return values


def grid_size(space: Space) -> int:
    """How many points the grid of a space has."""
    return sum(1 for _ in product(*grid(space).values()))


def examples(space: Space) -> list[dict[str, Any]]:
    """Few points of a space that show every choice: what composes with them, composes with all."""
    columns = {
        name: list(one.choices) if isinstance(one, CategoricalDistribution) else [one.low]  # type: ignore[attr-defined]
        for name, one in space.items()
    }
    rows = max((len(column) for column in columns.values()), default=1)
    return [{name: column[row % len(column)] for name, column in columns.items()} for row in range(rows)]

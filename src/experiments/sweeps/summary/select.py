"""Find runs again: conditions such as ``optimizer.lr>1e-3`` or ``tags=baseline``, and the order to show them in."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from experiments.config.suggestions import leaf_by_key
from experiments.errors import UserError, did_you_mean
from experiments.sweeps.summary.runs import Run

CONDITION = re.compile(r"\s*([^\s<>=!]+)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*")
ORDERS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def select(runs: Sequence[Run], conditions: Sequence[str]) -> list[Run]:
    """Return the runs that meet all conditions.

    A condition is a key of the config, a group, a result or ``status``, one of ``= != < <= > >=``, and a value. Text
    may hold ``*``; of a list, such as ``tags``, one item must be equal.

    Raises:
        UserError: for a condition that cannot be read or whose key no run has, and where no run is left.
    """
    for condition in conditions:
        matched = CONDITION.fullmatch(condition)
        if matched is None:
            raise UserError(f'where="{condition}" is no condition: write key=value, or !=, <, <=, > or >=')
        key, order, wanted = matched.groups()
        require_known(runs, key, f'where="{condition}"')
        if order in ORDERS and _number(wanted) is None:
            raise UserError(f'where="{condition}": {order} compares numbers, and {wanted or "nothing"} is none')
        before, runs = runs, [run for run in runs if _holds(run.value(key), order, wanted)]
        if not runs:
            found = dict.fromkeys(str(run.value(key)) for run in before)
            raise UserError(f'where="{condition}": none of {len(before)} runs; there {key} is {_listed(found)}')
    return list(runs)


def require_known(runs: Sequence[Run], key: str, said: str) -> None:
    """Raise UserError if no run has a key, with the nearest ones."""
    if any(run.value(key) is not None or key in run.config for run in runs):
        return
    known = dict.fromkeys(name for run in runs for name in (*run.summary, *run.choices, *leaf_by_key(run.config)))
    if key not in known:
        raise UserError(f"{said}: no run has {key}.{did_you_mean(key, list(known))}")


def sort_runs(runs: Sequence[Run], key: str) -> list[Run]:
    """Return the runs in the order of a key, least first; ``-key`` turns it round, and runs without one come last."""
    name = key.removeprefix("-")
    require_known(runs, name, f"sort={key}")

    def place(run: Run) -> tuple[bool, float, str]:
        value = run.value(name)
        number = _number(value)
        return number is None, number or 0.0, str(value)

    missing = [run for run in runs if run.value(name) is None]
    there = sorted((run for run in runs if run.value(name) is not None), key=place, reverse=key.startswith("-"))
    return [*there, *missing]


def _holds(value: Any, order: str, wanted: str) -> bool:
    if order in ORDERS:
        number, limit = _number(value), _number(wanted)
        return number is not None and limit is not None and ORDERS[order](number, limit)
    items = value if isinstance(value, (list, tuple)) else [value]
    equal = any(_equals(item, wanted) for item in items) or str(value).replace(" ", "") == wanted.replace(" ", "")
    return equal == (order == "=")


def _equals(value: Any, wanted: str) -> bool:
    number, other = _number(value), _number(wanted)
    if number is not None and other is not None:
        return number == other
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return fnmatchcase(text, wanted)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join([*list(values)[:8], *(["..."] if len(values) > 8 else [])])

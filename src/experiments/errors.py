"""Why a run may end early: a mistake that the user can mend, or a signal; and which values arguments may have."""

import functools
import inspect
import math
import operator
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

Maker = TypeVar("Maker", bound=Callable[..., None])
Rule = str | tuple[Any, ...]
_SIGNS = {
    ">=": (operator.ge, "of at least"),
    ">": (operator.gt, "more than"),
    "<=": (operator.le, "up to"),
    "<": (operator.lt, "less than"),
}


class UserError(Exception):
    """A mistake of the user's: the message names the offending value, the rule and the next move.

    Scripts print the message alone and exit with code 2; a traceback would only hide it.
    """


class Stopped(Exception):
    """A signal asked the run to stop, and it did, leaving a checkpoint to go on from."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"stopped by {signal.Signals(number).name}")

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended: 130 for Ctrl-C, 143 for SIGTERM, 138 for SIGUSR1."""
        return 128 + self.number


def stop(error: UserError) -> NoReturn:
    """End a script over a mistake of the user's: the message alone (HYDRA_FULL_ERROR=1 adds where), exit code 2."""
    tell(error)
    raise SystemExit(2)


def tell(error: UserError, where: str = "") -> None:
    """Say what the mistake is, ``where`` it happened, and with HYDRA_FULL_ERROR=1 the way there."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    print(f"error{where}: {error}", file=sys.stderr)


def together(faults: Sequence[str]) -> str:
    """Several mistakes as one message."""
    return "".join(faults) if len(faults) < 2 else f"{len(faults)} mistakes:\n  " + "\n  ".join(faults)


def did_you_mean(wrong: str, known: Sequence[str]) -> str:
    """``wrong``'s nearest neighbours as a question, or nothing."""
    from difflib import get_close_matches

    same = [name for name in known if name.lower() == wrong.lower()]
    near = same or get_close_matches(wrong, known, n=3)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def ranges(**rules: Rule) -> Callable[[Maker], Maker]:
    """Declare which values a constructor's arguments may have; it raises ValueError for others.

    A rule is a tuple of choices, or conditions such as ``">= 0, < 1"``: ``whole`` and ``odd`` numbers, a ``list`` of
    them or a ``list or one``, a ``share or count`` of images; ``or -1`` allows a value besides. Configs are checked
    by the same rules before anything is imported, so they stand as literals. None, for what is not given, passes.
    """

    def declare(init: Maker) -> Maker:
        names = list(inspect.signature(init).parameters)

        @functools.wraps(init)
        def checked(*values: Any, **named: Any) -> None:
            for name, value in {**dict(zip(names, values, strict=False)), **named}.items():
                if name in rules and (wrong := out_of_range(value, rules[name])):
                    raise ValueError(f"{name}={value!r} must be {wrong}")
            init(*values, **named)

        return checked  # type: ignore[return-value]

    return declare


def out_of_range(value: Any, rule: Rule) -> str | None:
    """What a value must be by a rule of ``ranges``; None if it is that."""
    if value is None:
        return None
    if isinstance(rule, tuple):
        near = did_you_mean(value, [str(one) for one in rule]) if isinstance(value, str) else ""
        listed = f"one of {', '.join(map(str, rule))}"
        return None if value in rule else f"{listed}.{near}" if near else listed
    conditions = rule.split(", ")
    several = isinstance(value, (list, tuple)) and bool({"list", "list or one"} & {*conditions})
    if f"or {value}" in conditions or (
        (several or "list" not in conditions)
        and all(_holds(one, condition) for one in (value if several else [value]) for condition in conditions)
    ):
        return None
    example = f", such as [{value}]" if "list" in conditions and not several else ""
    return _in_words(conditions) + example


def _holds(value: Any, condition: str) -> bool:
    sign, _, limit = condition.partition(" ")
    if type(value) not in (int, float) or not math.isfinite(value):
        return False
    if sign in _SIGNS:
        return bool(_SIGNS[sign][0](value, float(limit)))
    if condition == "share or count":
        return 0 < value <= 1 or (value > 1 and value == int(value))
    return {"whole": type(value) is int, "odd": value % 2 == 1}.get(condition, True)


def _in_words(conditions: Sequence[str]) -> str:
    if "share or count" in conditions:
        return "a fraction between 0 and 1, or a whole number of at least 1"
    kind = " ".join(word for word in ("odd", "whole", "number") if word == "number" or word in conditions)
    noun = f"a list of {kind}s" if "list" in conditions else f"{'an' if kind[0] == 'o' else 'a'} {kind}"
    bounds = [condition.split() for condition in conditions if condition.split()[0] in _SIGNS]
    also = [condition for condition in conditions if condition.startswith("or ")]
    if [sign for sign, _ in bounds] == [">=", "<="]:
        words = f"from {bounds[0][1]} to {bounds[1][1]}"
    else:
        words = " and ".join(f"{_SIGNS[sign][1]} {limit}" for sign, limit in bounds)
    return " ".join([noun, words, *also]).strip()

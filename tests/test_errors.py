"""Ranges that constructors declare: read from their source, and kept by the constructors themselves."""

import inspect
import pkgutil

import pytest
import yaml

import experiments.errors
from experiments.config.checks.ranges import declared_ranges
from experiments.config.installation import CONF
from experiments.errors import out_of_range, ranges

TARGETS = sorted(
    {
        part["_target_"]
        for path in CONF.rglob("*.yaml")
        for content in [yaml.safe_load(path.read_text()) or {}]
        for part in [content, *content.values()]
        if isinstance(part, dict) and str(part.get("_target_")).startswith("experiments.")
    }
)


@pytest.mark.parametrize(
    ("rule", "right", "wrong", "words"),
    [
        ("whole, >= 1", [1, 5], [0, 1.5, True, "3", [2], float("nan")], "a whole number of at least 1"),
        ("> 0", [0.1, 3], [0, -1, float("inf"), "x"], "a number more than 0"),
        (">= 0, < 1", [0, 0.5], [1, -0.1, False], "a number of at least 0 and less than 1"),
        (">= 0, <= 180", [0, 180], [181, -1], "a number from 0 to 180"),
        ("whole, odd, >= 1", [1, 3], [2, 0, 1.5], "an odd whole number of at least 1"),
        ("whole, >= 0, or -1", [0, -1], [-2], "a whole number of at least 0 or -1"),
        ("list, whole, >= 1", [[1, 2], (3,), []], [[0], [1.5], {"a": 1}], "a list of whole numbers of at least 1"),
        ("list or one, whole, >= 1", [28, [28, 28]], [[28, 0], 0], "a whole number of at least 1"),
        ("share or count", [0.1, 1, 1.0, 7], [0, 1.5, -1], "a fraction between 0 and 1, or a whole number"),
        (("max", "avg"), ["max"], ["min", ["max"], 3], "one of max, avg"),
    ],
)
def test_a_rule_holds_for_what_it_says(rule, right, wrong, words):
    assert [out_of_range(value, rule) for value in [*right, None]] == [None] * (len(right) + 1)
    for value in wrong:
        assert str(out_of_range(value, rule)).startswith(words), value


def test_a_list_is_shown_how_and_a_choice_that_is_near():
    assert out_of_range(512, "list, whole, >= 1") == "a list of whole numbers of at least 1, such as [512]"
    assert out_of_range("maxx", ("max", "avg")) == "one of max, avg. Did you mean max?"


class Layer:
    @ranges(width="whole, >= 1", factor="> 0")
    def __init__(self, width: int = 1, *, factor: float | None = None) -> None:
        self.width = width


class Wide(Layer):
    def __init__(self, **options) -> None:
        super().__init__(**options)


def test_a_constructor_keeps_its_ranges():
    assert Layer(3).width == Layer(width=3, factor=None).width == 3
    for wrong in (lambda: Layer(0), lambda: Layer(width=0), lambda: Wide(width=0)):
        with pytest.raises(ValueError, match=r"^width=0 must be a whole number of at least 1$"):
            wrong()
    with pytest.raises(TypeError, match="unexpected keyword"):
        Layer(depth=3)
    assert list(inspect.signature(Layer).parameters) == ["width", "factor"]


@pytest.mark.parametrize("target", TARGETS)
def test_what_the_source_declares_is_what_the_class_takes(target, monkeypatch):
    declared = declared_ranges(target)
    seen = set()
    monkeypatch.setattr(experiments.errors, "out_of_range", lambda value, rule: seen.add(str(rule)))
    cls = pkgutil.resolve_name(target)
    taken = {name for base in cls.__mro__ for name in inspect.signature(base.__init__).parameters}
    assert set(declared) <= taken
    checked = [base for base in cls.__mro__ if hasattr(vars(base).get("__init__"), "__wrapped__")]
    ours = [base for base in checked if base.__module__.startswith("experiments.")]
    assert bool(declared) == bool(ours)
    for base in ours:
        with pytest.raises(Exception):  # noqa: B017, PT011  # after its ranges it misses all else
            base.__init__(None, **dict.fromkeys(declared, object()))
    assert seen >= {str(rule) for rule in declared.values()} if ours else not seen


def test_a_target_that_is_no_name_declares_nothing():
    assert declared_ranges("experiments.nets.CNN(") == {}

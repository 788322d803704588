"""Compare values with type annotations."""

import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin


def is_tensor(annotation: Any) -> bool:
    """Whether it is torch's Tensor, which no plain value is; torch need not be imported to tell."""
    return getattr(annotation, "__module__", "") == "torch" and annotation.__name__ == "Tensor"


def fits(value: Any, annotation: Any) -> bool:
    """Whether a plain value can be what an annotation asks for; of what it cannot judge, it says yes."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if (
        annotation is Any
        or isinstance(annotation, (str, typing.TypeVar))
        or (isinstance(value, Mapping) and "_target_" in value)
    ):
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in inner)
    if annotation is None or annotation is type(None) or value is None:
        return value is None and annotation in (None, type(None))
    if annotation is bool:
        return isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is str:
        return isinstance(value, str)
    kind = origin or annotation
    if not inspect.isclass(kind):
        return True
    if is_tensor(kind):
        return False
    if isinstance(value, (list, tuple)):
        if not issubclass(list, kind) and not issubclass(tuple, kind):
            return kind is set
        fixed = kind is tuple and inner and inner[-1] is not Ellipsis
        if fixed and len(inner) != len(value):
            return False
        each = inner if fixed else [inner[0] if inner else Any] * len(value)
        return all(fits(part, one) for part, one in zip(value, each, strict=True))
    if isinstance(value, Mapping):
        return issubclass(dict, kind) or not issubclass(kind, (list, tuple))
    if isinstance(value, str):
        return not issubclass(kind, (int, float, list, tuple, dict)) and kind.__module__ != "collections.abc"
    return False


def named(annotation: Any) -> str:
    """An annotation as one would say it."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        choices = tuple(choice for one in inner if get_origin(one) is Literal for choice in get_args(one))
        plain = [one for one in inner if not is_tensor(one) and get_origin(one) is not Literal]
        return " or ".join(dict.fromkeys(named(one) for one in ([Literal[choices]] if choices else []) + plain))
    if origin is Literal:
        return "one of " + ", ".join(dict.fromkeys(map(str, inner)))
    if annotation in (None, type(None)):
        return "null"
    words: dict[Any, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    kind = origin or annotation
    if kind in words:
        return words[kind]
    if inspect.isclass(kind) and kind is not str and (issubclass(list, kind) or issubclass(tuple, kind)):
        of = [one for one in inner if one is not Ellipsis]
        count = f" of {len(inner)}" if kind is tuple and inner and inner[-1] is not Ellipsis else ""
        return f"a list{count}" + (f" ({named(of[0])} each)" if of else "")
    if inspect.isclass(kind) and issubclass(dict, kind):
        return "a mapping"
    return getattr(kind, "__name__", str(kind))

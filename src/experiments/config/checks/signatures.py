"""Import what a ``_target_`` names, read its signature, and compare values with its annotations."""

import importlib
import inspect
import os
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from traceback import extract_tb
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from experiments.errors import did_you_mean


class NotFound(Exception):
    """A ``_target_`` that cannot be imported; the message says why."""


class NoSuchModule(NotFound):
    """There is no module of this name, or none of a package above it."""


class Arguments(NamedTuple):
    """What a class or function takes by name; ``any_other``: whether names beside ``parameters`` go too."""

    parameters: dict[str, inspect.Parameter]
    annotations: dict[str, Any]
    any_other: bool


def locate(target: object) -> Any:
    """What a ``_target_`` names.

    Raises:
        NotFound: if there is no such thing; the message gives the root cause and what there is.
    """
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")):
        raise NotFound("is no import path, such as torch.optim.Adam")
    parts = target.split(".")
    found: Any = _imported(parts[0])
    for number, part in enumerate(parts[1:], 1):
        if not hasattr(found, part) and isinstance(found, types.ModuleType) and hasattr(found, "__path__"):
            try:
                module = _imported(".".join(parts[: number + 1]))
                if not hasattr(found, part):  # as torch.optim.adam: the package deletes the name of this module
                    found = module
                    continue
            except NoSuchModule:
                pass  # the next lines say what there is instead
        if not hasattr(found, part):
            names = [name for name in dir(found) if not name.startswith("_")]
            raise NotFound(f"cannot be found: {'.'.join(parts[:number])} has no {part}.{did_you_mean(part, names)}")
        found = getattr(found, part)
    if not callable(found):
        raise NotFound(f"is a {type(found).__name__}, not a class: name one in it, such as {target}.<Name>")
    return found


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise NoSuchModule(
                f"cannot be imported: there is no module {error.name}, neither installed nor in {os.getcwd()}"
            ) from error
        cause: BaseException = error
    except (Exception, SystemExit) as error:
        cause = error
    frames = [frame for frame in extract_tb(cause.__traceback__) if "importlib" not in frame.filename]
    file, line = (frames[-1].filename, frames[-1].lineno) if frames else (name, None)
    if isinstance(cause, SyntaxError):
        file, line = cause.filename or file, cause.lineno
    reason = getattr(cause, "msg", None) or str(cause)
    raise NotFound(
        f"cannot be imported: {name} fails with {type(cause).__name__}: {reason} ({Path(file).name}:{line})"
    ) from cause


def accepted_arguments(target: Callable[..., Any]) -> Arguments:
    """What a class or function takes by name, and what the classes above it take of what it hands on."""
    parameters: dict[str, inspect.Parameter] = {}
    annotations: dict[str, Any] = {}
    initializers = (
        [vars(cls)["__init__"] for cls in target.__mro__ if "__init__" in vars(cls)]
        if inspect.isclass(target)
        else [target]
    )
    if initializers in ([], [object.__init__]) and getattr(target, "__new__", None) is not object.__new__:
        return Arguments(parameters, annotations, any_other=True)  # written in C, such as datetime.timedelta
    for number, initializer in enumerate(initializers):
        if initializer is object.__init__:
            break
        try:
            signature = inspect.signature(initializer)
        except (TypeError, ValueError):
            return Arguments(parameters, annotations, any_other=True)
        try:
            hints = typing.get_type_hints(initializer)
        except Exception:  # names that exist for type checkers alone
            hints = {}
        found = list(signature.parameters.values())[1 if inspect.isclass(target) else 0 :]
        for parameter in found:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and (
                parameter.name not in parameters
            ):
                # the subclass may pass an argument that its parent requires
                parameters[parameter.name] = parameter if number == 0 else parameter.replace(default=None)
                annotations[parameter.name] = hints.get(parameter.name, Any)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in found):
            # of **kwargs along the way, the class may use some itself: any name may be right, but in classes of ours
            any_other = number > 0 and not target.__module__.startswith("experiments.")
            return Arguments(parameters, annotations, any_other)
    return Arguments(parameters, annotations, bool(initializers) and initializers[0] is not object.__init__)


def is_tensor(annotation: Any) -> bool:
    """Whether it is torch's Tensor, which no plain value is; torch need not be imported to tell."""
    return getattr(annotation, "__module__", "") == "torch" and annotation.__name__ == "Tensor"


def fits(value: Any, annotation: Any) -> bool:
    """Whether a plain value matches an annotation; True where that cannot be told."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if (
        annotation in (Any, object, Hashable)
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
            return kind is set  # YAML has none, and lists stand for them
        fixed = kind is tuple and inner and inner[-1] is not Ellipsis
        if fixed and len(inner) != len(value):
            return False
        each = inner if fixed else [inner[0] if inner else Any] * len(value)
        return all(fits(part, one) for part, one in zip(value, each, strict=True))
    if isinstance(value, Mapping):
        return issubclass(dict, kind) or not issubclass(kind, (list, tuple))
    if isinstance(value, str):  # may name what is made of it, such as a Path, but is no list of letters
        return not issubclass(kind, (int, float, list, tuple, dict)) and kind.__module__ != "collections.abc"
    try:
        return isinstance(value, kind)  # such as numbers.Number
    except TypeError:  # a protocol
        return True


def describe_annotation(annotation: Any) -> str:
    """Describe an annotation in words, for messages."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        choices = tuple(choice for one in inner if get_origin(one) is Literal for choice in get_args(one))
        plain = [one for one in inner if not is_tensor(one) and get_origin(one) is not Literal]
        parts = [Literal[choices], *plain] if choices else plain
        return " or ".join(dict.fromkeys(map(describe_annotation, parts)))
    if origin is Literal:
        return "one of " + ", ".join(dict.fromkeys(map(str, inner)))
    if annotation in (None, type(None)):
        return "null"
    words: dict[Any, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    kind = origin or annotation
    if kind in words:
        return words[kind]
    if inspect.isclass(kind) and (issubclass(list, kind) or issubclass(tuple, kind)):
        of = [one for one in inner if one is not Ellipsis]
        count = f" of {len(inner)}" if kind is tuple and inner and inner[-1] is not Ellipsis else ""
        return f"a list{count}" + (f" ({describe_annotation(of[0])} each)" if of else "")
    if inspect.isclass(kind) and issubclass(dict, kind):
        return "a mapping"
    return getattr(kind, "__name__", str(kind))

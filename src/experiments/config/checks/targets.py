"""Import what a ``_target_`` names, and read its signature."""

import importlib
import inspect
import os
import types
import typing
from collections.abc import Callable
from pathlib import Path
from traceback import extract_tb
from typing import Any

from experiments.config.spelling import did_you_mean


class NotFound(Exception):
    """A ``_target_`` that cannot be imported; the message says why."""


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
                _imported(".".join(parts[: number + 1]))
            except NotFound as error:
                if "there is no module" not in str(error):
                    raise
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
            raise NotFound(
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


def taken(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], dict[str, Any], bool]:
    """The arguments that a class or function takes by name, their annotations, and whether it takes any other."""
    parameters: dict[str, inspect.Parameter] = {}
    annotations: dict[str, Any] = {}
    makers = (
        [vars(cls)["__init__"] for cls in target.__mro__ if "__init__" in vars(cls)]
        if inspect.isclass(target)
        else [target]
    )
    for number, maker in enumerate(makers):
        if maker is object.__init__:
            break
        try:
            signature = inspect.signature(maker)
        except (TypeError, ValueError):
            return parameters, annotations, True
        try:
            hints = typing.get_type_hints(maker)
        except Exception:  # names that exist for type checkers alone
            hints = {}
        found = list(signature.parameters.values())[1 if inspect.isclass(target) else 0 :]
        for parameter in found:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and (
                parameter.name not in parameters
            ):
                # what a parent requires, its child may well give by itself
                parameters[parameter.name] = parameter if number == 0 else parameter.replace(default=None)
                annotations[parameter.name] = hints.get(parameter.name, Any)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in found):
            return parameters, annotations, False  # **kwargs end here
    return parameters, annotations, bool(makers) and makers[0] is not object.__init__

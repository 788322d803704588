"""The command line of every script but train: ``key=value``, checked against a dataclass. Needs no torch."""

import dataclasses
import inspect
import os
import sys
from typing import Any, TypeVar

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.config.installation import as_started
from experiments.errors import UserError, did_you_mean

Schema = TypeVar("Schema")
TEXT = (str, str | None)


def option(help: str, default: Any = MISSING) -> Any:
    """Declare one option of a schema; without a default it must be given."""
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata={"help": help})
    return dataclasses.field(default=default, metadata={"help": help})


def gathered(prefix: str, help: str) -> Any:
    """Declare an option that gathers every argument whose key starts with ``prefix``, such as ``data.root=files``."""
    return dataclasses.field(default_factory=list, metadata={"help": help, "prefix": prefix})


def read(schema: type[Schema], arguments: list[str] | None = None) -> Schema:
    """Read ``key=value`` arguments into the dataclass ``schema``; ``--help`` prints its options and exits.

    Raises:
        UserError: for an unknown key, a wrong type, or a missing value.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    fields = {field.name: field for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
    if {"-h", "--help"} & set(arguments):
        print(f"{as_started(inspect.cleandoc(schema.__doc__ or ''))}\n\nOptions, as key=value:")
        for name, field in fields.items():
            optional = field.default not in (MISSING, None, dataclasses.MISSING)
            default = f" (default: {field.default})" if optional else ""
            shown = f"{field.metadata['prefix']}<key>" if "prefix" in field.metadata else name
            print(f"  {shown:12} {field.metadata['help']}{default}")
        raise SystemExit(0)
    prefixes = {field.metadata["prefix"]: name for name, field in fields.items() if "prefix" in field.metadata}
    keys = [name for name in fields if name not in prefixes.values()]
    values: dict[str, Any] = {name: [] for name in prefixes.values()}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UserError(f"{argument!r} is not of the form key=value. --help lists the options")
        prefix = next((prefix for prefix in prefixes if key.startswith(prefix)), None)
        if prefix is not None:
            values[prefixes[prefix]].append(argument)
        elif key not in keys:
            hint = did_you_mean(key, keys)
            known = ", ".join([*keys, *(f"{prefix}<key>" for prefix in prefixes)])
            raise UserError(f"{key!r} is not an option.{hint} There are {known}")
        elif fields[key].type in TEXT and value != "null":
            values[key] = os.path.expanduser(value)  # as it was typed: a folder may be called 007
        elif fields[key].type == list[str] and not value.startswith("["):
            values[key] = [*values.get(key, []), os.path.expanduser(value)]
        else:
            texts = fields[key].type == list[str]
            try:
                values[key] = yaml.load(value, yaml.BaseLoader if texts else yaml.SafeLoader)
            except yaml.YAMLError as error:
                raise UserError(f"{argument} cannot be read: {str(error).splitlines()[0]}") from error
    try:
        options = OmegaConf.merge(OmegaConf.structured(schema), values)
        missing = OmegaConf.missing_keys(options)
        if missing:
            raise UserError(f"{', '.join(sorted(missing))} must be given, as key=value. --help lists the options")
        result: Schema = OmegaConf.to_object(options)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    return result

"""The command line of every script but train: ``key=value``, checked against a dataclass. Needs no torch."""

import dataclasses
import sys
from typing import Any, TypeVar

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.composition import did_you_mean
from experiments.errors import UserError

Schema = TypeVar("Schema")


def option(help: str, default: Any = MISSING) -> Any:
    """Declare one option of a schema; without a default it must be given."""
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata={"help": help})
    return dataclasses.field(default=default, metadata={"help": help})


def read(schema: type[Schema], arguments: list[str] | None = None) -> Schema:
    """Read ``key=value`` arguments into the dataclass ``schema``; ``--help`` prints its options and exits.

    Raises:
        UserError: for an unknown key, a wrong type, or a missing value.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    fields = {field.name: field for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
    if {"-h", "--help"} & set(arguments):
        print(f"{schema.__doc__}\n\nOptions, as key=value:")
        for name, field in fields.items():
            optional = field.default not in (MISSING, None, dataclasses.MISSING)
            default = f" (default: {field.default})" if optional else ""
            print(f"  {name:12} {field.metadata['help']}{default}")
        raise SystemExit(0)
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        if not equals:
            raise UserError(f"{argument!r} is not of the form key=value. --help lists the options")
        if key not in fields:
            hint = did_you_mean(key, list(fields))
            raise UserError(f"{key!r} is not an option.{hint} There are {', '.join(fields)}")
    try:
        options = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.from_dotlist(arguments))
        missing = OmegaConf.missing_keys(options)
        if missing:
            raise UserError(f"{', '.join(sorted(missing))} must be given, as key=value. --help lists the options")
        result: Schema = OmegaConf.to_object(options)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0]) from error
    return result

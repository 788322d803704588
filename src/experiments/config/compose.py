"""Compose a config without a command line, and say what may be meant by an override that Hydra refuses."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig

from experiments.config import conf_files
from experiments.config.command_line import wrong_choice
from experiments.config.hydra_internals import VERSION_BASE
from experiments.config.installation import CONF
from experiments.config.plain_values import job_values
from experiments.config.resolvers import forget_run_id, register_resolvers
from experiments.errors import UserError, did_you_mean


def compose(*overrides: str) -> dict[str, Any]:
    """Compose a config as ``scripts/train.py`` would, in a notebook or a test: plain values, resolved.

    ``compose("model=cnn", "optimizer.lr=0.01")`` returns what ``experiments.build`` takes.

    Raises:
        UserError: if an override names an unknown group, choice or key; the message lists them.
    """
    register_resolvers()
    conf_files.report_replaced()
    forget_run_id()
    if mistake := wrong_choice(overrides):
        raise UserError(mistake)
    try:
        config = _composed(overrides)
    except Exception as error:  # over an override that it did not foresee, Hydra stumbles anywhere
        raise UserError(f"{error or type(error).__name__}{hint(error, overrides)}") from error
    return job_values(config)


def _composed(overrides: Sequence[str]) -> DictConfig:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with initialize_config_dir(str(CONF), **VERSION_BASE):
        return hydra_compose("train", list(overrides), return_hydra_config=True)


def hint(error: Exception, overrides: Sequence[str]) -> str:
    """What may be meant by an override that Hydra refuses: the nearest key or choice there is; or nothing."""
    message = str(error)
    if choice := re.search(r"Could not find '([\w/]+)/([^'/]+)'", message):
        group, wrong = choice.groups()
        return "\n" + did_you_mean(wrong, conf_files.choices(group)).strip()
    if re.search("missing EQUAL|NoViableAlt|no viable alternative|mismatched input|extraneous input", message):
        return (
            "\nAn override is key=value in one piece: no space around =, quotes around a value with commas or spaces"
        )
    if not (key := re.search(r"Could not (?:override|append to|delete)[^']*'([^']+)'", message)):
        return ""
    wrong = key[1].replace("/", ".")
    groups = conf_files.groups()
    own = wrong.partition("@")[2].partition(".")[0]  # model@experiment.model: a file's defaults stay in its own group
    if own in groups:
        return f"\nDoes conf/{own}/ have a file without the line  # @package _global_  ?"
    chosen = [one for one in overrides if (name := one.partition("=")[0]) in groups and name != wrong]
    try:
        known = list(_keys(job_values(_composed(chosen))))
    except Exception:  # what is chosen does not compose by itself
        return ""
    last = wrong.rpartition(".")[2]
    same = [name for name in known if name.rpartition(".")[2] == last]
    return "\n" + (f"Did you mean {' or '.join(same[:3])}?" if same else did_you_mean(wrong, known).strip())


def _keys(config: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(config, dict):
        for key, value in config.items():
            yield f"{prefix}{key}"
            yield from _keys(value, f"{prefix}{key}.")

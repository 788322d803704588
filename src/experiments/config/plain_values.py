"""A composed config as plain, resolved values."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from experiments.config.overrides import quoted, unreadable
from experiments.errors import UserError, together

CLASSIFIER = "experiments.learning.Classifier"
TASKS = (CLASSIFIER, "experiments.learning.Task")


def job_values(config: DictConfig) -> dict[str, Any]:
    """What a job of a composed config, ``hydra`` included, would be given: plain values, resolved.

    Raises:
        UserError: if a value is missing that has no default, or cannot be resolved.
    """
    from hydra.core.hydra_config import HydraConfig

    job: Any = HydraConfig.instance()
    before = job.cfg
    try:
        job.cfg, hydra = config, config.hydra  # what ${hydra:...} reads
        with read_write(hydra):
            sweeps = str(hydra.mode) == "RunMode.MULTIRUN"
            folder = [hydra.sweep.dir, hydra.sweep.subdir] if sweeps else [hydra.run.dir]
            hydra.runtime.output_dir = str(Path(*map(str, folder)).absolute())  # as Hydra will when the job starts
        return plain(config)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key or 'the config'}: {str(error).splitlines()[0]}") from error
    finally:
        job.cfg = before


def overrides_of(job: Any) -> list[str]:
    """What was typed for a job of Hydra's, as it was typed: interpolations in it are not resolved."""
    return list(map(str, OmegaConf.to_container(job.overrides.task, resolve=False) or ()))


def typed_keys(typed: Sequence[str]) -> set[str]:
    """The dotted keys that overrides give values to, those inside of a mapping too."""
    found: set[str] = set()

    def add(name: str, value: Any) -> None:
        found.add(name)
        if isinstance(value, dict):
            for key, part in value.items():
                add(f"{name}.{getattr(key, 'text', key)}", part)

    for override in typed:
        key, equals, value = override.lstrip("+~").partition("=")
        parsed: Any = value
        if equals and value.startswith("{"):
            from hydra.core.override_parser.overrides_parser import OverridesParser
            from hydra.errors import HydraException

            try:
                parsed = OverridesParser.create().parse_override(override).value()
            except HydraException:
                parsed = value
        add(key.partition("@")[0].replace("/", "."), parsed)
    return found


def given_values(overrides: Sequence[str]) -> dict[str, Any]:
    """What plain overrides give, by their keys; raises UserError for what cannot be read."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if faults := [f"{one}: {fault}" for one in overrides if (fault := unreadable(one, several=False))]:
        raise UserError(together(faults))
    parsed = OverridesParser.create().parse_overrides([quoted(one) for one in overrides])
    return {one.key_or_group: one.value() for one in parsed}


def plain(config: Any) -> dict[str, Any]:
    """A composed config, without ``hydra``, as plain, resolved values.

    Raises:
        UserError: if a value is missing that has no default, or cannot be resolved.
    """
    try:
        return {str(key): _resolved(config[key]) for key in config if key != "hydra"}
    except OmegaConfBaseException as error:
        ours = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        missing = sorted(OmegaConf.missing_keys(ours))
        own_module = OmegaConf.select(config, "model._target_", throw_on_missing=False) not in TASKS
        if own_module and missing == ["model.net._target_"]:  # one's own LightningModule may do without a network
            config = copy.deepcopy(config)
            with read_write(config), open_dict(config):
                config.model.net = None
            return plain(config)
        if missing:
            raise UserError(f"{', '.join(missing)} must be given, as key=value") from None
        raise UserError(f"{error.full_key or 'the config'}: {str(error).splitlines()[0]}") from error


def _resolved(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True, throw_on_missing=True) if OmegaConf.is_config(value) else value

"""Drop what another choice's file has left beside a class that was named by itself."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.config.checks.sections import Config, targets
from experiments.config.checks.signatures import NotFound, accepted_arguments, fits, locate
from experiments.config.checks.sources import arguments_in_conf
from experiments.config.plain_values import typed_keys

log = logging.getLogger(__name__)


def without_leftovers(config: Config, typed: Sequence[str] = ()) -> dict[str, Any]:
    """A config without default values that belong to another class than the one it names.

    ``optimizer._target_=torch.optim.RAdam`` replaces Adam's class and leaves Adam's ``fused`` beside it. A key that a
    conf file gives to another class, that this class does not take, and that nobody typed, is no mistake.
    """
    kept = {**config}
    given = typed_keys(typed)
    for name, part in targets(config):
        target = part["_target_"]
        try:
            parameters, annotations, any_other = accepted_arguments(locate(target))
        except NotFound:
            continue
        others = {key for other, values in arguments_in_conf().items() if other != target for key in values}
        dropped = [
            key
            for key in part
            if key in others
            and key not in arguments_in_conf().get(target, {})
            and not key.startswith("_")
            and f"{name}.{key}" not in given
            and not (fits(part[key], annotations[key]) if key in parameters else any_other)
        ]
        if dropped:
            log.info("%s takes no %s: left out", target, ", ".join(dropped))
            kept = _without(kept, name.split("."), dropped)
    return kept


def _without(config: Mapping[str, Any], path: Sequence[str], keys: Sequence[str]) -> dict[str, Any]:
    if not path:
        return {key: value for key, value in config.items() if key not in keys}
    return {**config, path[0]: _without(config[path[0]], path[1:], keys)}

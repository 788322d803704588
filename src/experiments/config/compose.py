"""Compose a config without a command line."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from omegaconf import DictConfig

from experiments.config import conf_files
from experiments.config.hydra_internals import VERSION_BASE
from experiments.config.installation import CONF
from experiments.config.overrides import as_meant, explain, override_mistakes
from experiments.config.plain_values import job_values
from experiments.config.resolvers import forget_run_id, register_resolvers
from experiments.errors import UserError, together


class Composed(dict[str, Any]):
    """A composed config, with the overrides that a run records, as if they had been typed."""

    def __init__(self, values: dict[str, Any], overrides: Sequence[str]) -> None:
        super().__init__(values)
        self._as_composed, self._overrides = deepcopy(values), overrides

    @property
    def overrides(self) -> Sequence[str]:
        """What was composed; nothing, if the values were changed since, which overrides do not say."""
        return self._overrides if self == self._as_composed else ()


def compose(*overrides: str) -> Composed:
    """Compose a config as ``scripts/train.py`` would, in a notebook or a test: plain values, resolved.

    ``compose("optimizer=sgd", "optimizer.lr=0.01")`` returns what ``experiments.build`` takes.

    Raises:
        UserError: if an override names an unknown group, choice or key; the message lists them.
    """
    register_resolvers()
    conf_files.report_replaced()
    forget_run_id()
    if mistakes := override_mistakes(overrides):
        raise UserError(together(mistakes))
    try:
        config = composed(as_meant(overrides))
    except Exception as error:  # over an override that it did not foresee, Hydra stumbles anywhere
        raise UserError(together(explain(error, overrides))) from error
    # where it lies is not what it is
    return Composed(job_values(config), [one for one in overrides if not one.startswith("run_dir=")])


def composed(overrides: Sequence[str]) -> DictConfig:
    """Hydra's config of overrides, ``hydra`` included."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    before = GlobalHydra.instance().hydra  # a command's own
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), **VERSION_BASE):
            return hydra_compose("train", list(overrides), return_hydra_config=True)
    finally:
        GlobalHydra.instance().hydra = before

"""What Hydra finds of this project: its sweepers, and a user's own conf folder.

It imports this at every start, so the logic waits elsewhere. There is no ``__init__.py`` beside this file:
``hydra_plugins`` is a namespace that all plugins share.
"""

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from experiments.composition import register_resolvers
from experiments.config import conf_files
from experiments.config.installation import CONF

# A launcher's processes compose their configs by themselves, and import this module before they do.
register_resolvers()


class OwnConf(SearchPathPlugin):
    """Puts a user's own conf folder before this project's; other Hydra programs stay as they are."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Prepend it: of two files of one name, Hydra takes the first."""
        is_ours = any((entry.path or "").removeprefix("file://") == str(CONF) for entry in search_path.get_path())
        own = conf_files.own_folder() if is_ours else None
        if own is not None:
            search_path.prepend("own-conf", f"file://{own}")


class GridSweeper(BasicSweeper):
    """Hydra's grid, whose failing jobs leave their traceback behind and stop no other."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Prepare the jobs to fail well."""
        from experiments.sweeps.job import Job
        from experiments.sweeps.launching import prepared

        super().setup(hydra_context=hydra_context, task_function=Job(task_function), config=prepared(config))

    def sweep(self, arguments: list[str]) -> Any:
        """Run the grid and show what came of it."""
        from experiments.sweeps.grid import conclude

        results = super().sweep(arguments)
        assert self.config is not None
        return conclude(results, self.config)


class OptunaSweeper(Sweeper):
    """An Optuna study: conf/hydra/sweeper/optuna.yaml says what there is to set."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what the sweep will need."""
        self.parts = config, hydra_context, task_function

    def sweep(self, arguments: list[str]) -> None:
        """Ask, run and tell until the trials are done."""
        from experiments.sweeps.launching import Mistake
        from experiments.sweeps.needs import unfit_optuna

        if problem := unfit_optuna():
            raise Mistake(problem)
        from experiments.errors import UserError
        from experiments.sweeps.sweeper import Sweep

        try:
            Sweep(self.options, *self.parts, arguments).run()
        except UserError as error:
            raise Mistake(str(error)) from error

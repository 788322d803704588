"""What Hydra finds of this project: its sweepers, and a user's own conf folder.

It imports this at every start, so the logic waits elsewhere. There is no ``__init__.py`` beside this file:
``hydra_plugins`` is a namespace that all plugins share.
"""

from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from experiments.config import conf_files
from experiments.config.hydra_internals import basic_sweeper, instantiate
from experiments.config.installation import CONF
from experiments.config.resolvers import register_resolvers

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


class GridSweeper(Sweeper):
    """Hydra's grid, whose failing jobs leave their traceback behind and stop no other."""

    def __init__(self, **options: Any) -> None:
        self.basic = basic_sweeper(**options)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Prepare the jobs to fail well."""
        from experiments.sweeps.job import Job
        from experiments.sweeps.multirun import prepared

        self.parts = config, hydra_context
        self.basic.setup(hydra_context=hydra_context, task_function=Job(task_function), config=prepared(config))

    def sweep(self, arguments: list[str]) -> Any:
        """Run the grid and show what came of it."""
        from pathlib import Path

        from experiments.sweeps.multirun import command_again, conclude, freeze_conf

        config, context = self.parts
        freeze_conf(config, context)
        try:
            batches = self.basic.sweep(arguments)
        except (SystemExit, KeyboardInterrupt):  # a signal
            again = command_again(Path(config.hydra.sweep.dir).absolute())
            print(f"stopped; what is done is left out by: {again}", flush=True)
            raise
        return conclude(batches, config)


class OptunaSweeper(Sweeper):
    """An Optuna study: conf/hydra/sweeper/optuna.yaml says what there is to set."""

    def __init__(self, **options: Any) -> None:
        parts = ("sampler", "pruner")  # which Hydra 1.4 leaves to the sweeper to make
        self.options = {
            name: instantiate(value) if name in parts and isinstance(value, DictConfig) else value
            for name, value in options.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what the sweep will need."""
        self.parts = config, hydra_context, task_function

    def sweep(self, arguments: list[str]) -> None:
        """Ask, run and tell until the trials are done."""
        from experiments.config.requirements import unfit_optuna
        from experiments.sweeps.multirun import Mistake

        if problem := unfit_optuna():
            raise Mistake(problem)
        from experiments.errors import UserError
        from experiments.sweeps.sweep import Sweep

        try:
            Sweep(self.options, *self.parts, arguments).run()
        except UserError as error:
            raise Mistake(str(error)) from error

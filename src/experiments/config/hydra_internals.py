"""What differs between Hydra 1.3 and 1.4, and what reaches into Hydra's private parts.

Of the latter, each says what breaks without it, and why there is no public way.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hydra.utils
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

# Hydra 1.4 has a list of the classes that a config may name, and wants no version_base. What is typed may name
# anything; what comes out of a file has passed runs.allowed_classes before.
_UNCHECKED = getattr(hydra.utils, "UNSAFE_DISABLE_EXECUTION_CHECKS", None)
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if _UNCHECKED is None else {}
MAIN_OPTIONS = VERSION_BASE if _UNCHECKED is None else {"execution_whitelist": _UNCHECKED}


def instantiate(config: Mapping[str, Any], **options: Any) -> Any:
    """Call a config's ``_target_`` with its other keys, with ``hydra.utils.instantiate`` of either version."""
    if _UNCHECKED is not None:
        options["_execution_whitelist_"] = _UNCHECKED
    return hydra.utils.instantiate(config, **options)


def register_resolver(name: str, function: Callable[..., Any], **options: Any) -> None:
    """Make a function known to configs as ``${name:...}``; OmegaConf 2.4, which Hydra 1.4 needs, has renamed it."""
    register: Any = OmegaConf.register_new_resolver if _UNCHECKED is None else OmegaConf.register_resolver
    register(name, function, replace=True, **options)


def let_hydra_start() -> None:
    """Let Hydra 1.3 build its parser on Python 3.14, whose argparse formats every help text when it is added.

    Hydra's help for shell completion is an object that is not text until it is shown, so that no program of Hydra's
    starts. Hydra offers no way to its parser before ``hydra.main`` builds it; 1.4 needs none.
    """
    from hydra._internal.utils import get_args_parser

    try:
        get_args_parser()
    except ValueError:
        check: Any = argparse.ArgumentParser._check_help  # type: ignore[attr-defined]  # there since 3.14

        def check_text(parser: argparse.ArgumentParser, action: argparse.Action) -> None:
            if isinstance(action.help, str):
                check(parser, action)

        argparse._ActionsContainer._check_help = check_text  # type: ignore[attr-defined]


def let_errors_through() -> None:
    """Let Hydra raise what goes wrong, so that a program says it in its own words.

    ``hydra.main`` prints an exception's last line, advice of its own, and ends the process; its only way around that
    is HYDRA_FULL_ERROR, which child processes inherit, and which users set to see more.
    """
    from hydra._internal import utils

    def run(func: Any) -> Any:
        return func()

    utils.run_and_report = run


def basic_sweeper(**options: Any) -> Sweeper:
    """Make Hydra's own sweeper of grids, which ours runs jobs with; Hydra has no public place for it.

    It would compose every point before the first job starts, a quarter of a second each, and has no switch for that:
    ``checks.grid`` composes as many as are needed. It is imported late: Hydra runs its plugins' modules anew when it
    looks for plugins.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    made: Any = BasicSweeper(**options)
    made.validate_batch_is_legal = lambda batch: None
    return made


def grid_points(overrides: list[Override]) -> list[list[str]]:
    """Split swept overrides into the points of their grid, as Hydra's own sweeper does; it has no public function."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    (points,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return points


def compose_from(loader: ConfigLoader, folder: Path) -> None:
    """Let a multirun find files in a folder first; Hydra closes its search path before anything knows the folder."""
    from hydra._internal.config_repository import ConfigRepository

    ours: Any = loader
    ours.config_search_path.prepend("frozen-conf", f"file://{folder}")
    ours.repository = ConfigRepository(ours.config_search_path)

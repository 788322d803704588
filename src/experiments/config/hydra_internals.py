"""What reaches into Hydra's private parts; each with what breaks without it, and why there is no public way."""

import argparse
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.plugins.sweeper import Sweeper


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


def basic_sweeper(**options: Any) -> Sweeper:
    """Make Hydra's own sweeper of grids, which ours runs jobs with; Hydra has no public place for it.

    It is imported late: Hydra runs its plugins' modules anew when it looks for plugins.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    return BasicSweeper(**options)


def grid_points(overrides: list[Override]) -> list[list[str]]:
    """Split swept overrides into the points of their grid, as Hydra's own sweeper does; it has no public function."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    (points,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return points

"""The parts of Hydra's that this project reaches into are there, and are left alone where they work by themselves."""

import argparse

import pytest
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser

from experiments.config.hydra_internals import basic_sweeper, grid_points, let_hydra_start


def test_hydra_builds_its_parser_and_other_help_is_checked_as_before(monkeypatch):
    container = argparse._ActionsContainer
    if hasattr(container, "_check_help"):
        monkeypatch.setattr(container, "_check_help", container._check_help)  # put back afterwards
    let_hydra_start()
    assert get_args_parser().parse_args(["--help"]).help
    if hasattr(container, "_check_help"):
        with pytest.raises(ValueError, match="badly formed help string"):
            argparse.ArgumentParser().add_argument("--broken", help="%(nothing)s")


def test_nothing_is_changed_where_hydra_starts_by_itself():
    before = vars(argparse._ActionsContainer).copy()
    try:
        get_args_parser()
    except ValueError:
        pytest.skip("this Hydra does not start by itself on this Python")
    let_hydra_start()
    assert vars(argparse._ActionsContainer) == before


def test_the_grids_points_are_hydras_own():
    overrides = OverridesParser.create().parse_overrides(["optimizer=adam,sgd", "seed=range(0,2)", "name=x"])
    points = [["optimizer=adam", "seed=0", "name=x"], ["optimizer=adam", "seed=1", "name=x"]]
    points += [["optimizer=sgd", "seed=0", "name=x"], ["optimizer=sgd", "seed=1", "name=x"]]
    assert grid_points(overrides) == points, grid_points.__doc__


def test_hydras_own_sweeper_runs_the_jobs_of_a_grid():
    sweeper = basic_sweeper(max_batch_size=None, params=None)
    assert callable(sweeper.setup), basic_sweeper.__doc__
    assert callable(sweeper.sweep), basic_sweeper.__doc__

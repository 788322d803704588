"""The parts of Hydra's that this project reaches into are there, and are left alone where they work by themselves."""

import argparse

import pytest
from hydra._internal.utils import get_args_parser

from experiments.config.hydra_internals import let_hydra_start


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

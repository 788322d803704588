"""The parts of Optuna's that this project reaches into are there; else its docstring says what breaks."""

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import TrialState

from experiments.sweeps import optuna_internals
from experiments.sweeps.optuna_internals import storage_of, suggest, trial_id
from experiments.sweeps.storage import journal_storage


@pytest.fixture
def study(tmp_path):
    return optuna.create_study(storage=journal_storage(tmp_path / "study.journal", 0))


def test_trials_are_known_to_their_storage_by_id(study):
    trial = study.ask()
    storage_of(study).set_trial_user_attr(trial_id(trial), "seen", 1)
    assert study.trials[0].user_attrs == {"seen": 1}, storage_of.__doc__


def test_a_parameter_is_drawn_from_any_distribution(study):
    trial = study.ask()
    suggest(trial, "width", IntDistribution(3, 3))
    assert study.trials[0].params == {"width": 3}, suggest.__doc__


def test_failed_trials_are_shown_to_samplers_as_pruned(study):
    trial = study.ask()
    trial.suggest_int("width", 1, 3)
    study.tell(trial, state=TrialState.FAIL)
    seen = optuna_internals.with_failures_shown_to_sampler(study)._get_trials(
        states=(TrialState.COMPLETE, TrialState.PRUNED)
    )
    assert [one.state for one in seen] == [TrialState.PRUNED], optuna_internals.StudyShowingFailures.__doc__

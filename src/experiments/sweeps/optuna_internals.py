"""What reaches into Optuna's private parts; each with what breaks without it, and why there is no public way."""

from collections.abc import Container
from copy import copy

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from experiments.sweeps.trials import LOST_ATTR


class StudyShowingFailures(optuna.Study):
    """A study that shows failed trials to its sampler.

    Optuna's samplers pass over failed trials, so TPE comes back again and again to a choice that always fails: it
    looks untried. Here, who asks for pruned trials also gets the failed ones, as pruned before their first value.
    """

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        wanted = super()._get_trials(deepcopy, states, use_cache)
        if states is None or TrialState.PRUNED not in states or TrialState.FAIL in states:
            return wanted
        failed = []
        for trial in super()._get_trials(deepcopy, (TrialState.FAIL,), use_cache):
            if trial.params and LOST_ATTR not in trial.user_attrs:
                seen = copy(trial)
                seen.state, seen.intermediate_values = TrialState.PRUNED, {}
                failed.append(seen)
        return sorted([*wanted, *failed], key=lambda trial: trial.number)


def with_failures_shown_to_sampler(study: optuna.Study) -> optuna.Study:
    """The same study, showing failures: ``create_study`` makes no other class, and keeps its storage private."""
    return StudyShowingFailures(study.study_name, study._storage, study.sampler, study.pruner)


def storage_of(study: optuna.Study) -> BaseStorage:
    """The study's storage: what another process ran can be marked as lost there alone, and no property gives it."""
    return study._storage


def trial_id(trial: Trial | FrozenTrial) -> int:
    """The id by which a storage knows a trial; public is only its number, which storages do not take."""
    return trial._trial_id


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> None:
    """Draw a parameter from any distribution: a trial's public methods take each kind's bounds one by one."""
    trial._suggest(name, distribution)

"""The user attributes of a study and its trials, and which trials count."""

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

# User attributes of a trial
OWNER_ATTR = "owner"
DIRECTORY_ATTR = "directory"
LOST_ATTR = "lost"
RETRY_OF_ATTR = "retry_of"
DEATHS_ATTR = "deaths"
ERROR_ATTR = "error"
STATUS = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
SWEEP_ATTR = "sweep"  # user attribute of a study: its sweep's space, metric and overrides


def counted(study: Study) -> list[FrozenTrial]:
    """The trials that count: those that ended by themselves, and those that run."""
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if trial.state != TrialState.WAITING and LOST_ATTR not in trial.user_attrs]


def running(study: Study) -> list[FrozenTrial]:
    """The trials that are under way, or were when their process died."""
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def best(study: Study) -> FrozenTrial | None:
    """The best trial that was not pruned, if there is one yet."""
    try:
        return study.best_trial
    except ValueError:
        return None

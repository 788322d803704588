"""What a trial of a study says of itself, and which trials count."""

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

# What a trial says of itself beside its parameters
OWNER, DIRECTORY, LOST, RETRY_OF, DEATHS, ERROR = "owner", "directory", "lost", "retry_of", "deaths", "error"
STATUS = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
SWEEP = "sweep"  # what a study says of its sweep


def counted(study: Study) -> list[FrozenTrial]:
    """The trials that count: those that ended by themselves, and those that run."""
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if trial.state != TrialState.WAITING and LOST not in trial.user_attrs]


def running(study: Study) -> list[FrozenTrial]:
    """The trials that are under way, or were when their process died."""
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def best(study: Study) -> FrozenTrial | None:
    """The best trial that was not pruned, if there is one yet."""
    try:
        return study.best_trial
    except ValueError:
        return None

"""What draws the points of a study."""

import random
import warnings
from functools import partial
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GridSampler, QMCSampler, RandomSampler, TPESampler

from experiments.errors import UserError
from experiments.sweeps import space as spaces

STARTUP = 10  # points before TPE has any to learn from, where nobody says otherwise


def sampler_of_trial(make: "partial[BaseSampler]", space: spaces.Space, number: int) -> BaseSampler:
    """The sampler of one trial: what it draws follows from the seed and the trial's number alone.

    With one seed for all, every process, and every start of the same sweep, would try the same points. TPE's first
    points are spread over the space: chance may draw one choice of two six times.

    Raises:
        UserError: if the sampler refuses its arguments.
    """
    seed = make.keywords.get("seed")
    own: dict[str, Any] = {}
    if make.func is GridSampler:
        own["search_space"] = spaces.grid(space)
    elif seed is not None and make.func is not QMCSampler:  # whose processes share one sequence
        own["seed"] = random.Random(str((seed, number))).getrandbits(32)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            made: BaseSampler = make(**own)
            if make.func is TPESampler and number < make.keywords.get("n_startup_trials", STARTUP):
                return QMCSampler(
                    scramble=True,
                    seed=seed,
                    independent_sampler=RandomSampler(own.get("seed")),  # before a trial has ended
                    warn_independent_sampling=False,
                    warn_asynchronous_seeding=False,
                )
            return made
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"hydra/sweeper/sampler: {make.func.__name__} refuses its arguments: {error}") from error

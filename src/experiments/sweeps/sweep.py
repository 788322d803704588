"""Run a sweep: ask trials of a study, let them run, say what came of them."""

import logging
import os
import re
import shlex
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from optuna import Study
from optuna.samplers import BaseSampler, GridSampler
from optuna.trial import Trial, TrialState

from experiments.config.checks.check import config_mistakes, require_none
from experiments.config.checks.ranges import WORST
from experiments.config.installation import command, typed_path
from experiments.config.plain_values import TASKS, job_values, overrides_of
from experiments.errors import UserError
from experiments.sweeps import space as spaces
from experiments.sweeps.display import Display
from experiments.sweeps.job import TRIAL, Job
from experiments.sweeps.multirun import NothingFinished, command_again, freeze_conf, prepared
from experiments.sweeps.samplers import sampler_of_trial
from experiments.sweeps.storage import JOURNAL
from experiments.sweeps.study import SharedStudy
from experiments.sweeps.trials import ERROR_ATTR, best, counted, running
from experiments.sweeps.workers import SECONDS_BETWEEN_LOOKS, WORKER, cores, end_with_parent, run_workers

OPTIONS = ("sampler", "pruner", "n_trials", "workers", "metric", "direction", "params")


class Sweep:
    """One process's part in a sweep: all of it, or that of one worker or parent among several.

    Args:
        options: what stands in ``conf/hydra/sweeper/optuna.yaml``.
        config: Hydra's config of the whole multirun.
        arguments: the overrides that were typed, swept ones included.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        config: DictConfig,
        context: HydraContext,
        task: TaskFunction,
        arguments: Sequence[str],
    ) -> None:
        own = {"metric": config.monitor, "direction": {"max": "maximize", "min": "minimize"}.get(config.mode)}
        options = {**options, **{name: value for name, value in own.items() if options[name] is None}}
        self.options, self.config, self.context, self.task = options, config, context, task
        self.is_worker = WORKER in os.environ
        self.folder = Path(config.hydra.sweep.dir).absolute()
        params = [f"{name}={value}" for name, value in (options["params"] or {}).items()]
        self.fixed, self.space = spaces.parse([*params, *arguments], context.config_loader)
        self._check()
        self.shared = SharedStudy(
            journal=self.folder / JOURNAL,
            direction=options["direction"],
            metric=options["metric"],
            space=self.space,
            fixed=self.fixed,
            pruner=options["pruner"],
        )
        grid = getattr(options["sampler"], "func", None) is GridSampler
        self.total = min(options["n_trials"], spaces.grid_size(self.space)) if grid else options["n_trials"]
        self.in_process = config.hydra.launcher._target_.endswith("BasicLauncher")

    def _check(self) -> None:
        if unknown := [name for name in self.options if name not in OPTIONS]:
            raise UserError(f"hydra.sweeper.{unknown[0]} is a key that nothing reads. There are {', '.join(OPTIONS)}")
        if not self.space:
            raise UserError(
                "there is nothing to search: give an override a range or choices, such as "
                "'optimizer.lr=tag(log,interval(1e-4,1e-1))' or optimizer=adam,sgd, or choose a space: sweep=mlp"
            )
        for name, least in {"n_trials": 1, "workers": 1}.items():
            value = self.options[name]
            if not (isinstance(value, int) and value >= least) and not (name == "workers" and value is None):
                raise UserError(f"hydra.sweeper.{name}={value} must be a whole number of at least {least}")
        if self.options["direction"] not in ("maximize", "minimize"):
            raise UserError(f"hydra.sweeper.direction={self.options['direction']} must be maximize or minimize")
        metric, own = str(self.options["metric"]), self.config.model.get("_target_") not in TASKS
        if not metric.startswith("val/") and not (own and not metric.startswith("test")):
            raise UserError(f"hydra.sweeper.metric={self.options['metric']} must be a val/ metric: sweeps never test")
        direction = self.options["direction"]
        if WORST.get(self.options["metric"].rpartition("/")[2]) == direction[:3]:
            better = "minimize" if direction == "maximize" else "maximize"
            raise UserError(
                f"hydra.sweeper.metric={self.options['metric']} with hydra.sweeper.direction={direction} would "
                f"look for the worst: add hydra.sweeper.direction={better}"
            )
        if self.config.check:
            raise UserError("check=true is for runs and grids: leave it out, or leave out the search")
        if any(override.partition("=")[0] == "test" for override in self.fixed):
            raise UserError(
                "test= is not for sweeps: trials are compared on validation images and never see the test split. "
                "The command that a sweep ends with trains the best one anew, and tests it"
            )
        if not self.is_worker:  # what does not compose is a mistake in the command, not a trial that fails
            self._check_examples()

    def _check_examples(self) -> None:
        monitored = {"monitor": self.options["metric"], "mode": self.options["direction"][:3]}
        for values in spaces.examples(self.space):
            try:
                config = self.context.config_loader.load_sweep_config(self.config, self.overrides(0, values))
            except (HydraException, OmegaConfBaseException) as error:
                raise UserError(str(error)) from error
            mistakes = config_mistakes({**job_values(config), **monitored}, overrides_of(config.hydra))
            require_none([re.sub("^monitor=", "hydra.sweeper.metric=", fault) for fault in mistakes])

    def overrides(self, number: int, values: Mapping[str, Any]) -> list[str]:
        """Everything that a trial's config is composed of."""
        quiet_console = ["hydra.job_logging.root.handlers=[file]"]
        return [
            *self.fixed,
            *spaces.as_overrides(values),
            "test=false",
            f"hydra.sweep.dir={spaces.quoted(str(self.folder))}",
            f"hydra.sweep.subdir={spaces.quoted(str(number))}",  # job numbers start anew when a sweep goes on
            f"++hydra.job.env_set.{TRIAL}={spaces.quoted(str(number))}",
            *(quiet_console if "file" in self.config.hydra.job_logging.handlers else []),
        ]

    def run(self) -> None:
        """Let trials run until ``n_trials`` are done, by whomever; then say what came of them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("TQDM_DISABLE", "1")  # one line a trial: no bar an epoch, no launcher's word
        logging.getLogger("hydra._internal.core_plugins.basic_launcher").setLevel(logging.WARNING)
        study = self.shared.open_study()
        if self.is_worker:
            end_with_parent()
            self.work(width=1, show=None)
            return
        display = Display(study, self.total, self.options["direction"], self.shared)
        display.start()
        try:
            if self.in_process and (self.options["workers"] or 1) > 1:
                self.run_workers(self.options["workers"], display.print_ended)
            else:
                self.work(1 if self.in_process else self.options["workers"] or self.width(), display.print_ended)
        except BaseException as error:
            with self.shared.lock():
                self.shared.requeue_lost(study)  # what a worker was killed in the middle of
            display.stopped(command_again(self.folder))
            # Lightning makes exit code 1 of it while a trial is being set up
            if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
                raise SystemExit(128 + signal.SIGINT) from None
            raise
        display.print_ended()
        self.conclude(study)

    def width(self) -> int:
        """How many jobs a launcher is given at once, if nobody says: what it runs at once, or the cores here."""
        launcher = self.config.hydra.launcher
        at_once = launcher.get("n_jobs", launcher.get("array_parallelism"))
        return at_once if at_once and 0 < at_once < 64 else cores()

    def sampler(self, number: int) -> BaseSampler:
        """The sampler of the trial of a number."""
        return sampler_of_trial(self.options["sampler"], self.space, number)

    def work(self, width: int, show: Callable[[], None] | None) -> None:
        """Ask ``width`` trials, let them run through the launcher, and again."""
        study = self.shared.open_study(self.sampler(0))
        freeze_conf(self.config, self.context)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=Job(self.task, self.shared), config=prepared(self.config)
        )
        while True:
            batch: list[Trial] = []
            while len(batch) < width and (trial := self.shared.ask(study, self.total, self.sampler)) is not None:
                batch.append(trial)
            if not batch:
                if not running(study):
                    return
                time.sleep(SECONDS_BETWEEN_LOOKS)  # others are at the last ones; if they die, those come back
                if show:
                    show()
                continue
            try:
                jobs = [self.overrides(trial.number, trial.params) for trial in batch]
                for result in launcher.launch(jobs, initial_job_idx=batch[0].number):
                    _ = result.return_value  # raises what went wrong outside the task
            except (HydraException, OmegaConfBaseException) as error:  # values that do not go together
                for trial in batch:
                    if study.trials[trial.number].state == TrialState.RUNNING:
                        trial.set_user_attr(ERROR_ATTR, str(error))
                        study.tell(trial, state=TrialState.FAIL)
            except BaseException:
                for trial in batch:
                    self.shared.requeue(study, trial.number)
                raise
            if show:
                show()

    def run_workers(self, workers: int, look: Callable[[], None]) -> None:
        """Let worker processes run the trials.

        Raises:
            UserError: if they have ended and trials are left.
        """
        freeze_conf(self.config, self.context)
        logs = self.folder / "workers"
        broken = run_workers(workers, f"hydra.sweep.dir={spaces.quoted(str(self.folder))}", logs, look)
        left = self.total - len(counted(self.shared.open_study()))
        if broken:
            print(f"{len(broken)} of {workers} workers ended early; see {', '.join(map(str, broken))}", flush=True)
        if left > 0:
            raise UserError(f"{left} trials are left and no worker to run them: look at {logs}, then start again")

    def conclude(self, study: Study) -> None:
        """The last lines of a sweep."""
        winner = best(study)
        if winner is None:
            first = next(
                (trial.user_attrs[ERROR_ATTR] for trial in study.trials if ERROR_ATTR in trial.user_attrs), ""
            )
            raise NothingFinished(f"no trial finished; the first one failed with: {first}")
        values, mode = spaces.as_overrides(winner.params), self.shared.direction[:3]
        by = [] if self.shared.metric == self.config.monitor else [f"monitor={self.shared.metric}", f"mode={mode}"]
        again = f"{command('train')} {shlex.join([*spaces.without_sweep(self.fixed), *values, *by])}"
        folder, journal = typed_path(self.folder), typed_path(self.shared.journal)
        print(
            f"best {self.shared.metric}: {winner.value:.6g} by trial {winner.number}",
            *(f"  {value}" for value in values),
            f"train and test it: {again}",
            f"look at all of them: {command('summarize')} runs={folder}",
            f"or in a browser (pip install optuna-dashboard): optuna-dashboard {journal}",
            sep="\n",
            flush=True,
        )

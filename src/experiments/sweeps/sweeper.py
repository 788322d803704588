"""A sweep from its first trial to its last line: asks trials of a study and lets them run."""

import logging
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from optuna import Study
from optuna.samplers import BaseSampler, GridSampler, QMCSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from experiments.check.rules import WORST
from experiments.config.installation import command
from experiments.errors import UserError
from experiments.sweeps import space as spaces
from experiments.sweeps.job import TRIAL, Job
from experiments.sweeps.launching import NothingFinished, prepared
from experiments.sweeps.study import ERROR, JOURNAL, STATUS, SharedStudy, best, counted, quiet, running, shown

WORKER = "EXPERIMENTS_WORKER"  # set in a worker process
SECONDS_BETWEEN_LOOKS = 0.5


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
        self.options, self.config, self.context, self.task = options, config, context, task
        self.is_worker = WORKER in os.environ
        self.folder = Path(config.hydra.sweep.dir).absolute()
        own = [f"{name}={value}" for name, value in (options["params"] or {}).items()]
        self.fixed, self.space = spaces.parse([*own, *arguments], context.config_loader)
        self._check()
        storage = options["storage"] or str(self.folder / JOURNAL)
        self.shared = SharedStudy(
            address=storage if "://" in storage else str(Path(storage).absolute()),
            name=options["study_name"] or run_name(config),
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
        if not self.space:
            raise UserError(
                "there is nothing to search: give an override a range or choices, such as "
                "'optimizer.lr=tag(log,interval(1e-4,1e-1))' or model=mlp,cnn, or choose a space: sweep=mlp"
            )
        for name, least in {"n_trials": 1, "workers": 1}.items():
            value = self.options[name]
            if not (isinstance(value, int) and value >= least) and not (name == "workers" and value is None):
                raise UserError(f"hydra.sweeper.{name}={value} must be a whole number of at least {least}")
        if self.options["direction"] not in ("maximize", "minimize"):
            raise UserError(f"hydra.sweeper.direction={self.options['direction']} must be maximize or minimize")
        if not str(self.options["metric"]).startswith("val/"):
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
            for values in spaces.examples(self.space):
                try:
                    self.context.config_loader.load_sweep_config(self.config, self.overrides(0, values))
                except (HydraException, OmegaConfBaseException) as error:
                    raise UserError(str(error)) from error

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
        study = self.shared.study()
        if self.is_worker:
            end_with_parent()
            self.work(width=1, show=None)
            return
        display = Display(study, self.total, self.options["direction"], self.shared)
        display.start()
        try:
            if self.in_process and (self.options["workers"] or 1) > 1:
                self.direct(self.options["workers"], display.look)
            else:
                self.work(1 if self.in_process else self.options["workers"] or self.width(), display.look)
        except BaseException as error:
            display.stopped(command_again(self.folder, self.options["storage"]))
            # Lightning makes exit code 1 of it while a trial is being set up
            if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
                raise SystemExit(128 + signal.SIGINT) from None
            raise
        display.look()
        self.conclude(study)

    def width(self) -> int:
        """How many jobs a launcher is given at once, if nobody says: what it runs at once, or the cores here."""
        launcher = self.config.hydra.launcher
        at_once = launcher.get("n_jobs", launcher.get("array_parallelism"))
        return at_once if at_once and 0 < at_once < 64 else cores()

    def sampler(self, number: int) -> BaseSampler:
        """The sampler of one trial: what it draws follows from the seed and the trial's number alone.

        With one seed for all, every process, and every start of the same sweep, would try the same points.
        """
        make = self.options["sampler"]
        seed = make.keywords.get("seed")
        own: dict[str, Any] = {}
        if make.func is GridSampler:
            own["search_space"] = spaces.grid(self.space)
        elif seed is not None and make.func is not QMCSampler:  # whose processes share one sequence
            own["seed"] = random.Random(str((seed, number))).getrandbits(32)
        try:
            with quiet():
                made: BaseSampler = make(**own)
                return made
        except (TypeError, ValueError, ImportError) as error:
            raise UserError(f"hydra/sweeper/sampler: {make.func.__name__} refuses its arguments: {error}") from error

    def work(self, width: int, show: Callable[[], None] | None) -> None:
        """Ask ``width`` trials, let them run through the launcher, and again."""
        study = self.shared.study(self.sampler(0))
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
                        trial.set_user_attr(ERROR, str(error))
                        study.tell(trial, state=TrialState.FAIL)
            except BaseException:
                for trial in batch:
                    self.shared.give_back(study, trial.number)
                raise
            if show:
                show()

    def direct(self, workers: int, look: Callable[[], None]) -> None:
        """Start worker processes on the study and wait for them; Ctrl-C stops them all."""
        logs = self.folder / "workers"
        logs.mkdir(exist_ok=True)
        where = f"hydra.sweep.dir={spaces.quoted(str(self.folder))}"
        command = [sys.executable, os.path.abspath(sys.argv[0]), *sys.argv[1:], where]
        processes = []
        for index in range(workers):
            with (logs / f"{os.getpid()}-{index}.log").open("wb") as output:
                processes.append(
                    subprocess.Popen(
                        command,
                        env={**os.environ, **share(index, workers)},
                        stdin=subprocess.PIPE,  # it closes when this process ends, however it does
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,  # Ctrl-C in the terminal reaches this process alone
                    )
                )
        # a flag, not an exception that could be raised, and lost, anywhere in Optuna
        asked: list[int] = []
        before = signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
        try:
            while not asked and any(process.poll() is None for process in processes):
                time.sleep(SECONDS_BETWEEN_LOOKS)
                look()
        finally:
            signal.signal(signal.SIGINT, before)
        if asked:
            print("stopping the workers after their current step; Ctrl-C again stops them at once", flush=True)
            for process in processes:
                process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
            try:
                for process in processes:
                    process.wait()
            except KeyboardInterrupt:
                for process in processes:
                    process.kill()
            raise KeyboardInterrupt
        broken = [index for index, process in enumerate(processes) if process.returncode]
        left = self.total - len(counted(self.shared.study()))
        if broken:
            names = ", ".join(str(logs / f"{os.getpid()}-{index}.log") for index in broken)
            print(f"{len(broken)} of {workers} workers ended early; see {names}", flush=True)
        if left > 0:
            raise UserError(f"{left} trials are left and no worker to run them: look at {logs}, then start again")

    def conclude(self, study: Study) -> None:
        """The last lines of a sweep."""
        winner = best(study)
        if winner is None:
            first = next((trial.user_attrs[ERROR] for trial in study.trials if ERROR in trial.user_attrs), "")
            raise NothingFinished(f"no trial finished; the first one failed with: {first}")
        values = spaces.as_overrides(winner.params)
        again = f"{command('train')} {shlex.join([*self.fixed, *values])}"
        folder, storage = (shlex.quote(one) for one in (os.path.relpath(self.folder), shown(self.shared.address)))
        print(
            f"best {self.shared.metric}: {winner.value:.6g} by trial {winner.number}",
            *(f"  {value}" for value in values),
            f"train and test it: {again}",
            f"look at all of them: {command('summarize')} runs={folder}",
            f"or in a browser (pip install optuna-dashboard): optuna-dashboard {storage}",
            sep="\n",
            flush=True,
        )


class Display:
    """One line a trial that ended, whoever ran it: its value, how many are done, the best so far, the time left."""

    def __init__(self, study: Study, total: int, direction: str, shared: SharedStudy) -> None:
        self.study, self.total, self.shared = study, total, shared
        self.better = max if direction == "maximize" else min
        self.shown = {trial.number for trial in self._ended()}
        self.at_start = len(self.shown)
        self.started = time.monotonic()

    def _ended(self) -> list[FrozenTrial]:
        return [trial for trial in counted(self.study) if trial.state.is_finished()]

    def start(self) -> None:
        """What is there already."""
        with self.shared.lock():
            lost = self.shared.recover(self.study)
        again = f", {lost} that ended with their process go back into the queue" if lost else ""
        where = shown(self.shared.address)
        print(
            f"study {self.shared.name} in {where}: {self.at_start} of {self.total} trials are done{again}", flush=True
        )

    def look(self) -> None:
        """Print what has ended since the last look."""
        ended = self._ended()
        for trial in sorted(ended, key=lambda trial: str(trial.datetime_complete)):
            if trial.number in self.shown:
                continue
            self.shown.add(trial.number)
            print(self._line(trial, [other for other in ended if other.number in self.shown]), flush=True)

    def _line(self, trial: FrozenTrial, ended: list[FrozenTrial]) -> str:
        values = {other.number: other.value for other in ended if other.state == TrialState.COMPLETE}
        states = [STATUS[other.state] for other in ended]
        also = "".join(f", {states.count(name)} {name}" for name in ("pruned", "failed") if name in states)
        leader = self.better(values, key=lambda number: values[number] or 0.0) if values else None
        record = f", best {values[leader]:.4f} by trial {leader}" if leader is not None else ""
        seconds = (time.monotonic() - self.started) / (len(ended) - self.at_start) * (self.total - len(ended))
        left = f", {clock(seconds)} left" if seconds > 0 else ""
        what = f"{trial.value:.4f}" if trial.state == TrialState.COMPLETE else STATUS[trial.state]
        if trial.state == TrialState.FAIL:
            what = f"failed: {str(trial.user_attrs.get(ERROR, '')).splitlines()[0][:200]}"
        return f"trial {trial.number}: {what}  ({len(ended)} of {self.total}{also}{record}{left})"

    def stopped(self, again: str) -> None:
        """How to go on with a sweep that was interrupted."""
        self.look()
        print(f"stopped with {len(self.shown)} of {self.total} trials done; go on with: {again}", flush=True)


def run_name(config: DictConfig) -> str:
    """``name`` of the whole multirun's config, which may ask Hydra for choices."""
    job = HydraConfig.instance()
    before = job.cfg
    job.set_config(config)
    try:
        return str(config.name)
    finally:
        job.cfg = before


def command_again(folder: Path, storage: str | None) -> str:
    """What was typed, with the sweep's directory where that is what finds the study."""
    typed = [argument for argument in sys.argv[1:] if not argument.startswith("hydra.sweep.dir=")]
    where = [] if storage else [f"hydra.sweep.dir={spaces.quoted(os.path.relpath(folder))}"]
    return f"{command('train')} {shlex.join([*typed, *where])}"


def clock(seconds: float) -> str:
    """Seconds as people read them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """The CUDA devices that this process may use, found without torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    return [str(index) for index, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]


def share(index: int, workers: int) -> dict[str, str]:
    """A worker's environment: its part of the cores, and a GPU of its own where there are several."""
    threads = str(max(1, cores() // workers))
    devices = gpus()
    return {
        WORKER: str(index),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
        "MKL_NUM_THREADS": os.environ.get("MKL_NUM_THREADS", threads),
        **({"CUDA_VISIBLE_DEVICES": devices[index % len(devices)]} if len(devices) > 1 else {}),
    }


def end_with_parent() -> None:
    """Stop this worker, as SIGTERM does, when the process that started it is gone."""

    def wait() -> None:
        while os.read(0, 1):  # nothing is ever written: it returns at the end of file
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()

"""Run a script, and refuse what Hydra must not be given, before Hydra starts."""

import atexit
import gc
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments.config import conf_files
from experiments.config.overrides import (
    TAKING_A_VALUE,
    as_meant,
    is_multirun,
    known_keys,
    override_mistakes,
    overrides_in,
    unknown_key,
)
from experiments.config.plain_values import given_values
from experiments.config.resolvers import run_of
from experiments.config.suggestions import explain_unknown_choice, explain_unknown_key, names_in_other_tools
from experiments.errors import UserError, stop, together

HYDRA_FLAGS = TAKING_A_VALUE | {
    "help", "h", "hydra-help", "version", "resolve", "run", "r", "multirun", "m", "shell-completion", "sc",
}  # fmt: skip


def missing_run(arguments: Sequence[str]) -> str | None:
    """What is wrong with a ``resume=`` on the command line, said before Hydra writes into a folder of that name."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "resume" and value not in ("auto", "null"):
            try:
                value = str(given_values(as_meant([argument]))[key])
            except UserError:  # said together with the others
                continue
            if is_multirun(arguments):
                return f"{argument}: it resumes one run. Leave out -m"
            if answer := names_in_other_tools().get(f"resume={value.lower()}"):
                return f"{argument}: {answer}"
            if not Path(value).exists() or not (run_of(value) / "config.yaml").exists():
                return f"{argument}: there is no such run directory, or checkpoint in one"
    return None


def use_frozen_conf(arguments: Sequence[str]) -> None:
    """Let a multirun that is continued compose from the conf files that it began with."""
    typed = [argument for argument in arguments if argument.startswith("hydra.sweep.dir=")]
    if not typed or not is_multirun(arguments):
        return
    try:
        folder = Path(str(given_values(as_meant(typed[-1:]))["hydra.sweep.dir"])).expanduser() / "conf"
    except UserError:  # said together with the others
        return
    if conf_files.is_frozen(folder):
        conf_files.use_frozen(folder)


def run_script(main: Callable[[], None]) -> None:
    """Run a script: classes in the current folder are found, and a user's mistake is one message with exit code 2."""
    for name in ("stdout", "stderr"):  # closed, as for a service
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # until the process ends
    logging.raiseExceptions = False  # a run goes on where nobody reads any longer, and says nothing of it
    sys.path.append(os.getcwd())
    try:
        try:
            conf_files.take_config_dir(sys.argv)
            main()
        except UserError as error:
            stop(error)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read has what they wanted, such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def options_first(arguments: Sequence[str]) -> list[str]:
    """The same with Hydra's options before the overrides: it takes none, such as ``-m``, that stands between them."""
    overrides, options = overrides_in(arguments), list(arguments)
    for override in overrides:
        options.remove(override)
    return [*options, *overrides]


def command_line_mistake(arguments: Sequence[str]) -> str | None:
    """What is wrong with a command line that Hydra would take, or would take for something else."""
    several = is_multirun(arguments)
    if several and (shown := {"--cfg", "-c", "--info", "-i"} & {one.partition("=")[0] for one in arguments}):
        return f"-m {min(shown)}: it shows one run's. Leave out -m"
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if name == "sweep" and not several and not argument.startswith("-") and argument != "sweep=null":
            return f"{argument}: it searches in many runs. Type -m before it"
        if name.startswith("hydra.sweeper.") and not several:
            wrong = unknown_key(argument, known_keys(["hydra/sweeper=optuna"])) or f"{argument}:"
            return f"{wrong} it is for many runs. Type -m sweep=mlp before it"
        if name == "experimental-rerun":
            return f"{argument}: it loads a pickle, and a pickle is code. Type resume=<run directory>"
    if mistake := _dashed_mistake(arguments) or missing_run(arguments):
        return mistake
    return together(override_mistakes(arguments)) or None


def _dashed_mistake(arguments: Sequence[str]) -> str | None:
    """What is wrong with an option that is typed as other tools have it: ``--lr 0.1``."""
    for position, argument in enumerate(arguments):
        name, equals, value = argument.lstrip("-").partition("=")
        if not re.fullmatch(r"--?[A-Za-z][\w.-]*", argument.partition("=")[0]) or name in HYDRA_FLAGS:
            continue
        following = arguments[position + 1] if position + 1 < len(arguments) else ""
        if not equals and following and not following.startswith("-") and "=" not in following:
            value = following
        name = name.replace("-", "_")
        said = f"{argument} {value}".strip() if not equals else argument
        if conf_files.is_group(name) and value and (wrong := explain_unknown_choice(name, value)):
            return f"{said}: options take no dashes here. {wrong.removeprefix('there is no such choice. ')}"
        if conf_files.is_group(name) or name in known_keys([]):
            return f"{said}: options take no dashes here. Type {name}={value or '...'}"
        answer = names_in_other_tools().get(name.lower(), names_in_other_tools().get(name.lower().rpartition(".")[2]))
        if answer is None:
            wrong = explain_unknown_key(name, value or "...", known_keys([])).removeprefix("there is no such key. ")
            return f"{said}: options take no dashes here. {wrong}"
        is_key = " " not in answer and "=" not in answer
        meant = f"type {answer}={value or '...'}" if is_key else answer
        return f"{said}: options take no dashes here, {meant}"
    return None


@contextmanager
def leaving_no_trace(arguments: list[str]) -> Iterator[None]:
    """Where ``check=true`` was typed, let Hydra's own files fall into a folder that is gone afterwards."""
    if not any(argument.replace(" ", "").lower() == "check=true" for argument in arguments):
        yield
        return
    with TemporaryDirectory() as folder:
        arguments += [f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}", "hydra.output_subdir=null"]
        arguments += ["hydra.job_logging.root.handlers=[console]", "~hydra.job_logging.handlers.file"]
        yield


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Import without garbage collection, and keep what was imported out of it for good.

    Imports make millions of objects that stay; looking through them again and again takes a quarter of the time
    (benchmarks/start.py).
    """
    if "torch" in sys.modules:  # a later job of this process: what earlier ones left behind must be collected
        yield
        return
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # libraries count what is left over at the end
        if enabled:
            gc.enable()

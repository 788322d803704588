"""What stands around a command line: how a script runs, what Hydra must not be given, a rehearsal without traces."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import yaml

from experiments.composition import missing_run, wrong_choice
from experiments.config import conf_files
from experiments.errors import UserError, stop


def run_script(main: Callable[[], None]) -> None:
    """Run a script: classes in the current folder are found, and a user's mistake is one message with exit code 2."""
    sys.path.append(os.getcwd())
    try:
        conf_files.take_config_dir(sys.argv)
        main()
    except UserError as error:
        stop(error)


def refused(arguments: Sequence[str]) -> str | None:
    """What is wrong with a command line that Hydra would take, or would take for something else."""
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if name == "sweep" and not {"-m", "--multirun"} & set(arguments) and not argument.startswith("-"):
            return f"{argument} searches in many runs: type -m before it"
        if name == "experimental-rerun":
            return "--experimental-rerun loads a pickle, and a pickle is code: use resume=<run directory>"
        if argument.startswith("--") and _is_key(name.partition(".")[0]):
            return f"{argument}: options take no dashes here: {argument.lstrip('-')}" + (
                "" if "=" in argument else "=..."
            )
    return wrong_choice(arguments) or missing_run(arguments) or broken_file(arguments)


def broken_file(arguments: Sequence[str]) -> str | None:
    """What is wrong with a chosen file of ``conf`` that is no YAML: Hydra would give a traceback."""
    chosen = [argument.lstrip("+").partition("=") for argument in arguments if "=" in argument]
    for group, _, name in [("", "", "train"), ("local", "", "default"), *chosen]:
        path = None
        try:
            path = conf_files.find(f"{group}/{name}" if group else name)
            if path is not None:
                yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except (OSError, ValueError, yaml.YAMLError) as error:
            return f"{path} cannot be read as YAML: {error}"
    return None


def _is_key(name: str) -> bool:
    """Whether it is a group, or a key of the whole experiment."""
    experiment = conf_files.find("train")
    keys = yaml.safe_load(experiment.read_text(encoding="utf-8")) if experiment else {}
    return conf_files.is_group(name) or (name in keys and name not in ("defaults", "hydra"))


@contextmanager
def rehearsed(arguments: list[str]) -> Iterator[None]:
    """Where ``check=true`` was typed, let Hydra's own files fall into a folder that is gone afterwards."""
    if not any(argument.replace(" ", "").lower() == "check=true" for argument in arguments):
        yield
        return
    with TemporaryDirectory() as folder:
        arguments += [f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}", "hydra.output_subdir=null"]
        arguments += ["hydra.job_logging.root.handlers=[console]", "~hydra.job_logging.handlers.file"]
        yield

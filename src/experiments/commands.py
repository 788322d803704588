"""What stands around Hydra's command line: what it must not be given, and a rehearsal that leaves nothing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import yaml

from experiments.composition import CONF, missing_run, wrong_choice


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
        path = CONF / group / f"{name}.yaml"
        try:
            if (CONF / group).is_dir() and path.is_relative_to(CONF) and path.is_file():
                yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except (OSError, ValueError, yaml.YAMLError) as error:
            return f"{path} cannot be read as YAML: {error}"
    return None


def _is_key(name: str) -> bool:
    """Whether it is a group, or a key of the whole experiment."""
    keys = yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))
    return (CONF / name).is_dir() or (name in keys and name not in ("defaults", "hydra"))


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

"""Run a script, and refuse what Hydra must not be given, before Hydra starts."""

import atexit
import gc
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from experiments.config import conf_files
from experiments.config.overrides import dashed_mistake, is_multirun, misplaced
from experiments.config.resolvers import run_of
from experiments.config.suggestions import synonyms
from experiments.errors import UserError, stop

_NO_NAME = re.compile(r"(?i)|null|true|false|nan|[-+]?(inf|[\d._]+(e[-+]?\d+)?)")


def missing_run(arguments: Sequence[str]) -> str | None:
    """What is wrong with a ``resume=`` on the command line, said before Hydra writes into a folder of that name."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        value = value.strip("'\"")
        if key == "resume" and value not in ("auto", "null"):
            if is_multirun(arguments):
                return f"{argument}: it goes on with one run. Leave out -m"
            if answer := synonyms().get(f"resume={value.lower()}"):
                return f"{argument}: {answer}"
            if not Path(value).exists() or not (run_of(value) / "config.yaml").exists():
                return f"{argument}: there is no such run directory, or checkpoint in one"
    return None


def wrong_choice(arguments: Sequence[str]) -> str | None:
    """What is wrong with ``<group>=`` and no choice's name, or a list of other things, at which Hydra stumbles."""
    for argument in arguments:
        key, equals, value = argument.lstrip("+~").partition("=")
        group = key.partition("@")[0].strip()
        if equals and not group:
            return f"{argument}: no key stands before the =; type key=value in one piece"
        if group in ("hydra/launcher", "hydra/sweeper") and (argument[0] == "~" or value.replace(" ", "") == "[]"):
            return f"{argument}: a multirun needs one. Leave it out for the default, or choose by {group}=<name>"
        if not equals or not re.fullmatch(r"\w+(/\w+)*", group):
            continue
        choices = conf_files.choices(group)
        if not choices and not group.startswith("hydra/"):
            continue
        if value == "null" and "none" in choices:
            continue
        if _NO_NAME.fullmatch(value.strip()) or ("[" in value and not _lists_names(argument)):
            return f"{argument}: {group} is chosen by a name: {', '.join(choices) or f'{group}=<name>'}"
    return None


def _lists_names(override: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return True  # that it cannot be read is Hydra's to tell
    value = parsed.value()
    if not isinstance(value, list):
        return True
    return not parsed.is_delete() and all(isinstance(item, str) and not _NO_NAME.fullmatch(item) for item in value)


def run_script(main: Callable[[], None]) -> None:
    """Run a script: classes in the current folder are found, and a user's mistake is one message with exit code 2."""
    sys.path.append(os.getcwd())
    try:
        conf_files.take_config_dir(sys.argv)
        main()
    except UserError as error:
        stop(error)


def command_line_mistake(arguments: Sequence[str]) -> str | None:
    """What is wrong with a command line that Hydra would take, or would take for something else."""
    several = is_multirun(arguments)
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if name == "sweep" and not several and not argument.startswith("-") and argument != "sweep=null":
            return f"{argument}: it searches in many runs. Type -m before it"
        if name.startswith("hydra.sweeper.") and not several:
            return f"{argument}: it is for many runs. Type -m sweep=mlp {argument}"
        if name == "experimental-rerun":
            return f"{argument}: it loads a pickle, and a pickle is code. Type resume=<run directory>"
        if wrong := misplaced(argument):
            return wrong
    return dashed_mistake(arguments) or wrong_choice(arguments) or missing_run(arguments) or broken_file(arguments)


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

"""Find all mistakes of a config at once, before anything is imported, built or written; needs no torch.

What needs the classes themselves is in ``classes``, the second pass; ``validated`` makes both.
"""

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from experiments.config import conf_files
from experiments.config.checks.combinations import combinations
from experiments.config.checks.sections import Config, shown
from experiments.config.checks.sources import origin_of
from experiments.config.checks.values import files_and_folders, values
from experiments.config.command_line import without_garbage_collection
from experiments.config.plain_values import job_values, overrides_of
from experiments.errors import UserError, stop, together
from experiments.runs.redaction import holds_secret, in_environment


class Validated(dict[str, Any]):
    """A config in which no mistake was found: whoever is handed one need not look again."""


def validated(config: Config, typed: Sequence[str] = (), files: bool = True) -> Validated:
    """The config, without what another choice has left in it; the one way from a composed config to a run.

    Args:
        config: plain values, resolved: what ``experiments.compose`` returns.
        typed: the command line's overrides, to say which mistakes come from there.
        files: whether to look for the files and folders that it names.

    Raises:
        UserError: with all mistakes that can be seen without building anything.
    """
    if isinstance(config, Validated):
        return config
    require_none(config_mistakes(config, typed, files))
    with without_garbage_collection():
        from experiments.config.checks.classes import class_mistakes
        from experiments.config.checks.leftovers import without_leftovers

        kept = without_leftovers(config, typed)
    require_none(class_mistakes(kept, typed))
    return Validated(kept)


def _secrets(config: Config) -> Iterator[str]:
    known = in_environment()

    def below(value: Any, name: str, target: Any) -> Iterator[str]:
        if isinstance(value, (Mapping, list, tuple)):
            parts = value.items() if isinstance(value, Mapping) else ((str(i), part) for i, part in enumerate(value))
            target = value.get("_target_", target) if isinstance(value, Mapping) else target
            for key, part in parts:
                yield from below(part, f"{name}.{key}" if name else str(key), target)
        elif holds_secret(name, value, known) and (
            holds_secret("", value, known) or not _is_argument(target, name.rpartition(".")[2])
        ):
            yield (
                f"{name}: it holds a secret, and a run writes its config down. Leave it out and put it into the "
                "environment, where the library looks for it (WANDB_API_KEY, MLFLOW_TRACKING_USERNAME and _PASSWORD)"
            )

    yield from below(config, "", None)


def _is_argument(target: Any, key: str) -> bool:
    """Whether a class of a network or a data set names an argument so: a ``cls_token`` is no secret."""
    from experiments.config.checks.signatures import NotFound, accepted_arguments, locate

    try:
        return (
            target is not None
            and not str(target).startswith("lightning.")
            and key in accepted_arguments(locate(target)).parameters
        )
    except NotFound:
        return False


def config_mistakes(config: Config, typed: Sequence[str] = (), files: bool = True) -> list[str]:
    """Everything that is wrong with a composed config as far as one sees without its classes.

    Args:
        config: plain values, resolved: what ``experiments.compose`` returns.
        typed: the command line's overrides, to say which mistakes come from there.
        files: whether to look for the files and folders that it names.
    """
    if secrets := list(_secrets(config)):  # alone: no other message is to repeat one
        return secrets
    found = [*values(config, typed)]
    wrong = {name for name, _, _ in found}
    rest = [*combinations(config), *(files_and_folders(config) if files else ())]
    found += [fault for fault in rest if fault[0] not in wrong]
    return [
        describe_mistake(*fault, typed) for fault in dict(zip([f[0] for f in found], found, strict=True)).values()
    ]


def describe_mistake(name: str, value: Any, fault: str, typed: Sequence[str]) -> str:
    """One mistake in one line: the key, its value, what it must be, and where it stands."""
    where = origin_of(name, value, typed)
    given = f"{name}={shown(value)}" if value != "" and not isinstance(value, Mapping) else name
    return f"{given}: it {fault}" + (f" ({where})" if where else "")


def require_none(faults: Sequence[str]) -> None:
    """Raise UserError with all mistakes, if there are any."""
    if faults:
        raise UserError(together(faults))


class CheckConfig(Callback):
    """Hydra's callback that ends a command with all its mistakes, before Hydra makes a folder or starts a job."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at the one run."""
        with _ending_the_command():
            validated(job_values(config), overrides_of(config.hydra))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at what a grid is made of; other sweepers choose their points later."""
        with _ending_the_command():
            from experiments.config.checks.grid import check_grid

            check_grid(config)


@contextmanager
def _ending_the_command() -> Iterator[None]:
    logging.disable(logging.INFO)  # the run says it, in its own log
    try:
        conf_files.report_replaced()
        yield
    except UserError as error:
        stop(error)
    except Exception:  # Hydra would turn it into a warning
        sys.excepthook(*sys.exc_info())
        raise SystemExit(1) from None
    finally:
        logging.disable(logging.NOTSET)

"""Find all mistakes of a config at once, before anything is imported, built or written; needs no torch.

What needs the classes themselves is in ``classes``, the second pass.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict

from experiments.config import conf_files
from experiments.config.checks.combinations import combinations
from experiments.config.checks.sections import Config, shown
from experiments.config.checks.sources import place
from experiments.config.checks.values import files_and_folders, values
from experiments.config.plain_values import job_values
from experiments.errors import UserError, stop
from experiments.runs.redaction import holds_secret, in_environment


def _secrets(config: Config) -> Iterator[str]:
    known = in_environment()

    def below(value: Any, name: str) -> Iterator[str]:
        if isinstance(value, (Mapping, list, tuple)):
            parts = value.items() if isinstance(value, Mapping) else ((str(i), part) for i, part in enumerate(value))
            for key, part in parts:
                yield from below(part, f"{name}.{key}" if name else str(key))
        elif holds_secret(name, value, known):
            yield (
                f"{name} holds a secret, and a run writes its config down: leave it out and put it into the "
                "environment, where the library looks for it (WANDB_API_KEY, MLFLOW_TRACKING_USERNAME and _PASSWORD)"
            )

    yield from below(config, "")


def config_mistakes(config: Config, typed: Sequence[str] = (), files: bool = True) -> list[str]:
    """Everything that is wrong with a composed config as far as one sees without its classes.

    Args:
        config: plain values, resolved: what ``experiments.compose`` returns.
        typed: the command line's overrides, to say which mistakes come from there.
        files: whether to look for the files and folders that it names.
    """
    if secrets := list(_secrets(config)):  # alone: no other message is to repeat one
        return secrets
    found = [*values(config)]
    wrong = {name for name, _, _ in found}
    rest = [*combinations(config), *(files_and_folders(config) if files else ())]
    found += [fault for fault in rest if fault[0] not in wrong]
    return [
        describe_mistake(*fault, typed) for fault in dict(zip([f[0] for f in found], found, strict=True)).values()
    ]


def describe_mistake(name: str, value: Any, fault: str, typed: Sequence[str]) -> str:
    """One mistake in one line: the key, its value, what it must be, and where it stands."""
    where = place(name, value, typed)
    given = f"{name}={shown(value)}" if value != "" and not isinstance(value, Mapping) else name
    return f"{given} {fault}" + (f" ({where})" if where else "")


def require_none(faults: Sequence[str]) -> None:
    """Raise UserError with all mistakes, if there are any."""
    if len(faults) == 1:
        raise UserError(faults[0])
    if faults:
        raise UserError(f"{len(faults)} mistakes in the config:\n  " + "\n  ".join(faults))


class CheckConfig(Callback):
    """Hydra's callback that ends a command with all its mistakes, before Hydra makes a folder or starts a job.

    Of a grid, every point is looked at before the first starts.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at the one run."""
        self._end_over({"": config})

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at every point of the grid; other sweepers choose theirs later."""
        self._end_over(dict(grid(config)))

    def _end_over(self, configs: Mapping[str, DictConfig]) -> None:
        try:
            conf_files.report_replaced()
            faults: dict[str, str] = {}  # a mistake, and the point of the grid where it is seen first
            for point, config in configs.items():
                typed = list(config.hydra.overrides.task)
                for fault in config_mistakes(job_values(config), typed):
                    faults.setdefault(fault, point)
            require_none([f"{fault} (at {point})" if point else fault for fault, point in faults.items()])
        except UserError as error:
            stop(error)
        except Exception:  # Hydra would turn it into a warning
            sys.excepthook(*sys.exc_info())
            raise SystemExit(1) from None


def grid(config: DictConfig) -> Iterator[tuple[str, DictConfig]]:
    """The configs of a grid's points by what makes each different; none for a sweeper that chooses them later."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from experiments.config.hydra_internals import grid_points

    loader = GlobalHydra.instance().config_loader()
    if not str(config.hydra.sweeper._target_).endswith((".BasicSweeper", ".GridSweeper")):
        return
    typed = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    try:
        overrides = OverridesParser.create(config_loader=loader).parse_overrides(
            [*typed, *config.hydra.overrides.task]
        )
        for number, point in enumerate(grid_points(overrides)):
            composed = loader.load_sweep_config(config, list(point))
            with open_dict(composed):
                composed.hydra.job.id, composed.hydra.job.num = str(number), number
            yield " ".join(point), composed
    except HydraException:  # it says so by itself, when it comes to that point
        return

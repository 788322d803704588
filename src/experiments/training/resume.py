"""Plan how a run is resumed: whose config rules, what may change, and from which checkpoint."""

import inspect
import logging
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning import LightningDataModule

from experiments.callbacks.random_states import EXACT_STATE
from experiments.config import conf_files
from experiments.config.checks.check import config_mistakes, require_none
from experiments.config.checks.sections import value_at
from experiments.data import ImageDataModule
from experiments.errors import UserError
from experiments.learning.lightning_internals import logged_steps
from experiments.runs.allowed_classes import check_allowed, check_paths, without_pretrained_weights
from experiments.runs.checkpoint_files import ROLLING, newest_undamaged, read_checkpoint
from experiments.runs.files import relocate_paths
from experiments.runs.run_directory import read_config, read_summary
from experiments.training.pretrained import fill_input_from_stored, replace_weight_sources

log = logging.getLogger(__name__)


# What does not change what is learned, beside the callbacks of experiments.monitoring. More epochs do not either,
# unless the schedule was planned for fewer.
MAY_CHANGE = (
    "resume",
    "data_root",
    "tags",
    "note",
    "test",
    "trust",
    "cuda_graphs",
    "logger",
    "data.root",
    "callbacks.progress",
    "callbacks.model_summary",
    "callbacks.rolling_checkpoint",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.max_time",
    "trainer.num_nodes",
    "trainer.profiler",
)
# Of these, what the run keeps when it is resumed once more.
KEPT_CHANGES = (
    "tags",
    "note",
    "data_root",
    "data.root",
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.max_time",
)
_PER_COMMAND_KEYS = ("resume", "trust", "run_dir", "init_from", "check")


@dataclass
class ResumePlan:
    """How to go on: the config, the folder the run lay in before, and the checkpoint; None starts over.

    ``finished``: there is nothing to do. ``test_is_new``: a test is asked for that the run was without.
    ``config_to_keep``: the stored config with the changes that later resumes keep; None if there are none.
    """

    config: dict[str, Any]
    moved_from: str
    checkpoint: Path | None
    finished: bool
    test_is_new: bool = False
    config_to_keep: dict[str, Any] | None = None

    @property
    def logged_steps(self) -> int:
        """The step of the loggers' x-axis from which the resumed run logs again."""
        if self.checkpoint is None:
            return 0
        return logged_steps(self._content)

    @cached_property
    def _content(self) -> dict[str, Any]:
        content = read_checkpoint(self.checkpoint) if self.checkpoint else {}
        large = ("state_dict", "optimizer_states", "callbacks")  # the plan lives as long as the run does
        return {key: value for key, value in content.items() if key not in large}

    def require_longer(self) -> None:
        """Raise UserError if the run has reached the length that is asked for already."""
        for key, done, unit in (("max_epochs", "epoch", "epochs"), ("max_steps", "global_step", "steps")):
            asked, taken = self.config["trainer"].get(key), self._content.get(done, 0)
            if isinstance(asked, int) and 0 <= asked <= taken and taken:
                raise UserError(f"trainer.{key}={asked}: the run has taken {taken} {unit} already; name more")

    def require_same_data_and_devices(self, data: LightningDataModule, world_size: int) -> None:
        """Raise UserError if the images are others than before, or the schedule was planned for other steps."""
        if isinstance(data, ImageDataModule) and (state := self._content.get(type(data).__qualname__)):
            data.load_state_dict(state)
        ranks_before = len(self._content.get(EXACT_STATE, {}).get("ranks", [])) or world_size
        if ranks_before != world_size and _schedule_counts_steps(self.config):
            raise UserError(
                f"scheduler={self.config['scheduler']['_target_']} was planned for the steps of {ranks_before} devices, "
                f"and {world_size} take another number: continue with trainer.devices={ranks_before}, or start a new run, "
                "with scheduler=constant if devices are to change"
            )


def plan_resume(config: Mapping[str, Any], overrides: Sequence[str]) -> ResumePlan:
    """Decide how ``resume=`` continues the run in ``config["run_dir"]``.

    The stored config rules; of the composed one, only what was typed is compared with it.

    Raises:
        UserError: if there is no run, its config names what is not trusted, or what was typed would change what is
            learned; the message shows every difference.
    """
    run_dir = Path(config["run_dir"])
    source = str(run_dir / "config.yaml")
    as_written = read_config(run_dir)
    moved_from = str(as_written.get("run_dir", run_dir))
    stored = relocate_paths(as_written, moved_from, str(run_dir))
    check_allowed(stored, source, config["trust"])
    for part in config:
        if part not in stored:  # newer than the run: today's default. A group is never missing
            if isinstance(config[part], Mapping) and config[part]:
                raise UserError(f"{source} is damaged: it names no {part}")
            stored[part] = config[part]
    own_paths = {**without_pretrained_weights(stored), "init_from": None, "resume": None}
    check_paths(own_paths, run_dir, _typed(overrides, config))
    require_none(config_mistakes({key: stored[key] for key in config} | {"check": False}, files=False))

    changes, refused = {}, []
    typed = _typed(overrides, config)
    config = _with_stored_length(fill_input_from_stored(config, stored), stored, typed)
    if "data_root" in typed and value_at(stored, "data.root") == stored.get("data_root"):
        typed.append("data.root")
        config = {**config, "data": {**stored["data"], "root": config["data_root"]}}
    for name in typed:
        now, before = dict(_leaves(value_at(config, name), name)), dict(_leaves(value_at(stored, name), name))
        for leaf in sorted(now.keys() | before.keys()):
            if now.get(leaf) != before.get(leaf):
                changes[leaf] = now.get(leaf)
                if not (_within(leaf, MAY_CHANGE) or _is_monitoring(leaf, config, stored)):
                    refused.append(f"{leaf}: {before.get(leaf)} -> {now.get(leaf)}")
    if refused:
        raise UserError(
            f"the run in {run_dir} continues with its own config, and these overrides differ from it:\n  "
            + "\n  ".join(refused)
            + "\nLeave them out, or start a new run with them (without resume=)."
        )
    another_length = bool(changes.keys() & {"trainer.max_epochs", "trainer.max_steps"})
    if another_length and _schedule_counts_steps(stored):
        epochs, steps = stored["trainer"].get("max_epochs"), stored["trainer"].get("max_steps")
        length = f"{epochs} epochs" if epochs is not None and epochs >= 0 else f"{steps} steps"
        raise UserError(
            f"scheduler={stored['scheduler']['_target_']} was planned for {length}, "
            "so the run cannot get another length. Start a new run, with scheduler=constant if its end is open."
        )
    for name in typed:
        value = value_at(config, name)
        _set(stored, name, value)
        if isinstance(value, Mapping) and any(_within(leaf, (name,)) for leaf in changes):
            log.info("%s from here on: %s", name, ", ".join(key for key, part in value.items() if part) or "none")
        elif name in changes:
            log.info("%s=%s from here on", name, value)
    stored["resume"] = config["resume"]
    finished = (read_summary(run_dir) or {}).get("status") == "finished" and not another_length
    checkpoint = None if finished else _checkpoint(str(config["resume"]), run_dir)
    stored = replace_weight_sources(stored, run_dir, finished or checkpoint is not None)
    lasting = changes.keys() & set(KEPT_CHANGES)
    for leaf in lasting:
        _set(as_written, leaf, changes[leaf])
    planned = ResumePlan(
        stored, moved_from, checkpoint, finished, bool(changes.get("test")), as_written if lasting else None
    )
    if another_length:
        planned.require_longer()
    return planned


def _with_stored_length(config: Mapping[str, Any], stored: Mapping[str, Any], typed: Sequence[str]) -> dict[str, Any]:
    """The config with the run's own length, where none was typed: ``trainer=ddp`` brings another one."""
    trainer = dict(config["trainer"])
    for key in ("max_epochs", "max_steps", "max_time", "min_epochs", "min_steps"):
        if f"trainer.{key}" not in typed and key in stored["trainer"]:
            trainer[key] = stored["trainer"][key]
    return {**config, "trainer": trainer}


def _checkpoint(resume: str, run_dir: Path) -> Path | None:
    if resume.endswith(".ckpt"):
        read_checkpoint(resume)
        if not ROLLING.fullmatch(Path(resume).name):
            log.warning("%s is no rolling checkpoint: the run continues, but not bit for bit", resume)
        return Path(resume)
    found = newest_undamaged(run_dir / "checkpoints")
    if found is None:
        log.warning("no checkpoint to go on from in %s: starting over there", run_dir)
    else:
        log.info("resuming from %s", found)
    return found


def _schedule_counts_steps(config: Mapping[str, Any]) -> bool:
    target = (config["scheduler"] or {}).get("_target_")
    return target is not None and "total_steps" in inspect.signature(pkgutil.resolve_name(target)).parameters


def _typed(overrides: Sequence[str], config: Mapping[str, Any]) -> list[str]:
    """The parts of the config that overrides touch; a recipe (``experiment=``, ``debug=``) may touch every part."""
    names = [override.partition("=")[0].lstrip("+~").partition("@")[0].replace("/", ".") for override in overrides]
    if any(name not in config and conf_files.is_group(name) for name in names):
        return [name for name in config if name not in _PER_COMMAND_KEYS]
    return [name for name in names if name.partition(".")[0] in config and name not in _PER_COMMAND_KEYS]


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from _leaves(part, f"{name}.{key}")
    else:
        yield name, value


def _within(name: str, allowed: Sequence[str]) -> bool:
    return any(name == known or name.startswith(f"{known}.") for known in allowed)


def _is_monitoring(leaf: str, *configs: Mapping[str, Any]) -> bool:
    """Whether a key belongs to a callback that shows a run and changes nothing in it."""
    callback = ".".join(leaf.split(".")[:2])
    targets = [target for config in configs if (target := value_at(config, f"{callback}._target_"))]
    return bool(targets) and all(str(target).startswith("experiments.monitoring.") for target in targets)


def _set(config: dict[str, Any], name: str, value: Any) -> None:
    *path, last = name.split(".")
    for key in path:
        below = config.get(key)
        config[key] = below if isinstance(below, dict) else {}
        config = config[key]
    config[last] = value

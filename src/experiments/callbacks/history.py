"""Keep what was logged at the end of epochs, for the summary and the report."""

from typing import Any, TypeVar

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

Kind = TypeVar("Kind", bound=Callback)


def find_callback(trainer: Trainer, kind: type[Kind]) -> Kind | None:
    """The run's callback of a kind, if it has one."""
    return next((each for each in trainer.callbacks if isinstance(each, kind)), None)  # type: ignore[attr-defined]


class MetricHistory(Callback):
    """``points``: for each ``train/*`` and ``val/*`` of an epoch, pairs of optimizer steps taken and value.

    It travels in checkpoints, so a resumed run's is whole.
    """

    def __init__(self) -> None:
        self.points: dict[str, list[list[float]]] = {}
        self._fitting = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note what the checkpoint that is loaded next is for."""
        self._fitting = stage == "fit"

    def state_dict(self) -> dict[str, Any]:
        return {"points": {name: [list(point) for point in points] for name, points in self.points.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with them; Lightning loads callbacks also from the best checkpoint, to test it."""
        if self._fitting:
            self.points = state_dict["points"]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note ``val/*``."""
        if not trainer.sanity_checking:
            self._note(trainer, "val/")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note ``train/*`` of the epoch before: only now are all its values logged."""
        self._note(trainer, "train/")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the last epoch's."""
        self._note(trainer, "train/")

    def _note(self, trainer: Trainer, prefix: str) -> None:
        for name, value in trainer.callback_metrics.items():
            if name.startswith(prefix) and not name.endswith("_step"):
                points = self.points.setdefault(name, [])
                if not points or points[-1][0] < trainer.global_step:
                    points.append([trainer.global_step, float(value)])

    def best(self, checkpoint: ModelCheckpoint | None) -> dict[str, float]:
        """``val/*`` at the validation whose network the checkpoint callback keeps; without one, at the last."""
        measured = {name: points for name, points in self.points.items() if name.startswith("val/")}
        step = max((points[-1][0] for points in measured.values()), default=0.0)
        if checkpoint and (monitored := measured.get(checkpoint.monitor or "")):
            sign = 1 if checkpoint.mode == "min" else -1
            # of equal ones the first, as ModelCheckpoint keeps it
            step = min(((sign * value, at) for at, value in monitored if value == value), default=(0.0, step))[1]
        return {name: value for name, points in measured.items() for at, value in points if at == step}

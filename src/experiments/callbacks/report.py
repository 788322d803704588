"""One page about a run."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from experiments import report
from experiments.callbacks.confusion import Confusion
from experiments.callbacks.history import History
from experiments.callbacks.mistakes import Mistakes
from experiments.checkpoints import write_atomically

log = logging.getLogger(__name__)
Kind = TypeVar("Kind", bound=Callback)


def find(trainer: Trainer, kind: type[Kind]) -> Kind | None:
    """The run's callback of a kind, if it has one."""
    return next((each for each in trainer.callbacks if isinstance(each, kind)), None)  # type: ignore[attr-defined]


class Report(Callback):
    """Leaves a page at ``path`` when the run is over: one file that needs neither a server nor a network.

    It shows what the callbacks ``Confusion`` and ``Mistakes`` found, where the run has them: of the test split, or
    where that was left alone, of the last validation.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def write(self, trainer: Trainer, config: Mapping[str, Any], summary: Mapping[str, Any], net: Any) -> None:
        """Write it. A run does not fail for want of a page: what goes wrong here is said and passed over."""
        try:
            history, confusion, mistakes = find(trainer, History), find(trainer, Confusion), find(trainer, Mistakes)
            matrices, found = confusion.matrices if confusion else {}, mistakes.found if mistakes else {}
            stage = "test" if "test" in {*matrices, *found} else "val"
            page = report.render(
                config=config,
                summary=summary,
                folder=self.path.parent,
                network=str(net),
                points=history.points if history else {},
                stage=stage,
                class_names=confusion.class_names if confusion else [],
                matrix=matrices[stage].numpy() if stage in matrices else None,
                mistakes=found.get(stage),
            )
            write_atomically(self.path, page.encode("utf-8", "replace"))
        except Exception as error:
            log.warning("no report was written: %s: %s", type(error).__name__, error)

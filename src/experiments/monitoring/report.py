"""One page about a run."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from experiments.callbacks.history import MetricHistory, find_callback
from experiments.monitoring.confusion import Confusion
from experiments.monitoring.report_page import render
from experiments.monitoring.worst_predictions import WorstPredictions
from experiments.runs.files import write_atomically

log = logging.getLogger(__name__)


class Report(Callback):
    """Leaves a page at ``path`` when the run is over: one file that needs neither a server nor a network.

    It shows what the callbacks ``Confusion`` and ``WorstPredictions`` found, where the run has them: of the test
    split, or where that was left alone, of the last validation.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def write(self, trainer: Trainer, config: Mapping[str, Any], summary: Mapping[str, Any], net: Any) -> None:
        """Write it. A run does not fail for want of a page: what goes wrong here is said and passed over."""
        try:
            history, confusion = find_callback(trainer, MetricHistory), find_callback(trainer, Confusion)
            mistakes = find_callback(trainer, WorstPredictions)
            matrices, found = confusion.matrices if confusion else {}, mistakes.found if mistakes else {}
            stage = "test" if "test" in {*matrices, *found} else "val"
            page = render(
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

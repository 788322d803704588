"""Record what is logged in the run directory, and give back to loggers what a kill took from them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities import rank_zero_only

from experiments.monitoring.loggers.trackers import MLFlowLogger, Row, WandbLogger
from experiments.runs.files import write_atomically


class MetricsRecord(Logger):
    """``metrics.jsonl``: a line for every row that loggers are given, written at once.

    Loggers keep rows in memory for a while, and lose them where a process is killed; this file does not.
    """

    def __init__(self, run_dir: str | Path) -> None:
        super().__init__()
        self.path = Path(run_dir) / "metrics.jsonl"

    @property
    def name(self) -> str:
        """Nothing: the file lies in the run directory itself."""
        return ""

    @property
    def version(self) -> str:
        """Nothing, likewise."""
        return ""

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Leave them to config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row."""
        values = {name: float(value) for name, value in metrics.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "metrics": values}) + "\n")

    def truncate(self, end: int) -> list[Row]:
        """Return the rows of steps below ``end``, and remove the others: they will be logged again."""
        rows: list[Row] = []
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        for line in lines:
            try:
                row = json.loads(line)
                if row["step"] is not None and row["step"] < end:
                    rows.append((dict(row["metrics"]), row["step"]))
            except (ValueError, TypeError, KeyError):  # half a line, where the process was killed, or a user's own
                continue
        text = "".join(json.dumps({"step": step, "metrics": metrics}) + "\n" for metrics, step in rows)
        write_atomically(self.path, text.encode())
        return rows


def replay(loggers: Iterable[Logger], end: int) -> None:
    """Let every logger that a resumed run starts anew show the steps below ``end`` too, from the run's record."""
    loggers = list(loggers)
    rows = [row for logger in loggers if isinstance(logger, MetricsRecord) for row in logger.truncate(end)]
    for logger in loggers:
        if isinstance(logger, (MLFlowLogger, WandbLogger)):
            logger.replay(rows)
        elif isinstance(logger, CSVLogger):
            for name in ("metrics.csv", "hparams.yaml"):  # Lightning would warn that it deletes them
                Path(logger.log_dir, name).unlink(missing_ok=True)
            for metrics, step in rows:
                logger.log_metrics(dict(metrics), step)
            if rows:
                logger.save()

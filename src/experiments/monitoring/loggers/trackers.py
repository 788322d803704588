"""Lightning's loggers, made to show one run for each run directory, however often it is resumed."""

import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import MLFlowLogger as LightningsMLFlowLogger
from lightning.pytorch.loggers import TensorBoardLogger as LightningsTensorBoardLogger
from lightning.pytorch.loggers import WandbLogger as LightningsWandbLogger
from lightning.pytorch.utilities import rank_zero_only

from experiments.learning.lightning_internals import open_writer, set_mlflow_run
from experiments.runs.run_directory import read_id

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

Row = tuple[Mapping[str, float], int]  # values by name, and their optimizer step
RUN_TAG = "experiments.run"
MAX_POINTS = 1000  # that MLflow takes at once
SQLITE = "sqlite:///"


class TensorBoardLogger(LightningsTensorBoardLogger):
    """Lightning's, with one event file a process: Lightning closes it after the fit, and again after the test."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Leave nothing in memory."""
        if open_writer(self) is not None:
            self.save()

    @rank_zero_only
    def close(self) -> None:
        """The run is over."""
        if (writer := open_writer(self)) is not None:
            writer.close()


class WandbLogger(LightningsWandbLogger):
    """Lightning's, with the id of the run directory as W&B's id."""

    def __init__(self, save_dir: str, offline: bool = False, **options: Any) -> None:
        options.setdefault("id", read_id(Path(save_dir)))
        super().__init__(save_dir=save_dir, offline=offline, **options)
        self.offline = offline

    @rank_zero_only
    def replay(self, rows: Sequence[Row]) -> None:
        """Offline, begin a new folder that holds the whole run, and rename the ones before, which are incomplete.

        Online there is nothing to do: the server goes on with the run of this id.
        """
        if not self.offline:
            return
        for folder in Path(self.save_dir or ".", "wandb").glob(f"offline-run-*-{self.version}"):
            folder.rename(folder.with_name(folder.name.replace("offline-run-", "superseded-", 1)))
        for metrics, step in rows:
            self.log_metrics(metrics, step)


class MLFlowLogger(LightningsMLFlowLogger):
    """Lightning's, with an MLflow run that is found again by the id of the run directory ``save_dir``.

    MLflow cannot delete a point, so a point that it has is not logged again. Artifacts lie beside a store in a file.
    """

    def __init__(
        self,
        save_dir: str,
        tracking_uri: str,
        experiment_name: str,
        tags: Sequence[str] = (),
        note: str | None = None,
        **options: Any,
    ) -> None:
        self._file = Path(tracking_uri.removeprefix(SQLITE)).absolute() if tracking_uri.startswith(SQLITE) else None
        if self._file is not None:  # absolute: MLflow keeps what it opened by this name
            tracking_uri = f"{SQLITE}{self._file}"
            options.setdefault("artifact_location", str(self._file.parent / "mlflow"))
        self.tracking_uri, self.experiment_name = tracking_uri, experiment_name
        self._id = read_id(Path(save_dir))
        self._logged: set[tuple[str, int]] = set()
        self._ready = False
        told = {"tags": ", ".join(tags), "mlflow.note.content": note, RUN_TAG: self._id}
        known = {name: value for name, value in told.items() if value}
        with self._store_lock():
            super().__init__(experiment_name, tracking_uri=tracking_uri, tags=known, **options)

    def _store_lock(self) -> AbstractContextManager[object]:
        """The lock with which runs that start together create a store and its experiments one after the other."""
        if self._file is None:
            return nullcontext()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(f"{self._file}.lock")

    @property
    @rank_zero_experiment
    def experiment(self) -> "MlflowClient":
        """MLflow's client, for a run that exists."""
        if self._ready:
            return super().experiment
        self._ready = True
        with self._store_lock():
            self._find_run()
            return super().experiment

    def _find_run(self) -> None:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(self.tracking_uri)
        named = client.get_experiment_by_name(self.experiment_name)
        if named is None or self._id is None:
            return
        for run in client.search_runs([named.experiment_id], f"tags.`{RUN_TAG}` = '{self._id}'"):
            set_mlflow_run(self, run.info.run_id)
            for name in run.data.metrics:
                self._logged |= {(name, point.step) for point in client.get_metric_history(run.info.run_id, name)}

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Log those that the MLflow run has not: it refuses other values, such as more epochs."""
        known = self.experiment.get_run(self.run_id).data.params
        super().log_hyperparams({name: value for name, value in dict(params).items() if name not in known})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the points that the MLflow run has not."""
        self.experiment  # noqa: B018  # finds the run, and the points that it has
        new = {name: value for name, value in metrics.items() if (name, step or 0) not in self._logged}
        if new:
            super().log_metrics(new, step)

    @rank_zero_only
    def replay(self, rows: Sequence[Row]) -> None:
        """Log the points that the MLflow run has not, many at once."""
        from mlflow.entities import Metric

        client, now = self.experiment, int(time.time() * 1000)
        points = [
            Metric(name, value, now, step)
            for metrics, step in rows
            for name, value in metrics.items()
            if (name, step) not in self._logged
        ]
        for start in range(0, len(points), MAX_POINTS):
            client.log_batch(self.run_id, points[start : start + MAX_POINTS])

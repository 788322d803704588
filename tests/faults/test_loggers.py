"""Runs are killed and resumed; each logger shows one run, with the points of an uninterrupted one."""

import csv
import importlib.util
import json
import os
import random
import shutil
import signal
import time
from collections import defaultdict
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.fork_server import wait_until
from tests.monitoring.test_loggers import records

KILLS = int(os.environ.get("EXPERIMENTS_KILLS", "2"))  # 20 for a thorough look
PICTURES = ("mistakes/", "confusion_", "augmented")  # which are not replayed
TIMES = ("throughput/", "epoch_seconds", "hp/train_seconds")


def csv_points(run: Path) -> dict[tuple[str, int], list[float]]:
    """What the file says: for each name and step the values, of which there must be one."""
    found = defaultdict(list)
    with (run / "csv" / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            step = int(row.pop("step"))
            for name, value in row.items():
                if value and name != "epoch":
                    found[name, step].append(float(value))
    return found


def tensorboard_points(run: Path) -> dict[tuple[str, int], list[float]]:
    found = defaultdict(list)
    for tag in (events := EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()).Tags()["scalars"]:
        for point in events.Scalars(tag):
            if tag != "epoch":
                found[tag, point.step].append(point.value)
    return found


def wandb_points(run: Path) -> dict[tuple[str, int], list[float]]:
    """The history of the one offline run that a sync would send."""
    from wandb.proto import wandb_internal_pb2

    (file,) = run.glob("wandb/offline-run-*/run-*.wandb")
    found = defaultdict(list)
    for content in records(file.read_bytes()):
        row = {}
        for item in wandb_internal_pb2.Record.FromString(content).history.item:
            row[item.key or "/".join(item.nested_key)] = item.value_json
        for name, value in row.items():
            number = json.loads(value)
            own = name not in ("epoch", "trainer/global_step") and not name.startswith(("_", *PICTURES))
            if own and isinstance(number, (int, float)):
                found[name, int(row["trainer/global_step"])].append(number)
    return found


def mlflow_points(run: Path) -> dict[tuple[str, int], list[float]]:
    """The points of the one MLflow run in the store beside the run."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{run.parent / 'mlflow.db'}")
    (ours,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    found = defaultdict(list)
    for name in ours.data.metrics:
        for point in client.get_metric_history(ours.info.run_id, name):
            if name != "epoch":
                found[name, point.step].append(point.value)
    return found


def logged(run: Path) -> str:
    record = run / "metrics.jsonl"
    return record.read_text() if record.exists() else ""


LOGGERS = {
    "csv": csv_points,
    "tensorboard": tensorboard_points,
    "wandb": wandb_points,
    "mlflow": mlflow_points,
}


def overrides(logger: str, run: Path) -> list[str]:
    own = {
        "wandb": ["logger.wandb.offline=true"],
        "mlflow": [f"logger.mlflow.tracking_uri=sqlite:///{run.parent / 'mlflow.db'}"],
    }
    length = f"trainer.max_epochs={max(6, KILLS)}"
    return [
        f"logger={logger}",
        length,
        "trainer.log_every_n_steps=1",
        "callbacks.confusion=null",
        *own.get(logger, []),
    ]


@pytest.fixture(scope="module")
def truths(fork_server, tmp_path_factory):
    """The points of the uninterrupted run, made when first asked for."""
    done = {}

    def truth(logger):
        if logger not in done:
            run = tmp_path_factory.mktemp(logger) / "run"
            fork_server.finish(run, *overrides(logger, run))
            done[logger] = LOGGERS[logger](run)
        return done[logger]

    return truth


@pytest.mark.slow
@pytest.mark.parametrize("logger", LOGGERS)
def test_a_killed_run_goes_on_there_and_elsewhere_as_one_run_with_every_point_once(
    fork_server, truths, tmp_path, logger
):
    if logger in ("wandb", "mlflow") and not importlib.util.find_spec(logger):
        pytest.skip(f"{logger} is not installed")
    truth, run, chance = truths(logger), tmp_path / "first" / "run", random.Random(logger)
    run.parent.mkdir()
    for _ in range(KILLS):
        before = logged(run)
        pid = fork_server.start(run, *overrides(logger, run))
        wait_until(lambda before=before: logged(run) != before or (run / "summary.json").exists())
        time.sleep(chance.uniform(0, 0.5))  # in the middle of training
        os.kill(pid, signal.SIGKILL)
        fork_server.wait(pid)
        if (run / "summary.json").exists():
            break
    moved = tmp_path / "second" / "run"
    shutil.copytree(run, moved)
    for place in (run, moved):
        fork_server.finish(place, *overrides(logger, place))
        points = LOGGERS[logger](place)
        assert points.keys() == truth.keys()
        for (name, step), values in points.items():
            assert len(values) == 1, (name, step, values)
            if not name.startswith(TIMES):
                assert values == pytest.approx(truth[name, step], rel=1e-6), (name, step)

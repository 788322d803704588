"""What loggers are told, read back by their own libraries where these are installed."""

import csv
import importlib.util
import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import nn

import experiments
from experiments.errors import UserError
from experiments.monitoring.loggers.log import RESULTS, hyperparameters
from experiments.training.run import train

SHORT = ("trainer.max_epochs=2", "trainer.limit_train_batches=5", "trainer.accelerator=cpu",
         "callbacks.progress=null", "trainer.log_every_n_steps=1")  # fmt: skip


class DivergesLater(nn.Linear):
    """Its loss becomes infinite in the second epoch."""

    def __init__(self, in_features: int, num_classes: int):
        super().__init__(in_features, num_classes)
        self.calls = 0

    def forward(self, images):
        self.calls += self.training
        return super().forward(images.flatten(1)) * (float("nan") if self.calls > 7 else 1)


DIVERGING = ("model=custom", f"model.net._target_={__name__}.DivergesLater")


def run(folder, *overrides):
    return train(experiments.compose(*SHORT, f"run_dir={folder}", *overrides))


def told(folder):
    """Scalars and the parts of the HPARAMS tab, from the run's one event file."""
    (file,) = folder.glob("events.out.tfevents.*")
    events = EventAccumulator(str(file)).Reload()
    scalars = {tag: [point.value for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    parts = [HParamsPluginData.FromString(content) for content in events.PluginTagToContent("hparams").values()]
    return scalars, {part.WhichOneof("data"): part for part in parts}


def test_hyperparameters_are_flat_and_readable():
    flat = hyperparameters(experiments.compose("augment=[affine,mixup]"))
    assert flat["net"] == "MLP"
    assert flat["net.hidden_features"] == "[512, 512]"
    assert flat["optimizer"] == "Adam"
    assert flat["data.augment"] == "affine, mixup"
    assert all(isinstance(value, (str, int, float)) for value in flat.values())
    assert not [name for name in flat if "root" in name]


def test_a_finished_run_has_one_event_file_and_its_summary_in_every_cell(tmp_path):
    summary = run(tmp_path)
    scalars, parts = told(tmp_path)
    for name in RESULTS:
        assert scalars[f"hp/{name}"] == pytest.approx([summary[name]]), name
    assert scalars["val/loss"][scalars["val/accuracy"].index(max(scalars["val/accuracy"]))] == pytest.approx(
        summary["val/loss"]
    )
    named = {metric.name.tag for metric in parts["experiment"].experiment.metric_infos}
    assert named == {f"hp/{name}" for name in RESULTS}
    assert parts["session_end_info"].session_end_info.status == STATUS_SUCCESS


def test_what_is_not_tested_has_no_column_for_it(tmp_path):
    run(tmp_path, "test=false")
    scalars, parts = told(tmp_path)
    named = {metric.name.tag for metric in parts["experiment"].experiment.metric_infos}
    assert named == {tag for tag in scalars if tag.startswith("hp/")}
    assert not [name for name in named if "test" in name]


def test_a_run_that_fails_midway_keeps_what_it_reached_everywhere(tmp_path):
    with pytest.raises(UserError, match="loss became nan"):
        run(tmp_path, *DIVERGING, "logger=[tensorboard,csv]")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "loss became nan" in summary["error"]
    assert summary["steps"] >= 5
    assert 0 < summary["val/accuracy"] < 1
    assert "test/accuracy" not in summary
    scalars, parts = told(tmp_path)
    assert parts["session_end_info"].session_end_info.status == STATUS_FAILURE
    for name in ("val/accuracy", "val/loss", "parameters", "train_seconds"):
        assert scalars[f"hp/{name}"] == pytest.approx([summary[name]]), name
    page = (tmp_path / "report.html").read_text()
    assert "loss became nan" in page
    assert "<polyline" in page
    rows = list(csv.DictReader((tmp_path / "csv" / "metrics.csv").open()))
    assert float(rows[-1]["hp/val/accuracy"]) == pytest.approx(summary["val/accuracy"])


def test_a_run_that_fails_before_it_starts_says_only_why(tmp_path):
    with pytest.raises(UserError, match="leaves 5 images"):
        run(tmp_path, "data.limit=5")
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "failed"


def test_config_and_network_are_text_that_no_value_breaks_out_of(tmp_path):
    run(tmp_path, "name='```<b>'", "trainer.max_epochs=1")
    (file,) = tmp_path.glob("events.out.tfevents.*")
    events = EventAccumulator(str(file)).Reload()
    for tag, word in (("config", "```<b>"), ("network", "linear_relu_stack")):
        (event,) = events.Tensors(f"{tag}/text_summary")
        text = event.tensor_proto.string_val[0].decode()
        assert word in text
        assert all(line.startswith("    ") for line in text.splitlines())


def records(content: bytes):
    """What a .wandb file holds: LevelDB's log format behind seven bytes, blocks of 32 KiB."""
    place, whole = 7, b""
    while place + 7 <= len(content):
        rest = 32768 - place % 32768
        if rest < 7:
            place += rest
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


@pytest.mark.skipif(not importlib.util.find_spec("wandb"), reason="wandb is not installed")
def test_wandb_offline_gets_curves_pictures_and_results_of_each_run_of_a_process(tmp_path, monkeypatch):
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_SILENT", "true")
    seen = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        summary = run(folder, "logger=[wandb,csv]", "logger.wandb.offline=true", f"seed={seed}")
        (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
        seen.append(file.name)
        metrics, settings, exits = {}, {}, 0
        for content in records(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(content)
            for item in record.history.item:
                metrics[item.key or "/".join(item.nested_key)] = item.value_json
            for item in [*record.run.config.update, *record.config.update]:
                settings[item.key or "/".join(item.nested_key)] = item.value_json
            exits += record.HasField("exit")
        assert float(metrics["hp/test/accuracy"]) == pytest.approx(summary["test/accuracy"], rel=1e-5)
        assert {"val/accuracy", "train/loss", "learning_rate", "gradient_norm"} <= metrics.keys()
        assert [name for name in metrics if name.startswith("mistakes/test")]
        assert json.loads(settings["seed"]) == seed
        assert exits == 1
        assert list(folder.glob("wandb/*/files/media/images/confusion_test/rates*.png"))
        assert (folder / "csv" / "metrics.csv").is_file()
    assert len(set(seen)) == 2


@pytest.mark.skipif(not importlib.util.find_spec("mlflow"), reason="mlflow is not installed")
@pytest.mark.parametrize("fails", [False, True])
def test_mlflow_in_a_file_gets_curves_pictures_results_and_how_it_ended(tmp_path, monkeypatch, fails):
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    if fails:
        with pytest.raises(UserError, match="nan"):
            run(folder, *DIVERGING, "logger=[mlflow]")
    else:
        run(folder, "logger=mlflow", "tags=[baseline,wide]", "note=two words")
    summary = json.loads((folder / "summary.json").read_text())
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name != "Default"]
    (stored,) = client.search_runs([experiment.experiment_id])
    assert stored.info.status == ("FAILED" if fails else "FINISHED")
    for name in RESULTS:
        if summary.get(name) is not None:
            assert stored.data.metrics[f"hp/{name}"] == pytest.approx(summary[name]), name
    assert stored.data.params["seed"] == "0"
    assert client.get_metric_history(stored.info.run_id, "val/accuracy")
    if not fails:
        assert (stored.data.tags["tags"], stored.data.tags["mlflow.note.content"]) == ("baseline, wide", "two words")
        assert {each.path for each in client.list_artifacts(stored.info.run_id, "confusion_test")} == {
            "confusion_test/counts.png", "confusion_test/rates.png",
        }  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"run", "runs"}
    assert {path.name for path in (tmp_path / "runs").iterdir()} <= {"mlflow.db", "mlflow.db.lock", "mlflow"}


@pytest.mark.skipif(not importlib.util.find_spec("mlflow"), reason="mlflow is not installed")
def test_runs_of_one_store_stay_apart_go_on_and_a_check_makes_none(tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    longer = ("scheduler=constant", "logger=mlflow", "name=mine", "trainer.limit_train_batches=5")
    quick = ("trainer.accelerator=cpu", "callbacks.progress=null", "test=false")
    train(experiments.compose(*longer, *quick, "check=true", f"run_dir={tmp_path / 'none'}"))
    assert not list(tmp_path.iterdir())
    for name in "ab":
        typed = [*longer, *quick, "trainer.max_epochs=2"]
        train(experiments.compose(*typed, f"run_dir={tmp_path / name}"), typed)
    typed = [f"resume={tmp_path / 'a'}", "trainer.max_epochs=3"]
    train(experiments.compose(*typed, f"run_dir={tmp_path / 'a'}", *quick[:1]), typed)
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "mine"]
    runs = client.search_runs([experiment.experiment_id])
    points = [client.get_metric_history(each.info.run_id, "val/accuracy") for each in runs]
    assert sorted(len(each) for each in points) == [2, 3]


def test_an_interrupted_run_is_not_called_over(tmp_path):
    from experiments.errors import Stopped

    stop = "+callbacks.stop._target_=tests.monitoring.test_loggers.stops_at_step"
    with pytest.raises(Stopped):
        run(tmp_path, stop)
    assert not (tmp_path / "report.html").exists()
    scalars, parts = told(tmp_path)
    assert "session_end_info" not in parts
    assert not [tag for tag in scalars if tag.startswith("hp/")]


def stops_at_step():
    from lightning import Callback

    from experiments.errors import Stopped

    class Stop(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 7:
                raise Stopped(15)

    return Stop()


def test_pictures_are_not_drawn_for_loggers_that_take_none(tmp_path, monkeypatch):
    from experiments.monitoring import drawing

    def fail(*_, **__):
        raise AssertionError("drawn for nobody")

    monkeypatch.setattr(drawing, "confusion_matrix", fail)
    monkeypatch.setattr(drawing, "mistakes", fail)
    summary = run(tmp_path, "logger=csv")
    assert summary["status"] == "finished"
    assert torch.is_grad_enabled()

import json

import pytest
import torch
from lightning import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

import experiments
from experiments.training.build import build
from experiments.training.run import fit_and_test


class Witness(Callback):
    """What the optimizer saw at every step, written down by hand."""

    def __init__(self):
        self.rates, self.norms = [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        gradients = torch.cat([parameter.grad.flatten() for parameter in pl_module.parameters()])
        self.norms.append(gradients.double().norm().item())
        self.rates.append(optimizer.param_groups[0]["lr"])


def run(folder, *overrides):
    config = experiments.compose(
        "trainer.max_epochs=2", "trainer.limit_train_batches=10", "trainer.log_every_n_steps=3", "test=false",
        "model.net.hidden_features=[16]", "trainer.accelerator=cpu", f"run_dir={folder}", *overrides,
    )  # fmt: skip
    experiment, witness = build(config), Witness()
    experiment.trainer.callbacks.append(witness)
    summary = fit_and_test(experiment, config)
    return EventAccumulator(str(folder), {"scalars": 0, "histograms": 0}).Reload(), witness, summary


@pytest.fixture(scope="module")
def showing(tmp_path_factory):
    return run(
        tmp_path_factory.mktemp("run"), "callbacks=[default,histograms]", "callbacks.histograms.every_n_steps=10"
    )


def points(events, tag):
    return [(point.step, point.value) for point in events.Scalars(tag)]


def test_learning_rate_and_gradient_norm_are_those_of_their_optimizer_step(showing):
    events, witness, _ = showing
    steps = [2, 5, 8, 11, 14, 17]  # every third of 20, counted from 0
    for tag, truth in (("learning_rate", witness.rates), ("gradient_norm", witness.norms)):
        found = points(events, tag)
        assert [step for step, _ in found] == steps
        assert [value for _, value in found] == pytest.approx([truth[step] for step in steps], rel=1e-4)
    assert [step for step, _ in points(events, "train/loss_step")] == steps


@pytest.mark.parametrize("tag", ["train/loss", "train/accuracy", "val/loss", "val/accuracy", "epoch_seconds"])
def test_what_is_logged_once_an_epoch_stands_at_its_last_optimizer_step(showing, tag):
    assert [step for step, _ in points(showing[0], tag)] == [9, 19]


def test_accumulated_batches_count_as_one_step(tmp_path):
    events, witness, summary = run(tmp_path, "trainer.accumulate_grad_batches=5", "trainer.log_every_n_steps=1")
    assert summary["steps"] == len(witness.norms) == 4
    assert dict(points(events, "gradient_norm")) == pytest.approx(dict(enumerate(witness.norms)), rel=1e-4)
    assert [step for step, _ in points(events, "val/accuracy")] == [1, 3]


def test_every_group_of_an_optimizer_has_its_learning_rate(tmp_path):
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    events, _, _ = run(tmp_path, "optimizer=muon", "trainer.max_epochs=1")
    groups = [tag for tag in events.Tags()["scalars"] if tag.startswith("learning_rate")]
    assert groups == ["learning_rate/0", "learning_rate/1"]


def test_train_and_validation_share_a_chart_with_every_further_metric(tmp_path):
    events, _, _ = run(tmp_path, "metrics=[f1]", "trainer.max_epochs=1")
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    first, second = layout.category
    assert [chart.title for chart in first.chart] == ["accuracy", "loss", "f1"]
    assert list(first.chart[0].multiline.tag) == ["(train|val)/accuracy$"]
    shown = [tag for chart in second.chart for tag in chart.multiline.tag]
    assert "throughput/images_per_second$" in shown


def test_histograms_count_every_weight_and_gradient_when_due(showing):
    events, _, summary = showing
    tags = events.Tags()["histograms"]
    names = [f"linear_relu_stack.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")]
    assert set(tags) == {f"{kind}/{name}" for kind in ("weights", "gradients") for name in names}
    total = 0
    for name in names:
        first, second = events.Histograms(f"weights/{name}")
        assert (first.step, second.step) == (0, 10)
        total += first.histogram_value.num
    assert total == summary["parameters"]


def test_nothing_fails_without_a_logger_or_with_another(tmp_path):
    _, _, summary = run(tmp_path / "none", "callbacks=[default,histograms]", "logger=none")
    assert summary["steps"] == 20
    assert (tmp_path / "none" / "report.html").is_file()
    assert not list((tmp_path / "none").glob("events*"))
    run(tmp_path / "csv", "callbacks=[default,histograms]", "logger=csv")
    header = (tmp_path / "csv" / "csv" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"learning_rate", "gradient_norm", "epoch_seconds", "hp/val/accuracy", "train/loss"} <= set(header)


SHOWN = {  # what each leaves in the event file
    "learning_rate": "learning_rate", "layout": "custom_scalars", "gradient_norm": "gradient_norm",
    "graph": '"graph": true', "epoch_seconds": "epoch_seconds", "confusion": "confusion", "pr_curves": "pr_val",
    "mistakes": "mistakes", "report": None,
}  # fmt: skip


@pytest.mark.parametrize("off", [list(SHOWN)[::2], list(SHOWN)[1::2]], ids=" ".join)
def test_each_is_off_by_one_override(tmp_path, off):
    events, _, _ = run(tmp_path, *(f"callbacks.{name}=null" for name in off), "trainer.max_epochs=1")
    found = json.dumps({kind: names for kind, names in events.Tags().items() if kind != "run_metadata"})
    for name, trace in SHOWN.items():
        there = trace in found if trace else (tmp_path / "report.html").exists()
        assert there == (name not in off), name

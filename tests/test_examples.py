"""The examples of tasks beside classification: each learns, resumes, predicts and is summarized as any run does."""

import csv
import json

import lightning
import numpy as np
import pytest
import torch
import torchmetrics
from lightning import Callback
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional as F

import experiments
from experiments.config.compose import compose
from experiments.data import Digits
from experiments.errors import Stopped, UserError
from experiments.inference.evaluate import evaluate
from experiments.inference.load import load_ensemble
from experiments.learning import Task
from experiments.sweeps.summary.summarize import summarize
from experiments.training.find_lr import find_lr
from experiments.training.run import train
from tests.conftest import ROOT

NAMES = ("regression", "multi_label", "segmentation")
QUICK = ("trainer.accelerator=cpu", "trainer.max_epochs=2", "data.limit=320")
MINIMAL = ("callbacks=minimal", "logger=none")
NARROW = {
    "regression": ["model.net.channels=[8,16]"],
    "multi_label": ["model.net.channels=[8,16]"],
    "segmentation": ["model.net.width=8", "model.net.depth=2"],
}
METRIC = {"regression": "mae", "multi_label": "f1", "segmentation": "iou"}


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    """As somebody types it who stands in the project's root."""
    monkeypatch.syspath_prepend(ROOT)


def config_of(name, folder, *overrides, monkeypatch):
    monkeypatch.setenv("EXPERIMENTS_CONF", str(ROOT / "examples" / name / "conf"))
    return compose(f"experiment={name}", *QUICK, *NARROW[name], f"run_dir={folder}", *overrides)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A short run of each example, with all that a run shows by default."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        folder = tmp_path_factory.mktemp("runs")
        return {name: (folder / name, train(config_of(name, folder / name, monkeypatch=patch))) for name in NAMES}


def weights_of(run, file="best.ckpt"):
    return torch.load(run / "checkpoints" / file, weights_only=True)["state_dict"]


def same_weights(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.equal(other[name]), name


def test_examples_are_short():
    files = sorted((ROOT / "examples").rglob("*.py"))
    assert len(files) == len(NAMES)
    for file in files:
        assert len(file.read_text().splitlines()) <= 80, file
        command = (
            f"python scripts/train.py --config-dir examples/{file.parent.name}/conf experiment={file.parent.name}"
        )
        assert command in file.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reached"),
    # the best constant answers: an angle of 0 is off by 22.5 degrees, all labels have an F1 of 0.32, background alone an
    # IoU of 0.31
    [
        ("regression", lambda mae: mae < 6),
        ("multi_label", lambda f1: f1 > 0.8),
        ("segmentation", lambda iou: iou > 0.75),
    ],
)
def test_each_example_learns_by_its_command(script_here, monkeypatch, tmp_path, name, reached):
    monkeypatch.chdir(ROOT)
    where = (f"hydra.run.dir={tmp_path}/run", "trainer.accelerator=cpu", "logger=none")
    code, printed, errors = script_here(
        "train", "--config-dir", f"examples/{name}/conf", f"experiment={name}", *where
    )
    assert (code, errors) == (0, ""), printed
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert reached(summary[f"test/{METRIC[name]}"]), summary


@pytest.mark.parametrize("name", NAMES)
def test_the_best_by_its_own_metric_is_kept_and_tested(runs, name):
    run, summary = runs[name]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    values = [value for row in rows for key, value in _flat(row) if key == f"val/{METRIC[name]}"]
    assert len(values) == 2
    assert summary[f"val/{METRIC[name]}"] == (min if name == "regression" else max)(values)
    assert {"train/loss", "val/loss"} <= summary.keys()
    assert not {"train/accuracy", "val/accuracy"} & summary.keys()  # which nothing measured
    again = evaluate(run, accelerator="cpu", trust=["examples"])
    assert again == pytest.approx({key: summary[key] for key in ("test/loss", f"test/{METRIC[name]}")}, rel=1e-5)


def _flat(row):
    return (
        [*row.items(), *(row.get("metrics") or {}).items()] if isinstance(row.get("metrics"), dict) else row.items()
    )


@pytest.mark.parametrize("name", NAMES)
def test_metrics_equal_those_of_all_test_images_at_once(runs, name):
    run, summary = runs[name]
    net = experiments.load(run / "checkpoints" / "best.ckpt", trust=["examples"])
    assert net.card["outputs"] == {"regression": "values", "multi_label": "labels", "segmentation": "mask"}[name]
    data = data_of(name)
    images, targets = data.read("test")
    with torch.no_grad():
        outputs = net(experiments_normalized(images, data))
    value = summary[f"test/{METRIC[name]}"]
    if name == "regression":
        assert value == pytest.approx((outputs - targets).abs().mean().item(), rel=1e-4)
        assert summary["test/loss"] == pytest.approx(F.mse_loss(outputs, targets).item(), rel=1e-4)
    elif name == "multi_label":
        from sklearn.metrics import f1_score

        assert value == pytest.approx(f1_score(targets, outputs > 0, average="macro", zero_division=0), abs=1e-3)
    else:
        from sklearn.metrics import jaccard_score

        truth = jaccard_score(targets.flatten(), outputs.argmax(1).flatten(), average="macro")
        assert value == pytest.approx(truth, abs=1e-3)


def data_of(name):
    from examples.multi_label.digit_pairs import DigitPairs
    from examples.regression.turned_digits import TurnedDigits
    from examples.segmentation.noisy_strokes import NoisyStrokes

    return {"regression": TurnedDigits, "multi_label": DigitPairs, "segmentation": NoisyStrokes}[name]()


def experiments_normalized(images, data):
    return (images / 255 - data.mean[0]) / data.std[0]


class StopAt(Callback):
    handles_batch_lists = True

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step >= 13:
            raise Stopped(15)


@pytest.mark.parametrize("name", NAMES)
def test_stopped_and_resumed_it_ends_with_the_weights_of_an_uninterrupted_run(tmp_path, monkeypatch, name, runs):
    every = ("callbacks.rolling_checkpoint.every_n_steps=3", "logger=none")
    config = config_of(name, tmp_path / "run", *every, monkeypatch=monkeypatch)
    with pytest.raises(Stopped):
        train(config, callbacks=[StopAt()])
    steps = [torch.load(path, weights_only=True)["global_step"] for path in (tmp_path / "run").rglob("rolling-*")]
    assert steps
    assert max(steps) > 10  # in the second epoch
    typed = (f"resume={tmp_path / 'run'}", "trust=[examples]")
    summary = train(config_of(name, tmp_path / "run", *every, *typed, monkeypatch=monkeypatch), typed)
    run, truth = runs[name]
    metrics = {key for key in truth if key.startswith(("val/", "test/", "train/"))}
    assert {key: summary[key] for key in metrics} == {key: truth[key] for key in metrics}
    same_weights(weights_of(tmp_path / "run"), weights_of(run))


@pytest.mark.parametrize("name", NAMES)
def test_lists_of_batches_give_the_weights_of_single_steps(tmp_path, monkeypatch, name, runs):
    run, truth = runs[name]
    assert truth["steps"] == 20
    summary = train(config_of(name, tmp_path, "steps_per_execution=1", *MINIMAL, monkeypatch=monkeypatch))
    listed = torch.load(next(run.rglob("rolling-*")), weights_only=True)
    assert listed[type(data_of(name)).__qualname__]["steps_per_execution"] > 1
    same_weights(weights_of(tmp_path), weights_of(run))
    assert summary[f"val/{METRIC[name]}"] == truth[f"val/{METRIC[name]}"]


def test_images_are_answered_in_a_file(runs, script_here, tmp_path):
    for name in NAMES:
        data, (run, _) = data_of(name), runs[name]
        images = data.read("test")[0][:6]
        folder = tmp_path / name
        folder.mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image[0].numpy()).save(folder / f"{number}.png")
        (folder / "9.png").write_bytes(b"no image")
        arguments = (f"run={run}", f"images={folder}", "trust=[examples]", "invert=false", "accelerator=cpu")
        code, printed, _ = script_here("predict", *arguments, f"output={folder}/answers.csv")
        assert code == 3
        assert printed.startswith("6 images predicted")
        with (folder / "answers.csv").open(newline="") as file:
            *rows, damaged = csv.DictReader(file)
        assert damaged["error"] == "not an image of a known format"
        net = experiments.load(run / "checkpoints" / "best.ckpt", trust=["examples"])
        with torch.no_grad():
            outputs = net(experiments_normalized(images, data))
        columns = {
            "regression": ["value/angle"],
            "multi_label": ["predicted", *(f"probability/{digit}" for digit in range(10))],
            "segmentation": ["mask", "share/background", "share/stroke"],
        }[name]
        assert list(rows[0]) == ["file", *columns, "error", "inverted"]
        if name == "regression":
            assert [float(row["value/angle"]) for row in rows] == pytest.approx(outputs[:, 0].tolist(), rel=1e-4)
        elif name == "multi_label":
            for row, values in zip(rows, outputs.sigmoid().tolist(), strict=True):
                listed = [float(row[f"probability/{digit}"]) for digit in range(10)]
                assert listed == pytest.approx(values, abs=1e-4)
                assert row["predicted"].split() == [str(digit) for digit, value in enumerate(values) if value > 0.5]
        else:
            for row, mask in zip(rows, outputs.argmax(1), strict=True):
                assert np.array_equal(np.asarray(Image.open(row["mask"])), mask.numpy())
                assert float(row["share/stroke"]) == pytest.approx(mask.float().mean().item(), abs=1e-5)
        code, printed, _ = script_here("predict", *arguments)  # on the screen
        assert code == 3
        assert str(folder / "0.png") in printed


@pytest.mark.parametrize("name", NAMES)
def test_report_and_tensorboard_show_what_is_monitored_and_no_classes(runs, name):
    run, summary = runs[name]
    page = (run / "report.html").read_text()
    assert f"val/{METRIC[name]} {summary[f'val/{METRIC[name]}']:.5g} at step" in page
    assert f"test/{METRIC[name]}" in page
    assert "confus" not in page.partition("<details")[0].lower()
    assert not list(run.glob("per_class_*"))
    reader = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    assert len(reader.Scalars(f"val/{METRIC[name]}")) == 2
    assert {f"hp/val/{METRIC[name]}", f"hp/test/{METRIC[name]}"} <= set(reader.Tags()["scalars"])
    assert not reader.Tags()["images"]
    with pytest.raises(UserError, match="its tables are of classes"):
        evaluate(run, accelerator="cpu", trust=["examples"], output=run / "tables")


@pytest.mark.parametrize("name", NAMES)
def test_an_ensemble_answers_by_the_mean(runs, name):
    run, summary = runs[name]
    path = run / "checkpoints" / "best.ckpt"
    one, two = (load_ensemble([path] * count, ["examples"]) for count in (1, 2))
    images = torch.randn(3, *data_of(name).image_shape)
    with torch.no_grad():
        single, both = (
            experiments.learning.metrics.predictions_of(net(images), net.card["outputs"]) for net in (one, two)
        )
    assert both.allclose(single, atol=1e-5)
    twice = evaluate([run, run], accelerator="cpu", trust=["examples"])
    assert twice[f"test/{METRIC[name]}"] == pytest.approx(summary[f"test/{METRIC[name]}"], abs=1e-4)


def test_an_exported_network_tells_its_outputs(runs, tmp_path):
    onnx = pytest.importorskip("onnx")
    from experiments.inference.export import export

    file = export(
        runs["segmentation"][0] / "checkpoints" / "best.ckpt", "onnx", tmp_path / "model.onnx", ["examples"]
    )
    assert list(tmp_path.iterdir()) == [file]  # one file, weights included
    assert {entry.key: entry.value for entry in onnx.load(file).metadata_props}["outputs"] == "mask"


def test_two_settings_are_summarized_by_what_they_monitor(runs, tmp_path, monkeypatch, capsys):
    for lr in ("0.0001", "0.004"):
        typed = (f"optimizer.lr={lr}", *MINIMAL, "trainer.max_epochs=1")
        train(config_of("regression", tmp_path / lr, *typed, monkeypatch=monkeypatch), typed)
    best, other = summarize(tmp_path)
    assert best.summary["val/mae"] < other.summary["val/mae"]
    heading = capsys.readouterr().out.splitlines()[0].split()
    assert heading[:4] == ["run", "status", "val/mae", "test/mae"]


def test_two_trials_are_searched(tmp_path, monkeypatch, script_here):
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    search = ("-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "optimizer.lr=tag(log,interval(1e-4,1e-2))")
    where = ("--config-dir", str(ROOT / "examples" / "regression" / "conf"), f"hydra.sweep.dir={tmp_path}/sweep")
    quick = ("trainer.accelerator=cpu", "data.limit=320", *NARROW["regression"], "trainer.max_epochs=1", *MINIMAL)
    code, printed, errors = script_here("train", *search, *where, "experiment=regression", *quick)
    assert code in (0, None), printed + errors
    found = [json.loads(path.read_text())["val/mae"] for path in tmp_path.glob("sweep/*/summary.json")]
    assert len(found) == 2
    assert f"best val/mae: {min(found):.6g}" in printed


def test_callbacks_and_the_learning_rate_finder_work(tmp_path, monkeypatch):
    more = ("callbacks=[default,ema,early_stopping]", "callbacks.model_summary.max_depth=1", "trainer.max_epochs=1")
    quick = ("experiment=segmentation", "trainer.accelerator=cpu", "data.limit=160", *NARROW["segmentation"])
    monkeypatch.setenv("EXPERIMENTS_CONF", str(ROOT / "examples" / "segmentation" / "conf"))
    summary = train(compose(*quick, *more, f"run_dir={tmp_path}/run", "augment=[blur,cutout]"))
    assert summary["status"] == "finished"
    fastest, lowest = find_lr(compose(*quick), steps=30)
    assert 0 < fastest <= lowest


MISTAKES = {
    "regression": {
        "metrics=f1": "monitor=val/mae: it is not logged",
        "metrics=[mae,f1]": "metrics.f1",
        "loss=cross_entropy": "CrossEntropyLoss is for one class an image",
        "loss=weighted_cross_entropy": "it weighs classes",
        "callbacks=[default,early_stopping] callbacks.early_stopping.monitor=val/accuracy": "is not logged",
        "monitor=val/accuracy": "is not logged",
        "augment=mixup": "Mixup blends classes",
        "data.balanced=true": "the targets are no classes",
        "trainer.precision=bf16-true": "rounds the values to learn: type bf16-mixed",
        "model.outputs=mask": "needs logits of each pixel",
        "model.outputs=number": "one of classes, labels, values, mask",
        "~model.outputs": "lacks outputs",
        "model._target_=experiments.learning.Classifier ~model.outputs monitor=val/loss": r"\+model.outputs=values",
        "mode=max": "keeps the worst val/mae: it must be min",
        "+metrics.r2._target_=torchmetrics.R2Score monitor=val/r2": "keeps the worst val/r2: it must be max",
    },
    "multi_label": {
        "loss=focal": "FocalLoss is for one class an image",
        "metrics=f1": "metrics.f1: MulticlassF1Score is for one class an image, and model.outputs=labels",
        "model.outputs=classes": "do not go with targets",
    },
    "segmentation": {
        "augment=flip": "Flip moves images, and not their masks",
        "augment=cutmix": "Cutmix blends classes",
        "loss=margin": "loss: MultiMarginLoss does not go with",
        "model=cnn ++model._target_=experiments.learning.Task ++model.outputs=mask": "needs logits of each pixel",
        "model=cnn": r"\+model.outputs=mask",
    },
}


@pytest.mark.parametrize(
    ("name", "typed", "message"),
    [(name, typed, message) for name, some in MISTAKES.items() for typed, message in some.items()],
)
def test_what_does_not_fit_ends_with_one_message(tmp_path, monkeypatch, name, typed, message):
    short = ("trainer.accelerator=cpu", "trainer.max_epochs=1", "data.limit=64", "logger=none", f"run_dir={tmp_path}")
    monkeypatch.setenv("EXPERIMENTS_CONF", str(ROOT / "examples" / name / "conf"))
    with pytest.raises(UserError, match=message):
        train(compose(f"experiment={name}", *short, *typed.split()), (f"experiment={name}", *typed.split()))


@pytest.mark.parametrize(
    "typed", ["loss=weighted_cross_entropy", "loss=focal", "data.num_folds=3 data.fold=1", "data.limit=0.1"]
)
def test_what_fits_masks_runs(tmp_path, monkeypatch, typed):
    short = ("trainer.max_epochs=1", *MINIMAL, *typed.split())
    config = config_of("segmentation", tmp_path / "run", *short, monkeypatch=monkeypatch)
    summary = train(config)
    assert summary["status"] == "finished"
    assert 0 < summary["test/iou"] < 1


def test_a_tasks_subclass_takes_lists_unless_it_takes_its_own_steps(tmp_path, monkeypatch):
    from experiments.learning import Task
    from experiments.training.steps_per_execution import _takes_own_steps, own_classes

    class Doubled(Task):
        def step(self, batch):
            loss, outputs = super().step(batch)
            return 2 * loss, outputs

    class OwnSteps(Task):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx)

    made = [
        kind(torch.nn.Linear(1, 1), torch.nn.MSELoss(), torch.optim.SGD, outputs="values")
        for kind in (Task, Doubled, OwnSteps)
    ]
    assert [_takes_own_steps(module) for module in made] == [False, False, True]
    assert [sorted(own_classes(module)) for module in made[:2]] == [
        [],
        ["test_a_tasks_subclass_takes_lists_unless_it_takes_its_own_steps.<locals>.Doubled"],
    ]


def test_a_checkpoint_names_outputs_of_the_fixed_set_alone(runs, tmp_path):
    content = torch.load(runs["regression"][0] / "checkpoints" / "best.ckpt", weights_only=True)
    card = content["hyper_parameters"]["card"]
    del card["outputs"]
    torch.save(content, tmp_path / "old.ckpt")
    assert experiments.load(tmp_path / "old.ckpt", trust=["examples"]).card["outputs"] == "classes"
    for wrong in ("eval", ["values"], {"_target_": "os.system"}, 3):
        card["outputs"] = wrong
        torch.save(content, tmp_path / "wrong.ckpt")
        with pytest.raises(UserError, match="outputs are damaged"):
            experiments.load(tmp_path / "wrong.ckpt", trust=["examples"])


def test_large_values_keep_their_size_in_half_precision():
    """A target of 70,001 would be 70,144 in bf16, and infinite in 16 bits."""

    class Years(Digits):
        def read(self, split):
            images, labels = super().read(split)
            return images, labels[:, None].float() + 70_001

    class Noting(Task):
        def update_metrics(self, metrics, outputs, targets):
            seen.append(targets)
            super().update_metrics(metrics, outputs, targets)

    seen = []
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 1))
    mae = {"mae": torchmetrics.MeanAbsoluteError()}
    task = Noting(net, torch.nn.L1Loss(), torch.optim.SGD, 1, metrics=mae, outputs="values")
    trainer = lightning.Trainer(
        accelerator="cpu", precision="bf16-mixed", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.validate(task, datamodule=Years(), verbose=False)
    assert torch.cat(seen).unique().tolist() == [70_001.0 + digit for digit in range(10)]

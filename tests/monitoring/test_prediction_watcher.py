"""Confusion, curves and mistakes against scikit-learn and a sorted list, on what a network really answered."""

import io

import numpy as np
import pytest
import torch
from lightning import LightningDataModule, LightningModule, Trainer
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import experiments
from experiments.callbacks.history import find_callback
from experiments.monitoring import Confusion, PRCurves, WorstPredictions, drawing
from experiments.training.build import build
from experiments.training.run import fit_and_test


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = experiments.compose(
        "trainer.max_epochs=1", "trainer.limit_train_batches=15", "data.eval_batch_size=100", "test=true",
        "model.net.hidden_features=[16]", "trainer.accelerator=cpu", f"run_dir={folder}",
    )  # fmt: skip
    experiment = build(config)
    summary = fit_and_test(experiment, config)
    data = experiment.data
    answers = {}
    for stage in ("val", "test"):
        images, labels = data.on_after_batch_transfer(data.splits[stage].tensors, 0)
        with torch.no_grad():
            answers[stage] = (torch.softmax(experiment.classifier.eval()(images), 1), labels)
    return experiment, summary, answers, EventAccumulator(str(folder), {"images": 0, "tensors": 0}).Reload()


@pytest.mark.parametrize("stage", ["val", "test"])
def test_the_matrix_and_each_classs_rates_are_scikit_learns(run, stage):
    experiment, summary, answers, _ = run
    probabilities, labels = answers[stage]
    predicted = probabilities.argmax(1)
    matrix = find_callback(experiment.trainer, Confusion).matrices[stage].numpy()
    assert np.array_equal(matrix, confusion_matrix(labels, predicted, labels=range(10)))
    assert np.trace(matrix) / matrix.sum() == pytest.approx(summary[f"{stage}/accuracy"])
    precision, recall = drawing.precision_recall_of(matrix)
    theirs = precision_recall_fscore_support(labels, predicted, labels=range(10), zero_division=np.nan)
    assert np.allclose(precision, theirs[0], equal_nan=True)
    assert np.allclose(recall, theirs[1], equal_nan=True)


@pytest.mark.parametrize("stage", ["val", "test"])
def test_the_curves_are_counted_at_every_threshold(run, stage):
    _, _, answers, events = run
    probabilities, labels = answers[stage]
    thresholds = torch.arange(127) / 126
    for name, (scores, own) in {
        "3": (probabilities[:, 3], labels == 3),
        "all": (probabilities.flatten(), nn.functional.one_hot(labels, 10).flatten().bool()),
    }.items():
        (event,) = events.Tensors(f"pr_{stage}/{name}")
        true, false, _, missed, precision, recall = make_ndarray(event.tensor_proto)
        above = (scores * 126).long()[:, None] >= (thresholds * 126).round().long()
        assert np.array_equal(true, (above & own[:, None]).sum(0))
        assert np.array_equal(false, (above & ~own[:, None]).sum(0))
        assert np.array_equal(true + missed, np.full(127, int(own.sum())))
        assert np.allclose(recall, true / own.sum().item())
        assert np.allclose(precision, np.divide(true, true + false, out=np.zeros(127), where=true + false > 0))


@pytest.mark.parametrize("stage", ["val", "test"])
def test_mistakes_are_the_most_confident_ones_in_order(run, stage):
    experiment, _, answers, _ = run
    probabilities, labels = answers[stage]
    confidence, predicted = probabilities.max(1)
    wrong = (predicted != labels).nonzero().flatten().tolist()
    truth = sorted(wrong, key=lambda number: -confidence[number])[:24]
    found = find_callback(experiment.trainer, WorstPredictions).found[stage]
    assert len(found) == min(24, len(wrong)) > 3
    for mistake, number in zip(found, truth, strict=True):
        assert mistake.true == str(int(labels[number]))
        assert mistake.predicted == str(int(predicted[number]))
        assert mistake.probability == pytest.approx(float(confidence[number]), rel=1e-5)
        original = experiment.data.splits[stage].tensors[0][number, 0].numpy()
        assert np.abs(np.asarray(mistake.picture)[..., 0].astype(int) - original).max() <= 1


def test_tensorboard_gets_every_picture_once_a_stage(run):
    *_, events = run
    names = {f"confusion_{s}/{kind}" for s in ("val", "test") for kind in ("counts", "rates")}
    names |= {f"{kind}/{s}" for s in ("val", "test") for kind in ("mistakes", "precision_recall")}
    assert names == set(events.Tags()["images"])
    for name in names:
        (event,) = events.Images(name)
        assert min(Image.open(io.BytesIO(event.encoded_image_string)).size) > 100


class Any(LightningModule):
    """A network of any number of channels and classes, without an example input."""

    def __init__(self, features, classes, answer=None):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(features, classes))
        self.answer = answer

    def forward(self, images):
        logits = self.net(images)
        return logits if self.answer is None else logits.fill_(self.answer)

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self(batch[0])

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class AnyData(LightningDataModule):
    def __init__(self, shape, classes, labels=None):
        super().__init__()
        self.image_shape, self.num_classes = shape, classes
        torch.manual_seed(0)
        self.images = torch.randn(40, *shape)
        self.labels = torch.arange(40) % classes if labels is None else labels

    def loader(self):
        return DataLoader(TensorDataset(self.images, self.labels), 8)

    train_dataloader = val_dataloader = test_dataloader = loader


def watched(folder, module, data, **options):
    from experiments.monitoring.loggers.log import TensorBoardLogger

    logger = TensorBoardLogger(folder, name="", version="", default_hp_metric=False)
    callbacks = [Confusion(), PRCurves(), WorstPredictions()]
    trainer = Trainer(
        max_epochs=1, limit_train_batches=1, accelerator="cpu", logger=logger, callbacks=callbacks,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    logger.save()
    return callbacks, EventAccumulator(str(folder), {"images": 0}).Reload().Tags()


@pytest.mark.parametrize("shape", [(3, 9, 12), (1, 8, 8), (2, 8, 8), (3, 200, 300), (2, 50), (1, 6, 6, 6)], ids=str)
def test_images_of_any_shape_are_counted_and_shown_where_they_are_pictures(tmp_path, shape):
    (confusion, _, mistakes), tags = watched(tmp_path, Any(int(np.prod(shape)), 5), AnyData(shape, 5))
    assert confusion.matrices["test"].sum() == 40
    assert ("mistakes/test" in tags["images"]) == (len(shape) == 3)
    assert bool(mistakes.found["test"]) == (len(shape) == 3)


def test_a_thousand_classes(tmp_path):
    (confusion, curves, _), tags = watched(tmp_path, Any(64, 1000), AnyData((1, 8, 8), 1000))
    assert confusion.matrices["test"].shape == (1000, 1000)
    assert [tag for tag in tags["tensors"] if tag.startswith("pr_test")] == ["pr_test/all"]
    assert curves.counts["test"].sum() == 40 * 1000
    assert sum(path.stat().st_size for path in tmp_path.glob("events*")) < 1_000_000


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), 0.0])
def test_answers_that_are_not_finite_or_all_alike_break_nothing(tmp_path, answer):
    (confusion, *_), _ = watched(tmp_path, Any(64, 3, answer), AnyData((1, 8, 8), 3))
    assert confusion.matrices["test"].sum() == 40


def test_labels_of_no_class_count_nowhere(tmp_path):
    class Lenient(Any):
        def training_step(self, batch, index):
            return self(batch[0]).sum()

    labels = torch.tensor([-100, 0, 1, 7] * 10)
    (confusion, _, mistakes), _ = watched(tmp_path, Lenient(64, 3), AnyData((1, 8, 8), 3, labels))
    assert confusion.matrices["test"].sum() == 20
    assert {mistake.true for mistake in mistakes.found["test"]} <= {"0", "1"}


def test_half_precision(tmp_path):
    (confusion, *_), _ = watched(tmp_path, Any(64, 3), AnyData((1, 8, 8), 3), precision="bf16-mixed")
    assert confusion.matrices["test"].sum() == 40
    watched(tmp_path / "true", Any(64, 3), AnyData((1, 8, 8), 3), precision="bf16-true")

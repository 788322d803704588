"""Metrics against scikit-learn, and the Classifier's against what it counts."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, recall_score, roc_auc_score
from torchmetrics import classification

from experiments.learning.metrics import own_metrics, single_number

CLASSES = 4


def answers(labels):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(CLASSES), len(labels)).astype(np.float32)
    return torch.from_numpy(probabilities), torch.tensor(labels)


def measured(metric, labels):
    (own,) = own_metrics({"it": metric}, CLASSES).values()
    probabilities, labels = answers(labels)
    for part in (slice(0, 30), slice(30, None)):
        own.update(probabilities[part], labels[part])
    value = float(single_number("it", own))
    own.reset()
    own.update(probabilities, labels)
    assert float(single_number("it", own)) == pytest.approx(value, abs=1e-6)
    return value


def by_scikit_learn(name, labels):
    probabilities, labels = answers(labels)
    present, predicted = sorted(set(labels.tolist())), probabilities.argmax(1)
    if name == "auroc":
        return np.mean([roc_auc_score(labels == one, probabilities[:, one]) for one in present])
    score = {"f1": f1_score, "recall": recall_score}[name]
    return score(labels, predicted, average="macro", labels=present)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3] * 15, [0, 1, 3] * 20], ids=["all there", "one absent"])
@pytest.mark.parametrize("name", ["auroc", "f1", "recall"])
def test_a_mean_over_classes_is_over_those_that_are_there(name, labels):
    metric = {
        "auroc": classification.MulticlassAUROC(CLASSES, average="macro"),
        "f1": classification.MulticlassF1Score(CLASSES, average="macro"),
        "recall": classification.MulticlassRecall(CLASSES, average="macro"),
    }[name]
    assert measured(metric, labels) == pytest.approx(by_scikit_learn(name, labels), abs=1e-6)


def test_a_perfect_network_has_an_auroc_of_one_without_a_class():
    (own,) = own_metrics({"it": classification.MulticlassAUROC(CLASSES)}, CLASSES).values()
    labels = torch.tensor([0, 1, 3] * 5)
    own.update(torch.nn.functional.one_hot(labels, CLASSES).float(), labels)
    assert single_number("it", own) == 1


def test_calibration_is_the_mean_gap_between_confidence_and_accuracy_of_its_bins():
    labels = [0, 1, 2, 3] * 50
    probabilities, truth = answers(labels)
    confidence, right = probabilities.max(1).values, (probabilities.argmax(1) == truth).float()
    bins = torch.bucketize(confidence, torch.linspace(0, 1, 16)) - 1
    gaps = [
        abs(right[bins == number].mean() - confidence[bins == number].mean()) * (bins == number).float().mean()
        for number in range(15)
        if (bins == number).any()
    ]
    metric = classification.MulticlassCalibrationError(CLASSES, n_bins=15)
    assert measured(metric, labels) == pytest.approx(float(sum(gaps)), abs=1e-5)

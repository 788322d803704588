import pytest
import torch
from torch.nn import functional

import experiments
from experiments.build import build
from experiments.losses import WeightedCrossEntropy


def test_every_class_weighs_as_much_as_any_other():
    loss = WeightedCrossEntropy([90, 10])
    assert loss.weight.tolist() == pytest.approx([100 / 180, 100 / 20])
    logits, labels = torch.randn(50, 2), torch.arange(50) % 2
    each = functional.cross_entropy(logits, labels, reduction="none")
    weights = torch.tensor([100 / 180, 5.0])[labels]
    assert loss(logits, labels).item() == pytest.approx(((each * weights).sum() / weights.sum()).item(), rel=1e-5)


def test_a_class_without_an_image_has_no_weight():
    with pytest.raises(ValueError, match=r"class_counts=\[3, 0\]: every class needs an image"):
        WeightedCrossEntropy([3, 0])


def test_the_weights_come_from_the_images_to_train_on(tmp_path):
    config = experiments.compose(
        "loss=weighted_cross_entropy", "data.limit=300", f"run_dir={tmp_path}", "logger=none"
    )
    experiment = build(config)
    counts = torch.bincount(experiment.data.splits["train"].tensors[1]).float()
    assert counts.sum() == 300
    assert torch.allclose(experiment.classifier.loss.weight, 300 / (10 * counts))

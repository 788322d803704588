import pytest
import torch
from torch import nn
from torch.nn import functional

import experiments
from experiments.learning.losses import FocalLoss, WeightedCrossEntropy
from experiments.training.build import build, make

LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.1, 0.2, 0.3], [-3.0, 4.0, 0.0]])
LABELS = torch.tensor([0, 2, 0])


def test_focal_loss_is_its_formula():
    p = LOGITS.softmax(1)[torch.arange(3), LABELS]
    for gamma in (0.5, 1.0, 2.0, 5.0):
        assert FocalLoss(gamma)(LOGITS, LABELS).item() == pytest.approx((-((1 - p) ** gamma) * p.log()).mean().item())
    assert FocalLoss(0)(LOGITS, LABELS).item() == pytest.approx(nn.CrossEntropyLoss()(LOGITS, LABELS).item())


def test_focal_loss_weighs_what_is_known_less():
    known, unknown = FocalLoss(2)(LOGITS[:1], LABELS[:1]), FocalLoss(2)(LOGITS[2:], LABELS[2:])
    plain = nn.CrossEntropyLoss()
    assert known / plain(LOGITS[:1], LABELS[:1]) < 0.1
    assert unknown / plain(LOGITS[2:], LABELS[2:]) > 0.99


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2])
def test_focal_loss_has_a_finite_gradient_where_a_sample_is_certain(gamma):
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    FocalLoss(gamma)(logits, torch.tensor([0, 0])).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[1].any()
    double = LOGITS.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda values: FocalLoss(gamma)(values, LABELS), double)


def test_a_negative_gamma_is_refused():
    with pytest.raises(ValueError, match="gamma=-1 must be a number of at least 0"):
        FocalLoss(-1)


def test_label_smoothing_and_margin_are_their_formulas():
    smooth = make(experiments.compose("loss.label_smoothing=0.1")["loss"])
    target = nn.functional.one_hot(LABELS, 3) * 0.9 + 0.1 / 3
    assert smooth(LOGITS, LABELS).item() == pytest.approx(-(target * LOGITS.log_softmax(1)).sum(1).mean().item())

    margin = make(experiments.compose("loss=margin", "loss.margin=0.5")["loss"])
    truth = 0.0
    for logits, label in zip(LOGITS, LABELS, strict=True):
        truth += sum(max(0.0, 0.5 - float(logits[label] - logits[k])) for k in range(3) if k != label) / 3
    assert margin(LOGITS, LABELS).item() == pytest.approx(truth / 3)


def test_every_class_weighs_as_much_as_any_other():
    loss = WeightedCrossEntropy([90, 10])
    assert loss.weight.tolist() == pytest.approx([100 / 180, 100 / 20])
    logits, labels = torch.randn(50, 2), torch.arange(50) % 2
    each = functional.cross_entropy(logits, labels, reduction="none")
    weights = torch.tensor([100 / 180, 5.0])[labels]
    assert loss(logits, labels).item() == pytest.approx((each * weights).mean().item(), rel=1e-5)
    halves = [loss(logits[part], labels[part]) for part in (slice(20), slice(20, None))]
    assert loss(logits, labels).item() == pytest.approx((0.4 * halves[0] + 0.6 * halves[1]).item(), rel=1e-5)


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

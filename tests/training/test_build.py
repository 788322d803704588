import copy

import pytest
import torch
from lightning import Callback
from sklearn.metrics import f1_score, roc_auc_score, top_k_accuracy_score

import experiments
from experiments.data import ImageDataModule
from experiments.errors import UserError
from experiments.training.build import build

QUIET = (
    "callbacks=minimal", "callbacks.progress=null", "callbacks.best_checkpoint=null", "logger=none",
    "callbacks.rolling_checkpoint=null", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu",
)  # fmt: skip


def fitted(tmp_path, *overrides, callbacks=()):
    experiment = build(experiments.compose(*QUIET, f"run_dir={tmp_path}", "trainer.max_epochs=1", *overrides))
    experiment.trainer.callbacks.extend(callbacks)
    experiment.trainer.fit(experiment.classifier, datamodule=experiment.data)
    return experiment


def test_metrics_by_config_equal_scikit_learns(tmp_path):
    kappa = "torchmetrics.classification.MulticlassCohenKappa"
    experiment = fitted(tmp_path, "metrics=[f1,top3,auroc]", f"+metrics.kappa._target_={kappa}",
                        "data.eval_batch_size=50", "trainer.limit_train_batches=10")  # fmt: skip
    data, net = experiment.data, experiment.classifier.net.eval()
    images, labels = data.on_after_batch_transfer(data.splits["val"].tensors, 0)
    with torch.no_grad():
        probabilities = net(images).double().softmax(1)
    predicted = probabilities.argmax(1)
    logged = {name: float(value) for name, value in experiment.trainer.callback_metrics.items()}
    assert logged["val/f1"] == pytest.approx(f1_score(labels, predicted, average="macro"), abs=1e-6)
    assert logged["val/top3"] == pytest.approx(top_k_accuracy_score(labels, probabilities, k=3), abs=1e-6)
    assert logged["val/auroc"] == pytest.approx(
        roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"), abs=1e-5
    )
    assert -1 <= logged["val/kappa"] <= 1
    assert not [name for name in logged if name.startswith("train/") and name.endswith(("f1", "auroc"))]


def test_metrics_see_probabilities_even_where_logits_look_like_some(tmp_path):
    experiment = build(experiments.compose(*QUIET, f"run_dir={tmp_path}", "metrics=[auroc]"))
    module = experiment.classifier
    module.net = torch.nn.Identity()
    logits, labels = torch.rand(200, 10), torch.arange(200) % 10
    module.update_stage("val", *module.step((logits, labels)), labels)
    measured = dict(module.stage_metrics("val"))["auroc"].compute().item()
    assert measured == pytest.approx(roc_auc_score(labels, logits.softmax(1).double(), multi_class="ovr"), abs=1e-5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+metrics.loss._target_=torchmetrics.classification.MulticlassF1Score", "metrics.loss is there already"),
        ("+metrics.f2._target_=torchmetrics.classification.MulticlassF2Score", "MulticlassF2Score"),
    ],
)
def test_a_metric_that_cannot_be_is_a_users_mistake(override, message):
    with pytest.raises(UserError, match=message):
        build(experiments.compose(override))


class Gradients(Callback):
    """Notes the gradient's norm before every optimizer step, and how many steps there were."""

    def __init__(self):
        self.norms = []

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        found = [p.grad.flatten() for p in pl_module.parameters() if p.grad is not None]
        if found:
            self.norms.append(torch.cat(found).norm().item())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradient_clipping_by_override_acts(tmp_path, precision):
    free, clipped = Gradients(), Gradients()
    few = ("trainer.limit_train_batches=5", f"trainer.precision={precision}")
    fitted(tmp_path, *few, callbacks=[free])
    fitted(tmp_path, *few, "trainer.gradient_clip_val=0.1", callbacks=[clipped])
    assert max(free.norms) > 0.2
    assert len(clipped.norms) >= 4
    assert max(clipped.norms) <= 0.1 + 1e-6


def test_accumulation_equals_the_larger_batch(tmp_path):
    sgd = ("optimizer=sgd", "scheduler=constant", "seed=3", "model.net.hidden_features=[16]")
    torch.manual_seed(3)
    small = fitted(tmp_path, *sgd, "data.batch_size=8", "data.limit=64", "trainer.accumulate_grad_batches=4")
    torch.manual_seed(3)
    large = fitted(tmp_path, *sgd, "data.batch_size=32", "data.limit=64")
    assert (small.trainer.global_step, large.trainer.global_step) == (2, 2)
    for one, other in zip(small.classifier.parameters(), large.classifier.parameters(), strict=True):
        assert one.allclose(other, atol=1e-6)


def test_early_stopping_by_config_stops(tmp_path):
    stubborn = ("optimizer=sgd", "scheduler=constant", "optimizer.lr=1e-12", "callbacks.early_stopping.patience=2")
    chosen = ("callbacks=[minimal,early_stopping]", "callbacks.early_stopping.min_delta=0.1")
    few = ("trainer.limit_train_batches=1", "trainer.max_epochs=9")
    experiment = fitted(tmp_path, *chosen, *stubborn, *few)
    assert experiment.trainer.current_epoch == 3


def test_compile_without_a_compiler_says_what_is_missing(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O3")
    with pytest.raises(UserError, match=r"(?s)no no-such-compiler.*CXX.*compile=false"):
        build(experiments.compose("compile=true"))


def test_every_build_of_a_config_has_the_same_weights():
    config = experiments.compose("trainer.accelerator=cpu", "logger=none")
    first, torch_state = build(config).classifier.net.state_dict(), torch.rand(3)
    second = build(config).classifier.net.state_dict()
    assert all(value.equal(second[name]) for name, value in first.items())
    assert torch.rand(3).equal(torch_state)
    other = build(experiments.compose("trainer.accelerator=cpu", "logger=none", "seed=1")).classifier.net.state_dict()
    assert not all(value.equal(other[name]) for name, value in first.items())


def test_convolutions_of_few_channels_get_right_gradients(tmp_path):
    few = ("model=resnet", "model.net.channels=[4,8]", "trainer.accelerator=cpu", f"run_dir={tmp_path}")
    net = build(experiments.compose(*few)).classifier.net
    images, labels = torch.randn(64, 1, 8, 8), torch.arange(64) % 10
    truth = copy.deepcopy(net).double()
    torch.nn.functional.cross_entropy(truth(images.double()), labels).backward()
    torch.nn.functional.cross_entropy(net(images), labels).backward()
    for (name, one), other in zip(net.named_parameters(), truth.parameters(), strict=True):
        assert torch.allclose(one.grad.double(), other.grad, atol=1e-4), name
    with pytest.raises(UserError, match="channels_last=true: on CPUs, convolutions of 1 by 1"):
        build(experiments.compose(*few, "channels_last=true"))


class Shapeless(ImageDataModule):
    class_names, mean, std = ("a", "b"), (0.5,), (0.5,)

    def read(self, split):
        raise NotImplementedError


def test_a_data_set_that_does_not_state_its_shape_is_named():
    target = f"{Shapeless.__module__}.Shapeless"
    with pytest.raises(UserError, match="data: Shapeless must state image_shape"):
        build(experiments.compose("data=custom", f"data._target_={target}"))

from functools import partial

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.tuner.tuning import Tuner
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader

from experiments.data import Digits
from experiments.errors import UserError
from experiments.learning.classifier import Classifier
from experiments.learning.losses import require_one_class_per_image
from experiments.learning.schedulers import WarmupCosine
from experiments.nets import MLP


def trainer(**options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", enable_model_summary=False, **{**quiet, **options})


def classifier(net=None, scheduler=None, loss=None, **options):
    torch.manual_seed(0)
    optimizer = partial(torch.optim.SGD, lr=0.1)
    net = net or MLP(hidden_features=[16])
    return Classifier(net, loss or nn.CrossEntropyLoss(), optimizer, num_classes=10, scheduler=scheduler, **options)


def test_training_equals_a_hand_written_loop_bit_for_bit():
    data = Digits(batch_size=100)
    module = classifier()
    trainer(max_epochs=2).fit(module, datamodule=data)

    torch.manual_seed(0)
    net = MLP(hidden_features=[16])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    data = Digits(batch_size=100)
    data.setup("fit")
    loader = data.train_dataloader()
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            images, labels = data.on_after_batch_transfer(batch, 0)
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
    for name, value in net.state_dict().items():
        assert value.equal(module.net.state_dict()[name]), name


def test_logged_values_are_those_of_the_whole_split():
    data, module = Digits(eval_batch_size=7), classifier()  # the last batches are smaller
    fit = trainer(max_epochs=1)
    fit.fit(module, datamodule=data)
    logged = {**fit.callback_metrics}
    logged |= fit.test(module, datamodule=data, verbose=False)[0]
    assert set(logged) == {f"{stage}/{name}" for stage in ("train", "val", "test") for name in ("loss", "accuracy")}
    for stage in ("val", "test"):
        images, labels = data.on_after_batch_transfer(data.splits[stage].tensors, 0)
        with torch.no_grad():
            logits = module.net.eval()(images)
        assert float(logged[f"{stage}/loss"]) == pytest.approx(
            nn.functional.cross_entropy(logits, labels).item(), rel=1e-5
        )
        assert float(logged[f"{stage}/accuracy"]) == pytest.approx((logits.argmax(1) == labels).float().mean().item())


class Recorder(MLP):
    """Notes, for every forward pass, the stage's mode and whether a graph is built."""

    def __init__(self):
        super().__init__(hidden_features=[16], dropout=0.5)
        self.seen = []

    def forward(self, x):
        first, second = super().forward(x), super().forward(x)
        self.seen.append((self.training, torch.is_grad_enabled(), bool((first == second).all())))
        return first


def test_each_stage_runs_in_its_mode_and_only_training_builds_a_graph():
    net = Recorder()
    module, data = classifier(net), Digits()
    fit = trainer(max_epochs=1, limit_train_batches=2)
    fit.fit(module, datamodule=data)
    assert set(net.seen) == {(True, True, False), (False, False, True)}
    net.seen.clear()
    fit.test(module, datamodule=data, verbose=False)
    assert set(net.seen) == {(False, False, True)}


def rates(scheduler, epochs=2, **options):
    """The learning rate of every step of a run."""
    module, seen = classifier(scheduler=scheduler), []
    step = module.training_step
    module.training_step = lambda *a: seen.append(module.optimizers().param_groups[0]["lr"]) or step(*a)
    trainer(max_epochs=epochs, **options).fit(module, datamodule=Digits(batch_size=100))
    return seen


def test_a_schedule_that_needs_the_number_of_steps_gets_it():
    seen = rates(partial(OneCycleLR, max_lr=0.1))
    assert len(seen) == 26
    truth = OneCycleLR(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1), max_lr=0.1, total_steps=26)
    for rate in seen:
        assert rate == pytest.approx(truth.get_last_lr()[0])
        truth.optimizer.step()
        truth.step()


def test_accumulation_counts_optimizer_steps():
    seen = rates(partial(WarmupCosine, warmup=0.0), accumulate_grad_batches=13)
    assert seen == pytest.approx([0.1] * 13 + [0.05] * 13)


def test_warmup_cosine_warms_up_and_ends_at_its_final_factor():
    seen = rates(partial(WarmupCosine, warmup=0.5, final_factor=0.1))
    assert seen[:13] == pytest.approx([0.1 * (step + 1) / 14 for step in range(13)])
    assert seen[13] == pytest.approx(0.1)
    assert seen[13:] == sorted(seen[13:], reverse=True)
    assert 0.01 < seen[-1] < 0.013


def test_other_schedules_advance_once_an_epoch():
    assert rates(partial(StepLR, step_size=1, gamma=0.1)) == pytest.approx([0.1] * 13 + [0.01] * 13)


def test_plateau_watches_validation():
    seen = rates(partial(ReduceLROnPlateau, patience=0, threshold=1e9, mode="max", factor=0.1), epochs=3)
    assert seen[0] == pytest.approx(0.1)
    assert seen[13 * 2 - 1] == pytest.approx(0.1)  # the first validation is the best so far
    assert seen[-1] == pytest.approx(0.01)


def test_plateau_waits_for_validations_that_are_rare():
    falling = partial(ReduceLROnPlateau, patience=0, threshold=1e9, mode="max", factor=0.1)
    seen = rates(falling, epochs=5, check_val_every_n_epoch=2)
    assert seen == pytest.approx([0.1] * 13 * 4 + [0.01] * 13)  # after the second validation


def test_mean_losses_add_up_in_bf16_and_leave_empty_batches_out():
    module = classifier().to(torch.bfloat16)
    logits, labels = torch.zeros(64, 10, dtype=torch.bfloat16), torch.zeros(64, dtype=torch.int64)
    for _ in range(860):
        module.update_stage("val", torch.tensor(0.5, dtype=torch.bfloat16), logits, labels)
    module.update_stage("val", torch.tensor(torch.nan), logits[:0], labels[:0])
    assert dict(module.stage_metrics("val"))["loss"].compute().item() == 0.5


def test_an_endless_run_has_no_total_steps():
    module = classifier(scheduler=partial(OneCycleLR, max_lr=0.1))
    with pytest.raises(UserError, match=r"trainer.max_epochs or trainer.max_steps"):
        trainer(max_epochs=-1).fit(module, datamodule=Digits())


def test_a_tuner_tries_every_batch_size(tmp_path):
    seen = []

    class Noting(Classifier):
        def training_step(self, batch, batch_idx):
            seen.append(len(batch[1]))
            return super().training_step(batch, batch_idx)

    module = Noting(MLP(), nn.CrossEntropyLoss(), partial(torch.optim.SGD, lr=0.1), num_classes=10)
    tuner = Tuner(trainer(max_epochs=1, default_root_dir=tmp_path))
    tuner.scale_batch_size(module, datamodule=Digits(), steps_per_trial=2, init_val=16, max_trials=3)
    assert seen == [16, 16, 32, 32, 64, 64]


def test_an_optimizer_that_refuses_is_a_users_mistake():
    module = Classifier(MLP(), nn.CrossEntropyLoss(), partial(torch.optim.SGD, lr=-1.0), num_classes=10)
    with pytest.raises(UserError, match="learning rate: -1.0"):
        trainer(max_epochs=1).fit(module, datamodule=Digits())


def test_a_scheduler_that_refuses_is_a_users_mistake():
    optimizer, scheduler = partial(torch.optim.Adagrad, lr=0.1), partial(OneCycleLR, max_lr=0.1, cycle_momentum=True)
    module = Classifier(MLP(), nn.CrossEntropyLoss(), optimizer, num_classes=10, scheduler=scheduler)
    with pytest.raises(UserError, match=r"the scheduler refuses.*cycle_momentum"):
        trainer(max_epochs=1).fit(module, datamodule=Digits())


@pytest.mark.parametrize("labels", [torch.tensor([[1.0, 1, 0], [0, 1, 0]]), torch.tensor([[1, 0, 1], [0, 1, 0]])])
def test_labels_of_several_classes_at_once_are_refused(labels):
    with pytest.raises(UserError, match=r"labels \(2, 3\): the Classifier needs one class an image"):
        require_one_class_per_image(labels)
    require_one_class_per_image(torch.tensor([[0.25, 0.75, 0.0], [0.0, 1.0, 0.0]]))  # of mixed images
    require_one_class_per_image(torch.tensor([1, 2]))
    images = torch.randn(2, 1, 28, 28)
    module = classifier(loss=nn.BCEWithLogitsLoss())
    batches = DataLoader(list(zip(images, torch.eye(10)[[1, 2]] + torch.eye(10)[[3, 4]], strict=True)), batch_size=2)
    with pytest.raises(UserError, match=r"model._target_=experiments.learning.Task \+model.outputs=labels"):
        trainer(max_epochs=1).fit(module, batches)

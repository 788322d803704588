"""Every optimizer, schedule, loss and callback that is offered, against a loop by hand on the same numbers."""

import copy
import math

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR

import experiments
from experiments.config import conf_files
from experiments.learning.optimizers import make_optimizer
from experiments.training.build import build

EPOCHS = 3
STEPS = EPOCHS * math.ceil(100 / 32)
SHORT = (
    f"trainer.max_epochs={EPOCHS}", "data.limit=100", "model.net.hidden_features=[16,16]", "model.net.norm=layer",
    "trainer.accelerator=cpu", "logger=none", "callbacks=none",
)  # fmt: skip


def built(tmp_path, *overrides):
    return build(experiments.compose(*SHORT, *overrides, f"run_dir={tmp_path}"))


def fitted(tmp_path, *overrides):
    experiment = built(tmp_path, *overrides)
    experiment.trainer.fit(experiment.classifier, datamodule=experiment.data)
    return experiment.classifier.net


def by_hand(tmp_path, *overrides, schedule=None, by_step=False):
    """What a loop leaves that knows none of Lightning; ``schedule`` makes one of torch's from the optimizer."""
    experiment = built(tmp_path, *overrides)
    net, loss, data = copy.deepcopy(experiment.classifier.net), experiment.classifier.loss, experiment.data
    optimizer = make_optimizer(experiment.classifier.make_optimizer, net, data.num_classes)
    scheduler = schedule(optimizer) if schedule else None
    data.setup("fit")
    loader = data.train_dataloader()
    rates = []
    for epoch in range(EPOCHS):
        loader.sampler.set_epoch(epoch)
        net.train()
        for images, labels in loader:
            images = experiments.data.normalize(images, data.mean, data.std)
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.zero_grad()
            loss(net(images), labels).backward()
            optimizer.step()
            if scheduler and by_step:
                scheduler.step()
        if isinstance(scheduler, ReduceLROnPlateau):
            net.eval()
            with torch.no_grad():
                images, labels = data.splits["val"].tensors
                right = net(experiments.data.normalize(images, data.mean, data.std)).argmax(1) == labels
            scheduler.step(right.float().mean())
        elif scheduler and not by_step:
            scheduler.step()
    return net, rates


def equal(first, second):
    return all(value.equal(second.state_dict()[name]) for name, value in first.state_dict().items())


@pytest.mark.parametrize("optimizer", conf_files.choices("optimizer"))
def test_every_optimizer(tmp_path, optimizer):
    typed = [f"optimizer={optimizer}", "scheduler=none"]
    net, _ = by_hand(tmp_path, *typed)
    assert equal(fitted(tmp_path, *typed), net)


@pytest.mark.parametrize("loss", conf_files.choices("loss"))
def test_every_loss(tmp_path, loss):
    net, _ = by_hand(tmp_path, f"loss={loss}", "scheduler=none")
    assert equal(fitted(tmp_path, f"loss={loss}", "scheduler=none"), net)


def warmup_cosine(optimizer, total=STEPS, warmup=0.05):
    """The rates of its definition, as a LambdaLR."""
    before = round(warmup * total)

    def factor(step):
        if step < before:
            return (step + 1) / (before + 1)
        return (1 + math.cos(math.pi * (step - before) / max(1, total - before))) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def one_cycle(optimizer):
    return OneCycleLR(optimizer, max_lr=0.002, total_steps=STEPS, cycle_momentum=False)


SCHEDULES = {
    "none": (None, False),
    "constant": (None, False),
    "cosine": (warmup_cosine, True),
    "one_cycle": (one_cycle, True),
    "step": (lambda optimizer: StepLR(optimizer, step_size=1, gamma=0.5), False),
    "plateau": (lambda optimizer: ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=0), False),
}
OPTIONS = {
    "step": ["scheduler.step_size=1", "scheduler.gamma=0.5"],
    "plateau": ["scheduler.factor=0.5", "scheduler.patience=0"],
}


@pytest.mark.parametrize("scheduler", conf_files.choices("scheduler"))
def test_every_schedule(tmp_path, scheduler):
    schedule, by_step = SCHEDULES[scheduler]
    typed = [f"scheduler={scheduler}", "optimizer=sgd", "optimizer.lr=0.002", *OPTIONS.get(scheduler, ())]
    net, rates = by_hand(tmp_path, *typed, schedule=schedule, by_step=by_step)
    assert len(set(rates)) > 1 or scheduler in ("none", "constant", "plateau")
    assert equal(fitted(tmp_path, *typed), net)


CHANGING = ["ema", "freeze"]
WATCHING = [choice for choice in conf_files.choices("callbacks") if choice not in ("none", *CHANGING)]


@pytest.mark.parametrize("choice", ["none", *CHANGING, f"[{','.join(WATCHING)}]"])
def test_no_callback_changes_what_is_learned(tmp_path, choice):
    typed = ["scheduler=none"]
    net, _ = by_hand(tmp_path, *typed)
    watched = fitted(tmp_path, *typed, f"callbacks={choice}", "logger=csv")
    assert equal(watched, net) == (choice not in CHANGING)

"""Groups of parameters do what torch's do that are written by hand, under every schedule."""

from functools import partial

import pytest
import torch
from torch import nn

import experiments
from experiments.config.conf_files import choices
from experiments.data import normalize
from experiments.errors import UserError
from experiments.learning.optimizers import MuonAdamW, make_optimizer
from experiments.learning.param_groups import ParamGroup, parameter_groups
from experiments.training.build import build

SMALL = ("model.net.hidden_features=[16]", "data.limit=128", "trainer.accelerator=cpu", "logger=none",
         "callbacks=minimal", "trainer.max_epochs=2", "test=false")  # fmt: skip


def fit(tmp_path, *overrides):
    experiment = build(experiments.compose(*SMALL, f"run_dir={tmp_path}", *overrides))
    rates = []
    step = type(experiment.classifier).on_train_batch_end

    def noted(self, *arguments):
        rates.append([group["lr"] for group in self.trainer.optimizers[0].param_groups])
        return step(self, *arguments)

    experiment.classifier.on_train_batch_end = noted.__get__(experiment.classifier)
    experiment.trainer.fit(experiment.classifier, datamodule=experiment.data)
    return experiment.classifier, rates


def test_training_equals_torchs_own_groups(tmp_path):
    ours, _ = fit(
        tmp_path, "param_groups=[slow_backbone,no_decay]", "optimizer=sgd", "optimizer.weight_decay=0.1",
        "optimizer.momentum=0.9", "scheduler=constant", "optimizer.lr=0.05", "trainer.max_epochs=1",
    )  # fmt: skip
    experiment = build(experiments.compose(*SMALL, f"run_dir={tmp_path}"))
    net, data = experiment.classifier.net, experiment.data
    optimizer = torch.optim.SGD(
        [
            {
                "params": [parameter],
                "lr": 0.05 if name.startswith("linear_relu_stack.2.") else 0.005,
                "weight_decay": 0.1 if name.endswith("weight") else 0.0,
            }
            for name, parameter in net.named_parameters()
        ],
        momentum=0.9,
        nesterov=True,
    )
    data.prepare_data()
    data.setup("fit")
    net.train()
    for images, labels in data.train_dataloader():
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(normalize(images, data.mean, data.std)), labels).backward()
        optimizer.step()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(ours.net.state_dict()[name], value)


SCHEDULES = [
    ("scheduler=one_cycle",), ("scheduler=one_cycle", "scheduler.max_lr=0.1"), ("scheduler=cosine",),
    ("scheduler=step", "scheduler.step_size=1"), ("scheduler=plateau", "scheduler.patience=0"),
    ("scheduler=constant",),
    ("++scheduler={_target_:torch.optim.lr_scheduler.CyclicLR,_partial_:true,base_lr:0.01,max_lr:0.1}",
     "optimizer=sgd"),
]  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES, ids=" ".join)
def test_every_schedule_keeps_the_factors(tmp_path, schedule):
    _, rates = fit(tmp_path, "param_groups=slow_backbone", *schedule)
    assert any(fast > 0 for _, fast in rates)
    for slow, fast in rates:
        assert slow == pytest.approx(0.1 * fast, rel=1e-3)  # one_cycle ends near 0


def test_patterns_factors_and_decays_combine():
    net = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3))
    rules = {
        "slow": ParamGroup(["0", "1.*"], lr_factor=0.5),
        "slower": ParamGroup(["0.weight"], lr_factor=0.1, weight_decay=0.2),
        "plain": ParamGroup(["biases_and_norms"], weight_decay=0.0),
    }
    groups = {group.pop("name"): group for group in parameter_groups(net, rules, 3)}
    found = {
        name: (len(group["params"]), group["lr_factor"], group.get("weight_decay")) for name, group in groups.items()
    }
    assert found == {
        "slow+slower": (1, 0.05, 0.2),
        "slow+plain": (3, 0.5, 0.0),
        "others": (1, 1.0, None),
        "plain": (1, 1.0, 0.0),
    }


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("param_groups.slow_backbone.parameters=[linear_relu_stak]", "names linear_relu_stak, which matches no parameter"),
        ("param_groups.slow_backbone.lr_factor=-1", "lr_factor=-1: it must be a number of at least 0"),
        ("param_groups=layer_decay", "MLP does not say what its layers are; model=pretrained does"),
        ("param_groups=[slow]", f"There are {', '.join(choices('param_groups'))}"),
        ("++param_groups.slow_backbone.weight_decay=0.1 ++optimizer={_target_:torch.optim.Rprop,_partial_:true}",
         "Rprop knows none"),
    ],
)  # fmt: skip
def test_groups_that_cannot_be_are_said_before_a_step(tmp_path, typed, words):
    with pytest.raises(UserError, match=words):
        fit(tmp_path, "param_groups=slow_backbone", *typed.split())


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_muon_takes_groups_and_its_state_is_loaded():
    net = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3))
    rules = {"slow": ParamGroup(["0", "1"], lr_factor=0.1)}

    def steps(net, count):
        optimizer = make_optimizer(partial(MuonAdamW, lr=0.01), net, 3, rules)
        for _ in range(count):
            optimizer.zero_grad()
            net(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()
        return optimizer

    optimizer = steps(net, 2)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates == pytest.approx({"slow-muon": 0.001, "slow-adamw": 0.001, "others-adamw": 0.01})
    again = steps(net, 0)
    again.load_state_dict(optimizer.state_dict())
    first, second = (one.state_dict()["state"] for one in (optimizer, again))
    assert first.keys() == second.keys()
    assert len(first) == 6

"""Steps that are replayed as CUDA graphs give the weights of steps that are taken one by one, bit for bit."""

import json

import pytest
import torch
from torch import nn

from experiments.learning.cuda_graphs import StepGraphs
from experiments.nets import MLP
from tests.gpu.test_training import EVERYTHING, NETS, assert_equal, weights

LISTS = ("deterministic=true", "steps_per_execution=16")


@pytest.fixture(autouse=True)
def other_algorithms_afterwards():
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def replayed(monkeypatch):
    """How many steps were replayed, by run."""
    steps = []
    replay = StepGraphs.replay

    def counting(self, batches, rates):
        steps.append(len(batches))
        return replay(self, batches, rates)

    monkeypatch.setattr(StepGraphs, "replay", counting)
    return steps


def assert_same_with_and_without(run, replayed, *overrides):
    with_graphs, first = run(*LISTS, "cuda_graphs=auto", *overrides, name="graphs")
    assert sum(replayed) > 10
    count = len(replayed)
    without, second = run(*LISTS, "cuda_graphs=false", *overrides, name="none")
    assert len(replayed) == count
    assert_equal(weights(with_graphs), weights(without))
    assert {key: first[key] for key in first if "/" in key} == {key: second[key] for key in second if "/" in key}


@pytest.mark.parametrize("net", NETS)
def test_every_network_with_chance_and_averages(run, replayed, net):
    assert_same_with_and_without(run, replayed, f"model={net}", *EVERYTHING)


@pytest.mark.parametrize(
    "options",
    [
        ("model=cnn", "trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1"),
        ("model=mlp", "optimizer=sgd", "scheduler=cosine", "trainer.log_every_n_steps=7"),
        ("model=resnet", "optimizer=adamw", "scheduler=step", "channels_last=true", "param_groups=no_decay"),
        ("model=resnet", "callbacks=[default,freeze]", "callbacks.freeze.parameters=[input_layer]",
         "callbacks.freeze.until=2", "trainer.max_epochs=4"),
        ("model=mlp", "loss=weighted_cross_entropy", "trainer.max_steps=40"),
    ],
    ids=lambda options: ",".join(options[:2]),
)  # fmt: skip
def test_optimizers_schedules_precisions_and_what_thaws(run, replayed, options):
    assert_same_with_and_without(run, replayed, *options)


def test_what_is_logged_is_there_of_every_step(run):
    rows = []
    for graphs in ("true", "false"):
        options = (*LISTS, f"cuda_graphs={graphs}", "model=mlp", "logger=csv", "trainer.log_every_n_steps=5")
        folder, _ = run(*options, name=graphs)
        found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        rows.append(
            {
                (row["step"], name): value
                for row in found
                for name, value in row["metrics"].items()
                if not name.startswith("throughput/") and not name.endswith("_seconds")
            }
        )
    assert rows[0] == rows[1]
    steps = [step for step, name in rows[0] if name == "train/loss_step"]
    assert steps == list(range(4, max(steps) + 1, 5))
    assert [step for step, name in rows[0] if name == "gradient_norm"] == steps


class Reads(MLP):
    def forward(self, images):
        return super().forward(images) * (1.0 if images.sum().item() > 0 else 2.0)


class Draws(MLP):
    def forward(self, images):
        return super().forward(images) * float(torch.rand(()))


class Counts(MLP):
    steps = 0

    def forward(self, images):
        self.steps += 1
        return super().forward(images) / self.steps


class Waits(MLP):
    def forward(self, images):
        torch.cuda.synchronize()
        return nn.functional.dropout(super().forward(images), 0.1, self.training)


@pytest.mark.parametrize(
    ("net", "why"),
    [(Reads, "reads values"), (Draws, "draws random numbers"), (Counts, "changes its own attributes"), (Waits, "")],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_a_step_that_is_not_always_the_same_is_not_replayed(run, replayed, caplog, monkeypatch, net, why):
    monkeypatch.setattr("experiments.nets.MLP", net)
    caplog.set_level("INFO")
    first, _ = run(*LISTS, "cuda_graphs=true", "model=mlp", name="first")
    assert not replayed
    (said,) = [text for text in caplog.messages if "without CUDA graphs" in text]
    assert why in said
    second, _ = run(*LISTS, "cuda_graphs=false", "model=mlp", name="second")
    assert_equal(weights(first), weights(second))


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("scheduler.cycle_momentum=true", "the schedule changes more than the learning rate"),
        ("optimizer=rmsprop", "RMSprop is not fused"),
    ],
)
def test_schedules_of_momentum_and_other_optimizers_are_not_replayed(run, replayed, caplog, option, why):
    caplog.set_level("INFO")
    run(*LISTS, "model=mlp", option)
    assert not replayed
    assert why in caplog.text


def test_a_network_of_ones_own_is_replayed_when_told_so(run, replayed, caplog, monkeypatch):
    class Own(MLP):
        pass

    Own.__module__ = "own_net"
    monkeypatch.setattr("experiments.nets.MLP", Own)
    caplog.set_level("INFO")
    run(*LISTS, "model=mlp", name="first")
    assert not replayed
    assert "Own: with cuda_graphs=true it trains faster" in caplog.text
    run(*LISTS, "model=mlp", "cuda_graphs=true", name="second")
    assert replayed

"""What is replayed, and when, on the CPU: a stand-in takes the step again where a GPU would replay its graph.

tests/gpu has the graphs themselves.
"""

from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch

import experiments
from experiments.config import conf_files
from experiments.learning import cuda_graphs, steps
from experiments.learning.cuda_graphs import StepGraphs
from experiments.training.build import build
from experiments.training.run import train
from experiments.training.steps_per_execution import own_classes

SHORT = ("trainer.accelerator=cpu", "trainer.max_epochs=2", "logger=none", "callbacks=minimal", "test=false",
         "model.net.hidden_features=[16]")  # fmt: skip


@pytest.fixture
def replays(monkeypatch):
    """Let StepGraphs work on the CPU; returns how many steps each replay took."""
    taken = []

    def captured(self, batches, pool):
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        groups, count = self.optimizer.param_groups, len(batches)
        rates = torch.zeros(count, len(groups))
        losses, logits = torch.zeros(count), torch.zeros(len(images), 10)

        def replay():
            taken.append(count)
            before, results = [group["lr"] for group in groups], []
            for some, labelled, row in zip(images.chunk(count), labels.chunk(count), rates, strict=True):
                for group, rate in zip(groups, row, strict=True):
                    group["lr"] = rate.item()
                results.append(self.take((some, labelled)))
            for group, rate in zip(groups, before, strict=True):
                group["lr"] = rate
            losses.copy_(torch.stack([loss for loss, _ in results]))
            logits.copy_(torch.cat([outputs for _, outputs in results]))

        return cuda_graphs._Graph(SimpleNamespace(replay=replay), images, labels, rates, losses, logits)

    def step_graphs(module):
        optimizer = module.optimizers(use_pl_optimizer=False)
        take = partial(steps.take_step, module, optimizer)
        return StepGraphs([module.net, module.loss], optimizer, take, lambda: None, module.cuda_graphs)

    stream = SimpleNamespace(wait_stream=lambda other: None)
    generator = SimpleNamespace(clone_state=lambda: None)
    for name, stand_in in {
        "Stream": lambda: stream, "current_stream": lambda: stream, "stream": lambda other: nullcontext(),
        "get_sync_debug_mode": int, "set_sync_debug_mode": lambda mode: None, "graph_pool_handle": lambda: None,
        "reset_peak_memory_stats": lambda: None,
        "memory_allocated": int, "max_memory_allocated": int, "memory_reserved": int, "mem_get_info": lambda: (1, 1),
        "default_generators": {None: generator},
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(StepGraphs, "_captured", captured)
    monkeypatch.setattr(steps, "step_graphs", step_graphs)
    return taken


def trained(folder, monkeypatch, graphs, *overrides):
    monkeypatch.setattr("experiments.training.steps_per_execution.uses_cuda_graphs", lambda *_: graphs)
    train(experiments.compose(*SHORT, *overrides, f"run_dir={folder}"))
    return torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize(
    ("options", "lengths"),
    [
        (("steps_per_execution=12",), {8, 1}),
        (("steps_per_execution=6", "optimizer=sgd", "trainer.gradient_clip_val=1"), {1}),
        (("steps_per_execution=16", "scheduler=cosine", "trainer.log_every_n_steps=7"), {1}),
        (("steps_per_execution=16", "callbacks=[minimal,ema]", "param_groups=no_decay"), {1}),
        (("steps_per_execution=16", "callbacks=[minimal,freeze]", "callbacks.freeze.parameters=[backbone]",
          "callbacks.freeze.until=1"), {8, 1}),
    ],
    ids=lambda options: ",".join(map(str, options)),
)  # fmt: skip
def test_replayed_steps_give_the_weights_of_single_ones(tmp_path, monkeypatch, replays, options, lengths):
    replayed = trained(tmp_path / "replayed", monkeypatch, True, *options)
    assert set(replays) == lengths
    replays.clear()
    single = trained(tmp_path / "single", monkeypatch, False, *options)
    assert not replays
    assert [name for name, value in replayed.items() if not value.equal(single[name])] == []


def test_a_step_that_draws_on_the_cpu_is_not_replayed(tmp_path, monkeypatch, replays, caplog):
    caplog.set_level("INFO")
    trained(tmp_path, monkeypatch, True, "steps_per_execution=16", "model.net.dropout=0.2")
    assert not replays
    assert caplog.text.count("without CUDA graphs: the step draws random numbers on the CPU") == 1


def test_every_network_and_loss_of_ours_says_that_its_steps_are_the_same(tmp_path):
    losses = [f"loss={name}" for name in conf_files.choices("loss")]
    models = [f"model={name}" for name in conf_files.choices("model") if name not in ("custom", "pretrained")]
    for choice in (*losses, *models):
        config = experiments.compose("trainer.accelerator=cpu", choice, f"run_dir={tmp_path}")
        assert own_classes(build(config).classifier) == set(), choice


def test_graphs_that_are_asked_for_on_a_cpu_are_told_and_no_mistake(tmp_path, caplog):
    caplog.set_level("INFO")
    build(experiments.compose("trainer.accelerator=cpu", "cuda_graphs=true", f"run_dir={tmp_path}"))
    assert "cuda_graphs=true: there are none, since this run trains on cpu" in caplog.text

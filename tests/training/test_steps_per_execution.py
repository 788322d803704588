"""Lists of batches: the same run as step by step, bit for bit, and refused where that cannot be."""

import platform
import re
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint, TQDMProgressBar
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import experiments
from experiments.callbacks import FiniteLoss
from experiments.data import Digits
from experiments.errors import UserError
from experiments.learning.classifier import Classifier
from experiments.nets import MLP
from experiments.training.build import build
from experiments.training.run import train
from experiments.training.steps_per_execution import _watches_steps, reasons_for_single_steps

QUICK = ("trainer.accelerator=cpu", "trainer.max_epochs=3", "model.net.hidden_features=[16]", "data.limit=400")

WITHOUT_PICTURES = [
    f"callbacks.{name}=null" for name in ("model_summary", "graph", "confusion", "pr_curves", "mistakes")
]


def config_of(folder, *overrides):
    return experiments.compose(*QUICK, f"run_dir={folder}", "callbacks.progress=null", *overrides)


def run(folder: Path, *overrides: str):
    """A fitted experiment, and every scalar that TensorBoard shows of it."""
    config = config_of(folder, "trainer.log_every_n_steps=5", *WITHOUT_PICTURES, *overrides)
    seed_everything(0, verbose=False)
    experiment = build(config)
    experiment.trainer.fit(experiment.classifier, experiment.data)
    experiment.trainer.logger.finalize("success")
    (events,) = folder.rglob("events.*")
    reader = EventAccumulator(str(events), size_guidance={"scalars": 0}).Reload()
    scalars = {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
    return experiment, scalars


TIMES = {"epoch_seconds", "throughput/images_per_second", "throughput/steps_per_second", "throughput/data_share"}
CASES = {
    "dropout, one cycle, clipped": ["model.net.dropout=0.5", "trainer.gradient_clip_val=0.1"],
    "cosine, stopped, augmented": ["scheduler=cosine", "trainer.max_steps=17", "augment=[affine,mixup]"],
    "plateau, averaged": ["scheduler=plateau", "callbacks=[default,ema]"],
    "epochs, balanced, clipped by value": [
        "scheduler=step",
        "optimizer=sgd",
        "data.balanced=true",
        "trainer.gradient_clip_val=0.01",
        "trainer.gradient_clip_algorithm=value",
    ],
    "bfloat16": ["trainer.precision=bf16-mixed"],
}


@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES.keys())
def test_a_run_in_lists_of_batches_equals_one_step_by_step(tmp_path, overrides):
    short = ("trainer.max_epochs=2", *overrides)
    one, their_scalars = run(tmp_path / "one", *short, "steps_per_execution=1")
    several, scalars = run(tmp_path / "several", *short, "steps_per_execution=5")
    assert several.trainer.num_training_batches < one.trainer.num_training_batches
    for name, value in one.classifier.net.state_dict().items():
        assert value.equal(several.classifier.net.state_dict()[name]), name
    assert one.trainer.global_step == several.trainer.global_step
    assert scalars["train/loss_step"], "nothing was logged by step"
    assert scalars.keys() == their_scalars.keys()
    for tag in their_scalars.keys() - TIMES:
        values = their_scalars[tag]
        assert scalars[tag] == [(step, pytest.approx(value)) for step, value in values], tag


def test_max_steps_ends_a_run_there_and_not_before(tmp_path):
    experiment, _ = run(tmp_path, "trainer.max_steps=30", "steps_per_execution=1")
    assert experiment.trainer.global_step == 30


@pytest.mark.parametrize("several", ["auto", "1"])
def test_a_run_that_ends_inside_an_epoch_validates_and_keeps_what_it_learned(tmp_path, several):
    few = ("trainer.max_steps=5", f"steps_per_execution={several}", "test=true")
    summary = train(config_of(tmp_path, *WITHOUT_PICTURES, *few))
    assert summary["steps"] == 5
    best = torch.load(tmp_path / summary["best_checkpoint"], weights_only=True)
    assert best["global_step"] == 5
    assert {"val/accuracy", "test/accuracy"} <= {name for name, value in summary.items() if value is not None}


def chosen(folder, *overrides: str) -> int:
    """How many steps an execution is, once the data are known."""
    experiment = build(config_of(folder, "callbacks.model_summary=null", *overrides))
    if experiment.data.steps_per_execution is None:
        experiment.data.setup("fit")
        experiment.data.train_dataloader()
    return experiment.data.steps_per_execution


def test_auto_leaves_an_epoch_at_least_four_executions(tmp_path):
    assert chosen(tmp_path, "data.batch_size=10") == 10  # 40 batches
    assert chosen(tmp_path, "data.batch_size=200") == 1  # 2 batches
    assert chosen(tmp_path, "data.batch_size=1") == 32  # 400 batches


class Watcher(Callback):
    """A callback of a user's own, which counts on being called for every step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, *_):
        self.steps.append(trainer.global_step)


class EpochWatcher(Callback):
    """One that does not mind."""

    def on_train_epoch_end(self, *_):
        pass


def made_of_functions():
    return LambdaCallback(on_train_batch_end=print)


LIGHTNINGS = "+callbacks.own={_target_:lightning.pytorch.callbacks."
HERE = "tests.training.test_steps_per_execution"
WATCHER = f"+callbacks.own._target_={HERE}.Watcher"
SINGLE = {
    "trainer.accumulate_grad_batches=2": "trainer.accumulate_grad_batches",
    "trainer.limit_train_batches=3": "trainer.limit_train_batches",
    "trainer.limit_train_batches=1": "trainer.limit_train_batches",
    "trainer.val_check_interval=2": "trainer.val_check_interval",
    "trainer.profiler=simple": "trainer.profiler",
    WATCHER: "the callback Watcher",
    "+callbacks.best_checkpoint.every_n_train_steps=3": "the callback ModelCheckpoint",
    "callbacks=[default,histograms]": "the callback Histograms",
    LIGHTNINGS + "GradientAccumulationScheduler,scheduling:{0:4}}": "the callback GradientAccumulationScheduler",
    LIGHTNINGS + "StochasticWeightAveraging,swa_lrs:0.01}": "the callback StochasticWeightAveraging",
    f"+callbacks.own._target_={HERE}.made_of_functions": "the callback LambdaCallback",
}


@pytest.mark.parametrize(("override", "reason"), SINGLE.items())
def test_what_needs_single_steps_gets_them(tmp_path, override, reason):
    assert chosen(tmp_path, override) == 1
    with pytest.raises(UserError, match=f"steps_per_execution=4 does not go with .*{re.escape(reason)}"):
        chosen(tmp_path, override, "steps_per_execution=4")


class WatchingBar(TQDMProgressBar):
    """A kind that does not mind, made to watch."""

    on_train_batch_end = Watcher.on_train_batch_end


class OwnCheckpoint(ModelCheckpoint):
    """One that adds nothing for steps."""


def test_a_kind_that_does_not_mind_does_where_it_was_made_to_watch(tmp_path):
    own = f"+callbacks.own._target_={HERE}."
    few = ("data.batch_size=10", "callbacks.progress=null", "trainer.enable_progress_bar=true")
    assert chosen(tmp_path, own + "WatchingBar", *few) == 1
    assert chosen(tmp_path, own + "OwnCheckpoint", *few) == 10


def test_a_callback_of_ones_own_sees_every_step_wherever_its_module_lies(tmp_path, monkeypatch):
    monkeypatch.setattr(Watcher, "__module__", "experiments.callbacks.mine")
    assert _watches_steps(Watcher())
    assert not _watches_steps(FiniteLoss())

    class Stricter(FiniteLoss):  # what its parent says of itself does not hold for it
        def on_train_batch_end(self, *_):
            pass

    assert _watches_steps(Stricter())


def test_a_callback_that_looks_at_epochs_alone_does_not_slow_a_run_down(tmp_path):
    assert (
        chosen(
            tmp_path,
            f"+callbacks.own._target_={HERE}.EpochWatcher",
            "data.batch_size=10",
        )
        == 10
    )


def test_an_optimizer_that_evaluates_the_loss_by_itself_gets_single_steps(tmp_path):
    data, module = Digits(), Classifier(MLP(), nn.CrossEntropyLoss(), partial(torch.optim.LBFGS, lr=0.1), 10)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    assert reasons_for_single_steps(data, module, trainer) == ["an optimizer that needs a closure"]


@pytest.mark.parametrize("wrong", ["0", "-3", "often", "2.5"])
def test_a_number_that_is_none_is_refused(tmp_path, wrong):
    with pytest.raises(UserError, match=f"steps_per_execution={wrong}"):
        chosen(tmp_path, f"steps_per_execution={wrong}")


def test_a_loss_that_is_lost_inside_a_list_is_found_with_its_step(tmp_path):
    with pytest.raises(UserError, match="became nan in epoch 1, step 1 "):
        run(tmp_path, "optimizer=sgd", "optimizer.lr=1e30", "scheduler=constant", "steps_per_execution=3")


def test_the_throughput_is_in_the_summary_and_in_tensorboard(tmp_path):
    summary = train(config_of(tmp_path, *WITHOUT_PICTURES))
    assert summary["images_per_second"] == pytest.approx(400 / 13 * summary["steps_per_second"], rel=1e-3)
    assert 0 < summary["data_share"] < 1
    assert summary["steps"] / summary["steps_per_second"] < summary["train_seconds"]


PROCESS = """
import resource, sys, torch
from pathlib import Path
from experiments.data import Digits
from experiments.data.memory import free_memory
from experiments.training.process import prepare_process

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

class Large(Digits):
    def read(self, split):
        return torch.ones(20_000, 1, 100, 100, dtype=torch.uint8), torch.arange(20_000) % 10  # 200 MB

prepare_process()
torch.set_num_threads(1)
data, before = Large(), resident()
data.setup("fit")
print("split", resident() - before)

del data
free_memory()
before = resident()
torch.ones(50_000_000)  # 200 MB
print("kept", resident() - before)
free_memory()
print("left", resident() - before)

for step in range(8):
    torch.ones(16_000_000)  # 64 MB, freed at once
    if step == 3:  # the first ones find their place
        before = faults()
print("cleared", faults() - before)

weight = torch.nn.Parameter(torch.ones(3))
weight.grad = torch.ones(3)
optimizer = torch.optim.Adam([weight])
optimizer.step()
opened = []
sys.addaudithook(lambda event, details: opened.append(details) if event == "ctypes.dlopen" else None)
optimizer.step()
print("opened", len(opened))
"""


def test_a_prepared_process_wastes_neither_memory_nor_time(processes, tmp_path):
    program, output = tmp_path / "program.py", tmp_path / "output.txt"
    program.write_text(PROCESS)
    process = processes.start(tmp_path, output, program)
    assert process.wait() == 0, process.printed()
    found = {name: int(number) for name, number in (line.split() for line in process.printed().splitlines())}
    if platform.libc_ver()[0] == "glibc":  # it is glibc that gives memory back; pages are of 4 KiB
        assert 45_000 < found["split"] < 70_000  # what was split lies in memory once; twice would be 98,000
        assert found["kept"] > 40_000
        assert found["left"] < found["kept"] / 4  # what a process keeps counts as free
        assert found["cleared"] < 1000  # what is freed is there for the next step; anew 15,625 each time
    if not torch.cuda.is_available():
        assert found["opened"] == 0  # a step does not search for a driver that is not there


def test_a_run_that_now_needs_single_steps_does_not_take_over_lists():
    data, state = Digits(), {"steps_per_execution": 10}
    data.load_state_dict(state)
    assert data.steps_per_execution == 1
    data.steps_per_execution = None  # auto
    data.load_state_dict(state)
    assert data.steps_per_execution == 10


class Slow(Callback):
    """Takes its time before training, and in its first step."""

    handles_batch_lists = True

    def on_validation_batch_start(self, trainer, *_):
        if trainer.sanity_checking:
            time.sleep(0.5)

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 0:
            time.sleep(0.2)


def test_a_validation_before_training_does_not_count_as_part_of_it(tmp_path):
    slow = f"+callbacks.own._target_={HERE}.Slow"
    short = ("trainer.max_epochs=1", "trainer.num_sanity_val_steps=1", "test=false", *WITHOUT_PICTURES)
    summary = train(config_of(tmp_path, *short, slow))
    assert summary["images_per_second"] < 400 / 0.2

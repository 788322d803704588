"""What may rightly be typed goes through: it composes, no check refuses it, and it builds."""

import numbers
import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Protocol, SupportsFloat

import pytest

import experiments
from experiments.config.checks.check import CheckConfig, Validated, validated
from experiments.config.checks.signatures import fits
from experiments.errors import UserError
from experiments.training.build import build
from experiments.training.run import train
from tests.packing import packed

FAST = ("trainer.accelerator=cpu", "logger=none", "debug=fast")
NARROW = ("model.net.hidden_features=[16]",)
SCHEDULES = "torch.optim.lr_scheduler"
ALONE = ("trainer.barebones", "trainer.fast_dev_run", "trainer.max_steps")
VALID = [
    ["+width=64", "model.net.hidden_features=[${width},${width}]"],
    ["trainer.profiler={_target_:lightning.pytorch.profilers.PyTorchProfiler,record_shapes:true}"],
    ["trainer.profiler=advanced"],
    ["trainer.val_check_interval={minutes:1}"],
    ['trainer.val_check_interval="00:00:01:00"'],
    ["trainer.val_check_interval=0.5"],
    ["trainer.max_time={minutes:1}"],
    ['trainer.max_time="00:00:01:00"'],
    ["trainer.devices=auto"],
    ["data.batch_size=8", "model.net.norm=batch"],
    ["trainer.precision=32"],
    ["trainer.precision=bf16-mixed"],
    ["trainer.limit_train_batches=1"],
    ["trainer.num_sanity_val_steps=-1"],
    ["trainer.reload_dataloaders_every_n_epochs=1"],
    ["trainer.fast_dev_run=true"],
    ["trainer.fast_dev_run=3"],
    ["trainer.barebones=true", "callbacks=none"],
    ["trainer.enable_progress_bar=false"],
    ["trainer.inference_mode=false"],
    ["trainer.plugins=[{_target_:lightning.pytorch.plugins.environments.LightningEnvironment}]"],
    ["trainer=cpu"],
    ["+trainer.max_epochs=2"],
    ["optimizer._target_=torch.optim.RAdam"],
    ["optimizer._target_=torch.optim.Adadelta", "+optimizer.rho=0.8"],
    ["optimizer={_target_:torch.optim.SGD,_partial_:true,lr:0.1}"],
    ["optimizer=sgd", "model=mlp"],
    ["loss._target_=torch.nn.MSELoss"],
    ["loss={_target_:torch.nn.CrossEntropyLoss,label_smoothing:0.2}"],
    [f"scheduler={{_target_:{SCHEDULES}.CosineAnnealingLR,T_max:10}}"],
    [f"scheduler={{_target_:{SCHEDULES}.MultiStepLR,milestones:[1,2]}}"],
    [f"scheduler={{_target_:{SCHEDULES}.CosineAnnealingWarmRestarts,T_0:2}}"],
    [f"scheduler={{_target_:{SCHEDULES}.CyclicLR,base_lr:1e-4,cycle_momentum:false}}"],
    [f"scheduler._target_={SCHEDULES}.LinearLR"],
    [f"scheduler._target_={SCHEDULES}.PolynomialLR"],
    [f"scheduler._target_={SCHEDULES}.ExponentialLR", "+scheduler.gamma=0.9"],
    ["+scheduler.total_steps=2", "trainer.max_steps=2"],
    ["scheduler=none"],
    ["scheduler=plateau", "monitor=val/loss", "mode=min"],
    ["callbacks=none"],
    ["callbacks=[default,early_stopping,ema]"],
    ["callbacks.best_checkpoint=null", "trainer.limit_val_batches=0"],
    ["metrics=f1", "monitor=val/f1"],
    ["callbacks=[]"],
    ["logger=[]"],
    ["+callbacks.bar._target_=lightning.pytorch.callbacks.RichProgressBar"],
    ["+callbacks.bar._target_=lightning.pytorch.callbacks.TQDMProgressBar"],
    ["model.net.num_classes=12", "metrics=[f1,top3]"],
    ["trainer.profiler._target_=lightning.pytorch.profilers.SimpleProfiler"],
    ["trainer.max_time={_target_:datetime.timedelta,hours:1}"],
    ["trainer.gradient_clip_val=0"],
    ["trainer.log_every_n_steps=0"],
    ["trainer.plugins={_target_:lightning.pytorch.plugins.environments.LightningEnvironment}"],
    ["optimizer._target_=torch.optim.Adafactor"],
    ["optimizer._target_=torch.optim.SGD", "+optimizer.momentum=0.9", "+optimizer.nesterov=true"],
    ["optimizer=sgd", f"scheduler={{_target_:{SCHEDULES}.CyclicLR,base_lr:0.001,max_lr:0.1,mode:triangular2}}"],
    [f"scheduler={{_target_:{SCHEDULES}.ReduceLROnPlateau,mode:max,min_lr:[1e-6]}}"],
    ["model=mlp", "+loss.weight={_target_:torch.tensor,data:[1.,1.,1.,1.,1.,1.,1.,1.,1.,2.]}"],
    ["loss._target_=torch.nn.MultiMarginLoss"],
    ["debug=limit"],
    ["debug=overfit", "trainer.max_epochs=2", "scheduler=null"],
    ["logger=many_loggers"],
    ["model=custom", "model.net._target_=own_words.Net", "+model.net.cls_token=abc"],
]


@pytest.mark.parametrize(
    "typed",
    ["--cfg job", "-c job -p optimizer", "-c hydra", "--cfg job --resolve", "--info defaults", "-i", "--help", "-h",
     "--version", "-c job optimizer=sgd", "-cn train -c job", "--config-name=train --cfg job",
     "model=cnn -c job optimizer=sgd", "model=cnn -c=job"],
)  # fmt: skip
def test_hydras_own_options_and_their_values_go_through(script_here, tmp_path, monkeypatch, typed):
    monkeypatch.chdir(tmp_path)
    code, output, errors = script_here("train", *typed.split())
    assert (code, errors) == (0, "")
    assert output


class AnyProtocol(Protocol):
    def __float__(self) -> float: ...


@pytest.mark.parametrize("annotation", [object, Hashable, numbers.Number, SupportsFloat, AnyProtocol, float | None])
def test_a_number_fits_whatever_a_signature_may_call_it(annotation):
    assert fits(5, annotation)
    assert not fits(5, Path)
    assert not fits("5", Sequence[int])


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_words.py").write_text(
        "from torch import nn\nclass Net(nn.Sequential):\n"
        "    def __init__(self, num_classes, cls_token):\n"
        "        super().__init__(nn.Flatten(), nn.LazyLinear(num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def sections(typed: list[str]) -> str:
    """What a command gives values to: a part of the config, or a key of the trainer's that goes with its others."""
    keys = [override.lstrip("+").partition("=")[0] for override in typed]
    together = [key.startswith("trainer.") and key not in ALONE for key in keys]
    return " ".join(key if goes else key.partition(".")[0] for key, goes in zip(keys, together, strict=True))


COMMANDS = [[row[1] for row in group] for group in packed([(sections(typed), typed) for typed in VALID])]


@pytest.mark.parametrize("several", COMMANDS, ids=str)
def test_it_trains_and_tests(here, several):
    given = [*FAST, *(override for typed in several for override in typed)]
    if not any(override.startswith("model=") for override in given):
        given = [*NARROW, *given]  # which one of the commands may overrule
    config = experiments.compose(*given, f"run_dir={here / 'run'}")
    assert train(config, given)["status"] == "finished"


@pytest.mark.parametrize("strategy", ["FSDPStrategy", "DDPStrategy", "SingleDeviceStrategy"])
def test_what_a_class_hands_on_is_not_judged(strategy):
    more = "device:cpu" if strategy == "SingleDeviceStrategy" else "find_unused_parameters:true"
    typed = f"trainer.strategy={{_target_:lightning.pytorch.strategies.{strategy},{more}}}"
    assert isinstance(validated(experiments.compose(typed), [typed]), Validated)


def test_an_accelerator_that_a_plugin_registers_is_lightnings_to_judge():
    assert isinstance(validated(experiments.compose("trainer.accelerator=hpu")), Validated)


def test_what_is_validated_is_not_looked_at_again():
    config = validated(experiments.compose())
    config["data"]["batch_size"] = 0
    assert validated(config) is config


# ---- what is typed rules


@pytest.mark.parametrize(("model", "optimizer"), [("resnet", "sgd"), ("attention", "adamw"), ("mlp", "rmsprop")])
def test_a_networks_own_rate_belongs_to_the_optimizer_it_was_chosen_with(model, optimizer):
    rates = [
        experiments.compose(f"model={one}", f"optimizer={optimizer}")["optimizer"]["lr"] for one in (model, "cnn")
    ]
    assert rates[0] == rates[1]
    assert experiments.compose("model=resnet")["optimizer"]["lr"] == 0.03
    assert experiments.compose("model=attention")["optimizer"]["lr"] == 0.005
    assert experiments.compose("model=resnet", "optimizer.lr=0.2")["optimizer"]["lr"] == 0.2


def test_a_rate_that_a_notebook_changes_is_the_rate_of_the_schedule(here):
    config = experiments.compose(*FAST, "callbacks=none", f"run_dir={here}")
    config["optimizer"]["lr"] = 0.01
    made = build(config)
    made.trainer.fit(made.classifier, made.data)
    assert made.trainer.lr_scheduler_configs[0].scheduler._schedule_phases
    assert made.trainer.optimizers[0].param_groups[0]["max_lr"] == 0.01


def test_total_steps_that_were_typed_are_the_schedules_and_must_reach_to_the_end(here):
    typed = [*FAST, "callbacks=none", f"run_dir={here / 'run'}", "+scheduler.total_steps=50"]
    made = build(experiments.compose(*typed))
    made.trainer.fit(made.classifier, made.data)
    assert made.trainer.lr_scheduler_configs[0].scheduler.total_steps == 50
    for too_short in (["+scheduler.total_steps=1"], ["+scheduler.epochs=1", "+scheduler.steps_per_epoch=1"]):
        with pytest.raises(UserError, match=r"scheduler.total_steps=1: the run takes 2 steps.*trainer.max_steps=1"):
            train(experiments.compose(*FAST, *too_short, f"run_dir={here / 'short'}"))


# ---- monitor and mode


def test_everything_follows_what_is_monitored(here, caplog):
    caplog.set_level("INFO")
    typed = [*FAST[:2], *NARROW, "callbacks=minimal", "trainer.max_epochs=3", "metrics=f1", "monitor=val/f1"]
    summary = train(experiments.compose(*typed, f"run_dir={here / 'run'}"), typed)
    assert summary["val/f1"] is not None
    assert summary["val/accuracy"] is not None
    said = caplog.text
    assert f"val/f1 {summary['val/f1']:.4f}" in said
    lines = [line for line in said.splitlines() if "epoch " in line]
    assert all(" val/f1 " in line for line in lines)
    assert f"best {summary['val/f1']:.4f}" in lines[-1]


def test_less_is_better_where_mode_says_so(here):
    typed = [*FAST[:2], *NARROW, "trainer.max_epochs=3", "monitor=val/loss", "mode=min"]
    config = experiments.compose(*typed, "callbacks=[minimal,early_stopping]", "scheduler=plateau", f"run_dir={here}")
    made = build(config)
    watched = {
        type(one).__name__: (one.monitor, one.mode)
        for one in made.trainer.callbacks
        if type(one).__name__ in ("ModelCheckpoint", "EarlyStopping")
    }
    assert set(watched.values()) == {("val/loss", "min")}
    made.trainer.fit(made.classifier, made.data)
    plan = made.trainer.lr_scheduler_configs[0]
    assert (plan.monitor, plan.scheduler.mode) == ("val/loss", "min")


MODULE = """
import torch
from lightning import LightningModule
from torch import nn

class Own(LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/error", (self.layers(batch[0]).argmax(1) != batch[1]).float().mean())

    def test_step(self, batch, batch_idx):
        self.log("test/error", (self.layers(batch[0]).argmax(1) != batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
"""


def test_a_lightning_module_of_ones_own_without_a_network_and_with_its_own_metric(here):
    (here / "own_modules.py").write_text(MODULE)
    own = ["model=custom", "model._target_=own_modules.Own", "trainer.max_epochs=2", *FAST[:2]]
    with pytest.raises(UserError, match="monitor=val/accuracy: Own does not log it.*Type monitor=val/error"):
        train(experiments.compose(*own, f"run_dir={here / 'first'}"), own)
    own += ["monitor=val/error", "mode=min"]
    summary = train(experiments.compose(*own, f"run_dir={here / 'second'}"), own)
    assert summary["status"] == "finished"
    assert summary["test/error"] < 0.9
    assert summary["val/error"] is not None


# ---- check=true finds what the run would


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["trainer.limit_test_batches=0"], "trainer.limit_test_batches=0: it leaves nothing to test: add test=false"),
        (["trainer.limit_train_batches=0"], "trainer.limit_train_batches=0: it trains nothing"),
        (["scheduler=plateau", "trainer.limit_val_batches=0", "callbacks.best_checkpoint=null"], "scheduler=none"),
        (["~model.net"], "model.net._target_: it is missing"),
        (["model=custom", "model.net._target_=own_narrow.Narrow"], "must give logits (batch, 10)"),
        (
            ["+metrics.matrix._target_=torchmetrics.classification.MulticlassConfusionMatrix",
             "+metrics.matrix.num_classes=10"],
            "metrics.matrix: MulticlassConfusionMatrix gives no single number",
        ),
        (
            ["+metrics.each._target_=torchmetrics.classification.MulticlassRecall", "+metrics.each.average=none"],
            "metrics.each: MulticlassRecall gives no single number",
        ),
        (["loss._target_=torch.nn.MultiLabelMarginLoss"], "loss: MultiLabelMarginLoss does not go with outputs"),
        (["+callbacks.find._target_=lightning.pytorch.callbacks.LearningRateFinder"], "scripts/find_lr.py"),
    ],
)  # fmt: skip
def test_check_finds_whatever_the_run_would(here, typed, words):
    (here / "own_narrow.py").write_text(
        "from torch import nn\nclass Narrow(nn.Sequential):\n"
        "    def __init__(self):\n        super().__init__(nn.Flatten(), nn.Linear(784, 3))\n"
    )
    with pytest.raises(UserError) as caught:
        train(experiments.compose("check=true", "trainer.accelerator=cpu", "logger=none", *typed), typed)
    assert words in str(caught.value)
    assert set(os.listdir(here)) <= {"own_words.py", "own_narrow.py", "__pycache__"}


def test_a_mistake_of_a_class_ends_the_command_before_there_is_a_directory(here, script_here):
    code, _, errors = script_here("train", "+model.net.width=8", *FAST[:2])
    assert code == 2
    assert "model.net.width=8: it is no argument of experiments.nets.MLP" in errors
    assert not (here / "runs").exists()
    assert CheckConfig.__doc__

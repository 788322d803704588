"""What is frozen stays as it is, statistics included, until its epoch; then it is trained."""

import pytest
import torch
from lightning.pytorch.callbacks import Callback

import experiments
from experiments.errors import UserError
from experiments.training.build import build

SMALL = ("model.net.hidden_features=[16,8]", "model.net.norm=batch", "data.limit=128", "trainer.accelerator=cpu",
         "logger=none", "callbacks.report=null", "callbacks.graph=null", "optimizer.lr=0.05", "scheduler=constant", "test=false")  # fmt: skip


class Snapshots(Callback):
    """The network's state at the start, and behind every epoch."""

    def __init__(self):
        self.states = []

    def on_train_start(self, trainer, pl_module):
        self.on_train_epoch_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        self.states.append({name: value.clone() for name, value in pl_module.net.state_dict().items()})

    def changed(self, epoch):
        """What differs behind an epoch, counted from 1, from what was before it."""
        before, after = self.states[epoch - 1 : epoch + 1]
        return {name for name in before if not before[name].equal(after[name])}


def fit(tmp_path, *overrides):
    experiment = build(experiments.compose(*SMALL, f"run_dir={tmp_path}", *overrides))
    shots = Snapshots()
    experiment.trainer.callbacks.insert(0, shots)
    experiment.trainer.fit(experiment.classifier, datamodule=experiment.data)
    return shots, experiment


HEAD = {"linear_relu_stack.6.weight", "linear_relu_stack.6.bias"}


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize(("until", "frozen_epochs"), [(1, 1), (0.5, 2), ("null", 3)])
def test_the_backbone_is_frozen_for_as_long_as_asked(tmp_path, until, frozen_epochs, steps):
    shots, experiment = fit(
        tmp_path, "callbacks=[default,freeze,ema]", "callbacks.model_summary=null", f"callbacks.freeze.until={until}",
        "trainer.max_epochs=3", f"steps_per_execution={steps}",
    )  # fmt: skip
    for epoch in range(1, 4):
        everything = set(shots.states[0])
        assert shots.changed(epoch) == (HEAD if epoch <= frozen_epochs else everything), epoch
    count = sum(parameter.numel() for parameter in experiment.classifier.parameters() if parameter.requires_grad)
    assert count == (90 if until == "null" else 12_834)
    (optimizer,) = experiment.trainer.optimizers
    assert sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"]) == 12_834


def test_a_network_thaws_in_stages(tmp_path, caplog):
    caplog.set_level("INFO")
    second = "{_target_:experiments.callbacks.Freeze,parameters:['*.0.*','*.1.*'],until:2}"
    shots, _ = fit(tmp_path, "callbacks=[default,freeze]", f"+callbacks.stem={second}", "trainer.max_epochs=3")
    assert shots.changed(1) == HEAD
    assert shots.changed(3) == set(shots.states[0])
    still = {name for name in shots.states[0] if name.startswith(("linear_relu_stack.0", "linear_relu_stack.1"))}
    assert shots.changed(2) == set(shots.states[0]) - still
    assert any(name.endswith("running_mean") for name in still)
    said = [record.getMessage() for record in caplog.records if "from here on" in record.getMessage()]
    assert said == [
        "epoch 2: from here on, backbone is trained but for what others freeze",
        "epoch 3: from here on, *.0.*, *.1.* is trained",
    ]


def test_an_end_behind_the_run_is_told(tmp_path, caplog):
    fit(tmp_path, "callbacks=[default,freeze]", "callbacks.freeze.until=2", "trainer.max_epochs=2")
    assert "backbone stays frozen: the run has 2 epochs" in caplog.text


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (
            "callbacks.freeze.parameters=[linear_relu_stak]",
            "linear_relu_stak, which matches no parameter. Did you mean linear_relu_stack",
        ),
        ("callbacks.freeze.parameters=['*']", "leaves no parameter to train"),
        ("callbacks.freeze.until=1.5", "until=1.5 must be a whole number of epochs, or a fraction"),
        ("callbacks.freeze.until=0.5 trainer.max_epochs=-1 scheduler=constant", "the run has no last epoch"),
    ],
)
def test_what_cannot_be_frozen_is_said_before_a_step(tmp_path, typed, words):
    with pytest.raises(UserError, match=words):
        fit(tmp_path, "callbacks=[default,freeze]", *typed.split())


def test_what_is_frozen_is_described(tmp_path, script_here):
    code, printed, _ = script_here("describe", "callbacks=[default,freeze]")
    assert code == 0
    assert "5,130; frozen for 1 epoch: backbone (664,576 parameters)" in printed
    where = f"hydra.run.dir={tmp_path / 'run'}"
    code, said, _ = script_here("train", "callbacks=[default,freeze]", "trainer.max_epochs=1", "data.limit=64", where)
    assert code == 0
    assert "664,576 of them frozen" in said
    assert "frozen for 1 epoch: backbone" in (tmp_path / "run" / "report.html").read_text()
    assert "frozen for 1 epoch: backbone" in (tmp_path / "run" / "summary.json").read_text()


def test_frozen_parameters_are_found_under_compilation_and_around_other_modules(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 3))
    net.compile()
    from experiments.learning.param_groups import matching_parameter_names

    assert matching_parameter_names(net, ["head"], 3, "x") == ["1.weight", "1.bias"]  # the last one that gives logits
    assert matching_parameter_names(net, ["0", "*.bias"], None, "x") == ["0.weight", "0.bias", "1.bias"]

"""What users bring along: networks, LightningModules and DataModules in files outside the package."""

import json
import textwrap

import pytest
import torch

import experiments
from experiments.errors import UserError
from experiments.inference.evaluate import evaluate
from experiments.training.build import build
from experiments.training.compilation import missing_for_compile
from experiments.training.run import fit_and_test, train

NET = """
import torch
from torch import nn

class MyNet(nn.Module):
    def __init__(self, in_channels, num_classes, width=4, repeats=2):
        super().__init__()
        self.first = nn.Conv2d(in_channels, width, 3, stride=2)
        self.again = nn.Conv2d(width, width, 3, padding=1)
        self.repeats = repeats
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x):
        x = self.first(x).relu()
        for _ in range(self.repeats):
            x = x + self.again(x).relu()
        if self.training:
            x = x * 1.01
        if x.shape[-1] > 8:
            x = nn.functional.max_pool2d(x, 2)
        return self.fc(x.mean((2, 3)))
"""

MODULE = """
import torch
from lightning import LightningModule
from torch import nn

class MyModule(LightningModule):
    def __init__(self, optimizer, num_classes, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, num_classes))
        self.make_optimizer = optimizer

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def score(self, batch, name):
        images, labels = batch
        self.log(name, (self(images).argmax(1) == labels).float().mean())

    def validation_step(self, batch, batch_idx):
        self.score(batch, "val/accuracy")

    def test_step(self, batch, batch_idx):
        self.score(batch, "test/accuracy")

    def setup(self, stage):
        self(torch.zeros(1, *self.trainer.datamodule.image_shape))

    def configure_optimizers(self):
        return self.make_optimizer(self.parameters())
"""

DATA = """
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

class MyData(LightningDataModule):
    image_shape = (3, 12, 20)
    num_classes = 4

    def __init__(self, batch_size=8):
        super().__init__()
        self.batch_size = batch_size

    def loader(self, count):
        generator = torch.Generator().manual_seed(count)
        labels = torch.arange(count) % 4
        images = torch.randn(count, 3, 12, 20, generator=generator) + labels.view(-1, 1, 1, 1)
        return DataLoader(TensorDataset(images, labels), self.batch_size)

    def train_dataloader(self):
        return self.loader(64)

    def val_dataloader(self):
        return self.loader(16)

    def test_dataloader(self):
        return self.loader(16)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder on the path with a network, a module and a data set of a user's own."""
    for name, source in (("own_net", NET), ("own_module", MODULE), ("own_data", DATA)):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def run(folder, *overrides):
    config = experiments.compose(*overrides, "callbacks=minimal", "logger=none", "trainer.accelerator=cpu",
                                 "trainer.max_epochs=1", f"run_dir={folder}")  # fmt: skip
    torch.manual_seed(0)
    experiment = build(config)
    return experiment, fit_and_test(experiment, config)


OWN_NET = ("channels_last=false", "model=custom", "model.net._target_=own_net.MyNet", "+model.net.width=6")
OWN_DATA = ("data=custom", "data._target_=own_data.MyData")


def test_a_network_of_ones_own_trains_and_loads_again(own):
    experiment, summary = run(own / "run", *OWN_NET, "trainer.limit_train_batches=3")
    assert experiment.classifier.net.fc.in_features == 6
    assert 0 <= summary["test/accuracy"] <= 1
    path = own / "run" / summary["best_checkpoint"]
    with pytest.raises(UserError, match=r"trust=\[own_net\]"):
        experiments.load(path)
    net = experiments.load(path, trust=["own_net"])
    images = torch.randn(2, 1, 28, 28)
    assert net(images).equal(experiment.classifier.eval().net(images))


@pytest.mark.parametrize("model", [OWN_NET, ("model=mlp",), ("model=attention",)], ids=lambda model: model[-1])
def test_a_data_set_of_ones_own_tells_any_network_its_colours_shape_and_classes(own, model):
    experiment, summary = run(own / "run", *model, *OWN_DATA, "+data.batch_size=16")
    assert summary["steps"] == 4
    assert 0 <= summary["test/accuracy"] <= 1
    assert experiment.data.batch_size == 16
    assert experiment.classifier.net(torch.randn(5, 3, 12, 20)).shape == (5, 4)


@pytest.mark.parametrize("data", [(), OWN_DATA], ids=["digits", "own data"])
def test_a_lightning_module_of_ones_own_gets_what_its_constructor_takes(own, data):
    experiment, summary = run(own / "run", "model._target_=own_module.MyModule", "+model.width=5", *data,
                              "optimizer=sgd", "scheduler=constant", "trainer.limit_train_batches=3")  # fmt: skip
    assert type(experiment.classifier).__name__ == "MyModule"
    assert isinstance(experiment.trainer.optimizers[0], torch.optim.SGD)
    assert 0 <= summary["test/accuracy"] <= 1


def test_a_lightning_module_of_ones_own_is_measured_again(own):
    summary = train(experiments.compose(
        "model._target_=own_module.MyModule", "+model.width=5", "optimizer=sgd", "scheduler=constant",
        "trainer.max_epochs=1", "trainer.accelerator=cpu", "callbacks=minimal", f"run_dir={own / 'run'}",
    ))  # fmt: skip
    again = evaluate(own / "run", accelerator="cpu", trust=["own_module"])
    assert again["test/accuracy"] == pytest.approx(summary["test/accuracy"])


def test_default_keys_of_another_data_set_are_left_out_and_typed_ones_refused(own, caplog):
    with caplog.at_level("INFO"):
        assert type(build(experiments.compose("data._target_=own_data.MyData")).data).__name__ == "MyData"
    assert "own_data.MyData takes no " in caplog.text
    typed = ("data._target_=own_data.MyData", "data.val_size=0.3")
    with pytest.raises(UserError, match=r"data.val_size=0.3: it is no argument of own_data.MyData"):
        train(experiments.compose(*typed, f"run_dir={own}/run"), typed)


@pytest.mark.parametrize(("group", "key"), [("model", "model.net._target_"), ("data", "data._target_")])
def test_an_import_path_must_be_given(group, key):
    with pytest.raises(UserError, match=f"{key} must be given"):
        experiments.compose(f"{group}=custom")


@pytest.mark.slow
@pytest.mark.skipif(missing_for_compile() is not None, reason=f"there is not {missing_for_compile()}")
def test_a_compiled_network_with_branches_trains_as_the_plain_one_under_the_same_names(own):
    options = (*OWN_NET, *OWN_DATA, "optimizer=sgd", "scheduler=constant", "trainer.limit_train_batches=5")
    plain, compiled = (run(own / f"run-{on}", *options, f"compile={on}")[0].classifier for on in ("false", "true"))
    assert compiled.net._compiled_call_impl is not None
    assert plain.net._compiled_call_impl is None
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        assert compiled.state_dict()[name].allclose(value, atol=1e-4), name


@pytest.mark.slow
def test_network_and_data_in_files_of_the_current_folder_train_from_the_command_line(forked, own):
    process = forked("train", *OWN_NET, *OWN_DATA, "trainer.max_epochs=2", "trainer.accelerator=cpu")
    assert process.returncode == 0, process.stderr
    (summary,) = own.glob("runs/custom-custom/*/summary.json")
    assert json.loads(summary.read_text())["steps"] == 16
    assert process.stdout.startswith("data=my_data\n")


MAKER = """
from torch import nn

def make_net(num_classes, width=8):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, num_classes))
"""
GREY_NET = (
    "++model.net={_target_:torch.nn.Sequential,_args_:[{_target_:torch.nn.Conv2d,in_channels:1,out_channels:3,"
    "kernel_size:1},{_target_:torchvision.models.squeezenet1_1,num_classes:10}]}"
)
OBJECTS = (
    "++loss.weight={_target_:torch.tensor,data:[1.0,1,1,1,1,1,1,1,1,2]}",
    "++trainer.profiler={_target_:lightning.pytorch.profilers.SimpleProfiler}",
    "++trainer.plugins=[{_target_:lightning.pytorch.plugins.environments.LightningEnvironment}]",
    "++trainer.strategy={_target_:lightning.pytorch.strategies.SingleDeviceStrategy,device:cpu}",
)


@pytest.mark.parametrize(
    ("typed", "trust"),
    [
        (
            ["model=custom", "model.net._target_=maker_here.make_net", "+model.net.width=6", *OBJECTS],
            ["maker_here"],
        ),
        (["model=custom", GREY_NET], []),
    ],
    ids=["a function of one's own, objects as arguments", "torchvision's builder"],
)
def test_whatever_is_called_trains_goes_on_and_is_loaded(tmp_path, monkeypatch, typed, trust):
    (tmp_path / "maker_here.py").write_text(MAKER)
    monkeypatch.syspath_prepend(tmp_path)
    short = ("data.limit=100", "scheduler=constant", "trainer.accelerator=cpu", "logger=none", "callbacks=minimal")

    def trained(name, *more):
        config = experiments.compose(*short, *typed, f"run_dir={tmp_path / name}", *more)
        return train(config, more)

    whole = trained("whole", "trainer.max_epochs=2")
    trained("parts", "trainer.max_epochs=1", "test=false")
    trusting = f"trust=[{','.join(trust)}]"
    parts = trained("parts", f"resume={tmp_path / 'parts'}", "trainer.max_epochs=2", "test=true", trusting)
    assert parts["val/loss"] == whole["val/loss"]
    results = evaluate(tmp_path / "parts", accelerator="cpu", trust=trust)
    assert results["test/loss"] == pytest.approx(parts["test/loss"], abs=1e-6)
    net = experiments.load(tmp_path / "parts" / "checkpoints" / "best.ckpt", trust=trust)
    assert net(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    if trust:
        with pytest.raises(UserError, match=rf"trust=\[{trust[0]}\]"):
            experiments.load(tmp_path / "parts" / "checkpoints" / "best.ckpt")


def test_code_of_ones_own_that_has_changed_since_is_said(tmp_path, monkeypatch, script_here):
    (tmp_path / "maker_there.py").write_text(MAKER)
    monkeypatch.syspath_prepend(tmp_path)
    typed = ("model=custom", "model.net._target_=maker_there.make_net", "data.limit=100", "trainer.max_epochs=1")
    train(experiments.compose(*typed, "trainer.accelerator=cpu", "logger=none", "callbacks=minimal",
                              f"run_dir={tmp_path / 'run'}"))  # fmt: skip
    evaluating = ("evaluate", f"run={tmp_path / 'run'}", "trust=[maker_there]", "accelerator=cpu")
    assert script_here(*evaluating)[2] == ""
    (tmp_path / "maker_there.py").write_text(MAKER.replace("ReLU", "Sigmoid"))
    _, _, errors = script_here(*evaluating)
    assert errors.endswith(f"and results may too: {tmp_path / 'maker_there.py'}\n")

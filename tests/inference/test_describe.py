import logging
import textwrap

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn import functional as F

import experiments
from experiments.errors import UserError
from experiments.inference.describe import describe, show
from experiments.training.run import train

PIXELS = 28 * 28
HALF, QUARTER = 14 * 14, 7 * 7
BLOCK = 4 * 49 * 64 * 64 + 2 * 49 * 49 * 64 + 2 * 49 * 64 * 128  # projections, attention, MLP of 49 tokens
# Multiply-adds by hand: outputs times the products that each of them sums.
COSTS = {
    "MLP": 784 * 512 + 512 * 512 + 512 * 10,
    "CNN": PIXELS * 32 * 9 + HALF * 64 * 32 * 9 + 64 * QUARTER * 10,
    "ResNet": PIXELS * 16 * 9 + 2 * PIXELS * 16 * 16 * 9 + 16 * 10,
    "RNN": 28 * 4 * 128 * (28 + 128) + 128 * 10,
    "VisionTransformer": 49 * 64 * 16 + 2 * BLOCK + 64 * 10,
}


def described(*overrides, input_shape=None):
    return describe(experiments.compose(*overrides), input_shape)


def of_class(name, *overrides, **options):
    return described("model=custom", f"model.net._target_=experiments.nets.{name}", *overrides, **options)


@pytest.mark.parametrize("name", COSTS)
def test_multiply_adds_are_those_counted_by_hand(name):
    assert of_class(name).multiply_adds == COSTS[name]


def test_parameters_are_the_tutorials_names_shapes_and_counts():
    found = described("model=mlp")
    assert found.parameters == (
        ("linear_relu_stack.0.weight", (512, 784), 401_408),
        ("linear_relu_stack.0.bias", (512,), 512),
        ("linear_relu_stack.2.weight", (512, 512), 262_144),
        ("linear_relu_stack.2.bias", (512,), 512),
        ("linear_relu_stack.4.weight", (10, 512), 5_120),
        ("linear_relu_stack.4.bias", (10,), 10),
    )
    assert (found.total, found.trainable, found.parameter_bytes) == (669_706, 669_706, 669_706 * 4)
    assert (found.input_shape, found.output_shape) == ((1, 28, 28), (10,))
    # the two hidden layers' outputs behind ReLU; the image itself is the data's
    assert found.activation_bytes == 2 * 512 * 4


def test_buffers_are_counted():
    assert described("model=resnet").buffer_bytes == 2 * (16 * 4 + 16 * 4 + 8)


@pytest.mark.parametrize("model", ["cnn", "resnet"])
@pytest.mark.parametrize(("dims", "shape"), [(1, (2, 32)), (2, (2, 16, 20)), (3, (2, 8, 8, 12))])
def test_convolutions_come_in_one_two_and_three_dimensions(model, dims, shape):
    found = described(f"model={model}", f"model.net.spatial_dims={dims}", input_shape=shape)
    kinds = {type(layer) for layer in found.net.modules()}
    assert {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims] in kinds
    assert found.input_shape == shape
    assert found.output_shape == (10,)
    first = found.parameters[0][1]
    assert first == (32 if model == "cnn" else 16, 2, *[3] * dims)
    # the first layer is torch's own convolution
    layer = next(layer for layer in found.net.modules() if hasattr(layer, "kernel_size"))
    image = torch.randn(1, *shape)
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[dims]
    assert layer(image).equal(convolve(image, layer.weight, layer.bias, padding=1))


def test_printed_are_structure_every_parameter_and_totals(capsys):
    found = described()
    show(found)
    printed = capsys.readouterr().out
    assert printed.startswith(f"{found.net}\n")
    for name, shape, count in found.parameters:
        assert [name, *" × ".join(map(str, shape)).split(), f"{count:,}"] in [
            line.split() for line in printed.splitlines()
        ]
    for words in ("669,706", "668,672", "1 × 28 × 28"):
        assert words in printed


@pytest.mark.parametrize(
    ("overrides", "shape", "message"),
    [
        (["model=resnet", "model.net.spatial_dims=1"], None, r"ResNet refuses an input of 1 × 28 × 28(?s:.*)input="),
        (["model=cnn", "model.net.spatial_dims=1"], None, "spatial_dims=1"),
        (["model=cnn"], (1, 2, 2), "too deep"),
        ([], (1,), "at least one side"),
        (["model=nothing"], None, "(?s)nothing.*mlp"),
        (["data.batchsize=1"], None, "batchsize"),
        (["model=custom"], None, "model.net._target_"),
    ],
)
def test_mistakes_name_the_rule(overrides, shape, message):
    with pytest.raises(UserError, match=message):
        described(*overrides, input_shape=shape)


def test_a_network_with_branches_is_described_too(tmp_path, monkeypatch):
    (tmp_path / "branches.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, in_features, num_classes):\n"
        "        super().__init__()\n"
        "        self.fc = nn.Linear(in_features, num_classes)\n"
        "    def forward(self, x):\n"
        "        x = self.fc(x.flatten(1))\n"
        "        return x if x.sum() > 0 else -x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = described("model=custom", "model.net._target_=branches.Net")
    assert (found.total, found.multiply_adds) == (7850, 7840)


def test_a_runs_log_and_tensorboard_show_the_structure(tmp_path, caplog):
    caplog.set_level(logging.INFO, "experiments")
    config = experiments.compose(
        "trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1",
        "trainer.accelerator=cpu", "callbacks=minimal", "test=false", f"run_dir={tmp_path}",
    )  # fmt: skip
    train(config)
    structure = str(describe(config).net)
    assert structure in [record.message for record in caplog.records]
    events = EventAccumulator(str(tmp_path)).Reload()
    (shown,) = events.Tensors("network/text_summary")
    assert structure in textwrap.dedent(shown.tensor_proto.string_val[0].decode())


def test_the_script_takes_hydras_overrides_and_an_input_size(script_here):
    code, printed, _ = script_here("describe", "input=[2,28]")
    assert code == 0
    assert "Linear(in_features=56," in printed
    code, _, errors = script_here("describe", "input=[1,x]")
    assert code == 2
    assert errors.startswith("error: input=[1,x] must be whole numbers")
    code, printed, _ = script_here("describe", "--help")
    assert code == 0
    assert "input=[1,28]" in printed

"""Every option value of every network: shapes, gradients, mistakes, and torch's own modules as the truth."""

import inspect

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from experiments.nets import CNN, MLP, RNN, AttentionBlock, ResBlock, ResNet, VisionTransformer
from experiments.nets.layers import ACTIVATIONS, CONV, NORMS, POOL
from experiments.nets.rnn import CELLS

SIDE = 8
CLASSES = 3
# what makes each network small; an image of 2 channels, 8 pixels a side
SMALL = {
    MLP: {"in_features": 2 * SIDE * SIDE, "hidden_features": [6, 5]},
    CNN: {"in_channels": 2, "image_size": SIDE, "channels": [4]},
    ResNet: {"in_channels": 2, "channels": [4]},
    RNN: {"in_channels": 2, "image_size": SIDE, "hidden_features": 6},
    VisionTransformer: {"in_channels": 2, "image_size": SIDE, "embed_dim": 8, "depth": 2, "num_heads": 2},
}
VALUES = {
    MLP: {
        "hidden_features": [[], [1], [7, 3, 5]],
        "activation": sorted(ACTIVATIONS),
        "norm": NORMS,
        "dropout": [0.0, 0.5],
    },
    CNN: {
        "channels": [[], [3], [3, 5, 4]],
        "kernel_size": [1, 3, 5],
        "stride": [1, 2],
        "activation": sorted(ACTIVATIONS),
        "norm": NORMS,
        "pool": list(POOL),
        "dropout": [0.0, 0.5],
        "spatial_dims": list(CONV),
    },
    ResNet: {
        "channels": [[1], [3, 5], [3, 3, 4]],
        "blocks_per_stage": [1, 3],
        "kernel_size": [1, 3, 5],
        "stride": [1, 2, 3],
        "activation": sorted(ACTIVATIONS),
        "norm": NORMS,
        "pool": list(POOL),
        "dropout": [0.0, 0.5],
        "spatial_dims": list(CONV),
    },
    RNN: {
        "image_size": [SIDE, [SIDE, SIDE]],
        "cell": list(CELLS),
        "hidden_features": [1, 7],
        "num_layers": [1, 3],
        "bidirectional": [False, True],
        "dropout": [0.0, 0.5],
    },
    VisionTransformer: {
        "patch_size": [1, 3, 4, 8],
        "embed_dim": [2, 16],
        "depth": [1, 3],
        "num_heads": [1, 4],
        "mlp_ratio": [0.5, 4],
        "activation": sorted(ACTIVATIONS),
        "dropout": [0.0, 0.5],
    },
}
CASES = [
    (net, option, value) for net, options in VALUES.items() for option, values in options.items() for value in values
]
# further combinations in which one option reaches into another's layers
CASES += [
    (CNN, None, {"spatial_dims": 1, "norm": "batch", "pool": "avg"}),
    (CNN, None, {"spatial_dims": 3, "norm": "layer", "dropout": 0.1}),
    (CNN, None, {"image_size": [8, 5]}),
    (CNN, None, {"image_size": [9, 6], "stride": 2, "kernel_size": 5}),
    (ResNet, None, {"spatial_dims": 3, "norm": "none", "channels": [2, 4], "stride": 1, "dropout": 0.1}),
    (ResNet, None, {"spatial_dims": 1, "norm": "layer", "channels": [2, 4], "blocks_per_stage": 2, "pool": "max"}),
    (RNN, None, {"cell": "GRU", "bidirectional": True, "num_layers": 2, "dropout": 0.1, "image_size": [5, 8]}),
    (VisionTransformer, None, {"image_size": [8, 4], "patch_size": 4}),
]


def build(cls, **options):
    return cls(**{**SMALL[cls], "num_classes": CLASSES, **options})


def images_for(options):
    sides = options.get("image_size", SIDE)
    sides = [sides] * options.get("spatial_dims", 2) if isinstance(sides, int) else sides
    return 3 * torch.randn(4, 2, *sides)  # wide enough for activations that are flat around 0


def named(value):
    return value.__name__ if inspect.isclass(value) else str(value)


@pytest.mark.parametrize(("cls", "option", "value"), CASES, ids=named)
def test_every_value_builds_gives_logits_and_every_parameter_learns(cls, option, value):
    torch.manual_seed(0)
    options = value if option is None else {option: value}
    net = build(cls, **options)
    seen = torch.zeros(sum(1 for _ in net.parameters()), dtype=torch.bool)
    for _ in range(5):  # dropout and ReLU may silence a narrow layer once
        logits = net(images_for(options))
        assert logits.shape == (4, CLASSES)
        net.zero_grad()
        F.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
        for parameter in net.parameters():
            assert parameter.grad.isfinite().all()
        seen |= torch.tensor([bool(parameter.grad.any()) for parameter in net.parameters()])
    silent = [name for (name, _), learns in zip(net.named_parameters(), seen, strict=True) if not learns]
    assert silent == []


def test_every_option_of_every_constructor_is_tried():
    from_data = {"in_channels", "in_features", "image_size", "num_classes"}
    for cls, options in VALUES.items():
        assert set(inspect.signature(cls).parameters) - from_data == set(options) - from_data, cls


@pytest.mark.parametrize("cls", SMALL, ids=named)
def test_dropout_acts_in_training_alone(cls):
    torch.manual_seed(0)
    net, images = build(cls, dropout=0.5), torch.randn(4, 2, SIDE, SIDE)
    assert not net(images).equal(net(images))
    net.eval()
    assert net(images).equal(net(images))


MISTAKES = [
    (MLP, {"activation": "relo"}, "activation='relo' is not one of .*ReLU.*Tanh"),
    (MLP, {"activation": None}, "activation=None is not one of .*ReLU"),
    (MLP, {"activation": "Softmax"}, "activation='Softmax' is not one of"),
    (MLP, {"norm": "group"}, "norm='group' is not one of none, batch, layer"),
    (MLP, {"hidden_features": [5, 0]}, r"hidden_features=\[5, 0\] must be a list of whole numbers of at least 1"),
    (MLP, {"hidden_features": 512}, r"hidden_features=512 must be a list of .*, such as \[512\]"),
    (MLP, {"in_features": -1}, "in_features=-1"),
    (MLP, {"num_classes": 0}, "num_classes=0"),
    (MLP, {"dropout": 1.0}, "dropout=1.0 must be a number of at least 0 and less than 1"),
    (MLP, {"dropout": "0.5"}, "dropout='0.5' must be"),
    (CNN, {"channels": [2.5]}, r"channels=\[2.5\] must be a list of whole numbers"),
    (CNN, {"channels": 8}, r"channels=8 must be a list"),
    (CNN, {"channels": [4] * 4}, r"too deep for image_size=\[8, 8\].*use fewer stages"),
    (CNN, {"kernel_size": 2}, "kernel_size=2 must be an odd whole number"),
    (CNN, {"stride": 0}, "stride=0"),
    (CNN, {"pool": "min"}, "pool='min' must be one of max, avg"),
    (CNN, {"norm": "no"}, "norm='no' is not one of"),
    (CNN, {"spatial_dims": 4}, "spatial_dims=4 must be one of 1, 2, 3"),
    (CNN, {"image_size": [8, 8, 8]}, r"image_size=\[8, 8, 8\] has 3 sides, but spatial_dims=2"),
    (CNN, {"image_size": 0}, "image_size=0"),
    (CNN, {"in_channels": True}, "in_channels=True"),
    (CNN, {"dropout": -0.1}, "dropout=-0.1"),
    (ResNet, {"channels": []}, r"channels=\[\] must name at least one stage"),
    (ResNet, {"channels": 16}, r"channels=16 must be a list of .*, such as \[16\]"),
    (ResNet, {"blocks_per_stage": 0}, "blocks_per_stage=0"),
    (ResNet, {"stride": 0}, "stride=0"),
    (ResNet, {"kernel_size": 4}, "kernel_size=4 must be an odd whole number"),
    (ResNet, {"pool": "sum"}, "pool='sum' must be one of max, avg"),
    (ResNet, {"norm": "instance"}, "norm='instance' is not one of"),
    (ResNet, {"spatial_dims": 0}, "spatial_dims=0 must be one of"),
    (ResNet, {"activation": "GLU"}, "activation='GLU' is not one of"),
    (ResNet, {"dropout": 2}, "dropout=2"),
    (RNN, {"cell": "lstm"}, "cell='lstm' must be one of LSTM, GRU"),
    (RNN, {"hidden_features": 0}, "hidden_features=0"),
    (RNN, {"num_layers": 0}, "num_layers=0"),
    (RNN, {"dropout": 1}, "dropout=1"),
    (RNN, {"image_size": [8]}, r"image_size=\[8\] has 1 sides"),
    (VisionTransformer, {"embed_dim": 10, "num_heads": 4}, "embed_dim=10 must be a multiple of num_heads=4"),
    (VisionTransformer, {"patch_size": 9}, "patch_size=9 must not exceed the image's sides, 8 and 8"),
    (VisionTransformer, {"patch_size": 0}, "patch_size=0"),
    (VisionTransformer, {"embed_dim": 0}, "embed_dim=0"),
    (VisionTransformer, {"depth": 0}, "depth=0"),
    (VisionTransformer, {"num_heads": 0}, "num_heads=0"),
    (VisionTransformer, {"mlp_ratio": 0.01}, "mlp_ratio=0.01 leaves no hidden feature"),
    (VisionTransformer, {"activation": "gelo"}, "activation='gelo' is not one of"),
    (VisionTransformer, {"dropout": 1}, "dropout=1"),
]


@pytest.mark.parametrize(("cls", "options", "message"), MISTAKES, ids=named)
def test_a_value_that_cannot_be_is_refused_with_the_rule(cls, options, message):
    with pytest.raises(ValueError, match=message):
        build(cls, **options)


@pytest.mark.parametrize(
    "options", [{"spatial_dims": 4}, {"in_channels": 0}, {"out_channels": 0}, {"stride": 0}], ids=str
)
def test_a_residual_block_on_its_own_refuses_what_cannot_be(options):
    (option,) = options
    with pytest.raises(ValueError, match=f"{option}="):
        ResBlock(**{"in_channels": 2, "out_channels": 2, **options})


def test_activations_are_elementwise_and_their_case_does_not_matter():
    images = torch.randn(2, 5)
    for name, cls in ACTIVATIONS.items():
        assert cls()(images).shape == images.shape, name
        assert cls().eval()(images)[0].equal(cls().eval()(images[:1])[0]), name
    assert str(MLP(activation="leakyrelu")) == str(MLP(activation="LeakyReLU"))
    assert {"ReLU", "Sigmoid", "Tanh", "GELU", "SiLU", "ELU", "LeakyReLU", "PReLU"} <= set(ACTIVATIONS)


def test_an_option_that_is_off_leaves_no_trace_and_one_that_is_on_stands_where_it_should():
    def kinds(layers):
        return [type(layer).__name__ for layer in layers]

    assert kinds(build(MLP).linear_relu_stack) == ["Linear", "ReLU"] * 2 + ["Linear"]
    full = build(MLP, norm="batch", activation="Tanh", dropout=0.1)
    assert kinds(full.linear_relu_stack) == ["Linear", "BatchNorm1d", "Tanh", "Dropout"] * 2 + ["Linear"]
    assert kinds(build(CNN, channels=[4, 5]).conv_stack) == ["Conv2d", "ReLU", "MaxPool2d"] * 2
    full = build(CNN, channels=[4, 5], norm="layer", pool="avg", dropout=0.1, spatial_dims=3)
    assert kinds(full.conv_stack) == ["Conv3d", "GroupNorm", "ReLU", "AvgPool3d", "Dropout"] * 2


@pytest.mark.parametrize("dims", CONV)
def test_layer_normalisation_behind_a_convolution_is_over_all_but_the_batch(dims):
    from experiments.nets.layers import conv_norm

    values = torch.randn(4, 5, *[3] * dims)
    assert conv_norm("layer", 5, dims)(values).allclose(F.layer_norm(values, values.shape[1:]), atol=1e-6)


@pytest.mark.parametrize(("in_channels", "stride"), [(4, 1), (3, 1), (4, 2), (3, 2)])
def test_a_residual_block_is_its_formula(in_channels, stride):
    torch.manual_seed(0)
    block, x = ResBlock(in_channels, 4, stride).eval(), torch.randn(2, in_channels, 7, 7)
    block.bn1.running_mean += torch.randn(4)
    block.bn2.running_var += torch.rand(4)

    def normed(values, bn):
        scale = (bn.running_var + bn.eps).rsqrt().view(-1, 1, 1)
        return (values - bn.running_mean.view(-1, 1, 1)) * scale * bn.weight.view(-1, 1, 1) + bn.bias.view(-1, 1, 1)

    out = normed(F.conv2d(x, block.conv1.weight, block.conv1.bias, stride, padding=1), block.bn1).clamp(min=0)
    out = normed(F.conv2d(out, block.conv2.weight, block.conv2.bias, padding=1), block.bn2)
    plain = in_channels == 4 and stride == 1
    identity = x if plain else F.conv2d(x, block.shortcut.weight, block.shortcut.bias, stride)
    assert (block.shortcut is None) == plain
    assert block(x).allclose((out + identity).clamp(min=0), atol=1e-5)


def torch_attention(block, embed_dim, heads):
    """nn.MultiheadAttention with the block's weights."""
    truth = nn.MultiheadAttention(embed_dim, heads, batch_first=True)
    truth.in_proj_weight.data = block.qkv.weight.data
    truth.in_proj_bias.data = block.qkv.bias.data
    truth.out_proj.weight.data = block.projection.weight.data
    truth.out_proj.bias.data = block.projection.bias.data
    return truth


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_attention_equals_torchs_multihead_attention(heads):
    torch.manual_seed(0)
    block, tokens = AttentionBlock(16, heads), torch.randn(3, 7, 16)
    truth, _ = torch_attention(block, 16, heads)(tokens, tokens, tokens)
    assert block.attend(tokens).allclose(truth, atol=1e-6)


def test_an_attention_block_equals_torchs_pre_norm_encoder_layer():
    torch.manual_seed(0)
    block, tokens = AttentionBlock(16, 4, mlp_ratio=3, activation="ReLU"), torch.randn(3, 7, 16)
    truth = nn.TransformerEncoderLayer(16, 4, 48, dropout=0.0, batch_first=True, norm_first=True)
    truth.self_attn = torch_attention(block, 16, 4)
    truth.linear1, _, truth.linear2 = block.mlp
    truth.norm1, truth.norm2 = block.norm1, block.norm2
    assert block(tokens).allclose(truth(tokens), atol=1e-6)


def test_a_vision_transformer_cuts_patches_row_by_row_and_averages_tokens():
    torch.manual_seed(0)
    net, images = build(VisionTransformer, patch_size=4, depth=1), torch.randn(3, 2, SIDE, SIDE)
    weight = net.patches.weight.flatten(1)
    patches = [images[:, :, top : top + 4, left : left + 4] for top in (0, 4) for left in (0, 4)]
    tokens = torch.stack([patch.flatten(1) @ weight.T + net.patches.bias for patch in patches], dim=1)
    out = net.blocks[0](tokens + net.position)
    assert net(images).allclose(net.fc(F.layer_norm(out, (8,), net.norm.weight, net.norm.bias).mean(1)), atol=1e-5)


def unrolled(net, rows, suffix):
    """The final hidden state of the first layer, one step after another (Hochreiter & Schmidhuber; Cho et al.)."""
    of = {
        name: getattr(net.recurrent, f"{name}_l0{suffix}")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    hidden = cell = torch.zeros(len(rows), net.recurrent.hidden_size)
    for row in rows.unbind(1):
        seen = row @ of["weight_ih"].T + of["bias_ih"]
        kept = hidden @ of["weight_hh"].T + of["bias_hh"]
        if isinstance(net.recurrent, nn.LSTM):
            i, f, g, o = (seen + kept).chunk(4, dim=1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        else:
            (r, z, n), (hr, hz, hn) = seen.chunk(3, dim=1), kept.chunk(3, dim=1)
            z = (z + hz).sigmoid()
            hidden = (1 - z) * (n + (r + hr).sigmoid() * hn).tanh() + z * hidden
    return hidden


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_a_recurrent_network_equals_its_cell_unrolled_by_hand(cell, bidirectional):
    torch.manual_seed(0)
    net = build(RNN, cell=cell, bidirectional=bidirectional)
    images = torch.randn(3, 2, SIDE, SIDE)
    rows = torch.cat([images[:, 0], images[:, 1]], dim=2)  # (batch, height, channels · width)
    final = unrolled(net, rows, "")
    if bidirectional:
        final = torch.cat([final, unrolled(net, rows.flip(1), "_reverse")], dim=1)
    assert net(images).allclose(final @ net.fc.weight.T + net.fc.bias, atol=1e-5)


def test_blocks_nest_in_a_network_of_ones_own():
    net = nn.Sequential(
        ResBlock(1, 4, stride=2), nn.Flatten(2), AttentionBlock(16, 4), nn.Flatten(), nn.Linear(4 * 16, 2)
    )
    assert net(torch.randn(5, 1, 8, 8)).shape == (5, 2)

"""What a network is and costs, before it is trained: structure, parameters, multiply-adds, memory."""

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from experiments.data.memory import format_bytes
from experiments.errors import UserError
from experiments.learning.param_groups import named_parameters
from experiments.runs.allowed_classes import without_pretrained_weights
from experiments.training.build import build_classifier, facts, filled, make, net_of


@dataclass(frozen=True)
class Description:
    """A network on inputs of ``input_shape``; sizes in bytes, costs for one image."""

    net: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: tuple[tuple[str, tuple[int, ...], int], ...]  # name, shape, count
    multiply_adds: int  # of one forward pass: matrix products, convolutions and attention
    parameter_bytes: int
    buffer_bytes: int
    activation_bytes: int  # what a training step keeps for its backward pass, without the parameters
    frozen: tuple[str, ...] = ()  # what callbacks freeze, and until when

    @property
    def total(self) -> int:
        """The number of parameters."""
        return sum(count for _, _, count in self.parameters)

    @property
    def trainable(self) -> int:
        """The number of parameters that training changes from the start."""
        return sum(parameter.numel() for parameter in self.net.parameters() if parameter.requires_grad)


def describe(config: Mapping[str, Any], input_shape: Sequence[int] | None = None) -> Description:
    """Build the network of a composed config, without training and without the data set's files, and measure it.

    Args:
        config: plain values, resolved: what ``experiments.compose`` returns.
        input_shape: channels and sides of an image, if not those of the data set.

    Raises:
        UserError: if the network cannot be built, or refuses such an input.
    """
    data = make(config["data"])
    if input_shape is not None:
        if len(input_shape) < 2 or min(input_shape) < 1:
            raise UserError(f"input={list(input_shape)} must be channels and at least one side, such as input=[1,28]")
        data.image_shape = tuple(input_shape)
    own = net_of(without_pretrained_weights(config["model"]))
    net = make(filled(own, data)) if own else build_classifier(config, data)
    shape = tuple(data.image_shape)
    frozen = _freeze(config, net, facts(data).get("num_classes"))
    try:
        multiply_adds, output = _forward_cost(net, torch.zeros(1, *shape))
        activation_bytes = _kept_for_backward(net, torch.zeros(2, *shape)) // 2
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise UserError(
            f"{type(net).__name__} refuses an input of {_sizes(shape)} (channels, then sides): {error}\n"
            "Name another as input=[channels,side,...]"
        ) from error
    return Description(
        net=net.eval(),
        input_shape=shape,
        output_shape=tuple(output.shape[1:]),
        parameters=tuple((name, tuple(value.shape), value.numel()) for name, value in net.named_parameters()),
        multiply_adds=multiply_adds,
        parameter_bytes=sum(value.nbytes for value in net.parameters()),
        buffer_bytes=sum(value.nbytes for value in net.buffers()),
        activation_bytes=activation_bytes,
        frozen=frozen,
    )


def _freeze(config: Mapping[str, Any], net: nn.Module, num_classes: int | None) -> tuple[str, ...]:
    """Freeze what a config's callbacks freeze in the first epoch; return it in words."""
    made = [make(one, f"callbacks.{name}") for name, one in config["callbacks"].items() if _is_freeze(one)]
    names = {name for each in made for name in each.parameter_names(net, num_classes)}
    for name, parameter in named_parameters(net).items():
        parameter.requires_grad_(name not in names)
    return tuple(each.describe(net, num_classes) for each in made)


def _is_freeze(config: Any) -> bool:
    return isinstance(config, Mapping) and str(config.get("_target_")).endswith(".Freeze")


def _forward_cost(net: nn.Module, image: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Multiply-adds of one image's way through the network, and its output."""
    net.eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")
        # some kernels are taken for free by the counter: oneDNN's of a whole recurrent layer and, before torch 2.15,
        # the CPU's fused attention
        with (
            torch.backends.mkldnn.flags(enabled=False),
            sdpa_kernel(SDPBackend.MATH),
            torch.no_grad(),
            FlopCounterMode(display=False) as counter,
        ):
            output: torch.Tensor = net(image)
    return counter.get_total_flops() // 2, output


def _kept_for_backward(net: nn.Module, images: torch.Tensor) -> int:
    """Bytes that a training step on the images keeps until its backward pass, without parameters and images."""
    own = {value.untyped_storage().data_ptr() for value in [*net.parameters(), *net.buffers(), images]}
    kept: dict[int, int] = {}

    def keep(saved: torch.Tensor) -> torch.Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()  # several saved tensors may be views of one storage
        return saved

    net.train()
    with torch.random.fork_rng(devices=[]), saved_tensors_hooks(keep, lambda saved: saved):
        output = net(images)
    del output  # until here the graph held what was saved: no address can have been taken twice
    return sum(kept.values())


def show(described: Description) -> None:
    """Print a description: a table on a terminal, plain columns elsewhere."""
    terminal = sys.stdout.isatty()
    table = Table("parameter", "shape", box=box.SIMPLE_HEAD if terminal else None, pad_edge=False)
    table.add_column("count", justify="right")
    for name, shape, count in described.parameters:
        table.add_row(name, _sizes(shape), f"{count:,}")
    totals = Table.grid(padding=(0, 2))
    for label, value in [
        ("parameters", f"{described.total:,}"),
        ("trainable", "; ".join([f"{described.trainable:,}", *described.frozen])),
        ("input", _sizes(described.input_shape)),
        ("output", _sizes(described.output_shape)),
        ("multiply-adds", f"{described.multiply_adds:,} an image, forward"),
        (
            "memory",
            f"{format_bytes(described.parameter_bytes)} parameters, {format_bytes(described.buffer_bytes)} buffers",
        ),
        ("activations", f"{format_bytes(described.activation_bytes)} an image, kept for the backward pass"),
    ]:
        totals.add_row(label, value)
    # under redirection no line is cut to a screen's width
    console = Console(width=None if terminal else 500, highlight=False, markup=False)
    for part in (str(described.net), table, totals):
        console.print(part, soft_wrap=True)
        console.print()


def _sizes(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "scalar"

"""The layers that networks choose by name, and how they are put together."""

import inspect
from collections.abc import Sequence

from torch import nn
from torch.nn.modules import activation as _activations

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL: dict[str, dict[int, type[nn.Module]]] = {
    "max": {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d},
    "avg": {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d},
}
GLOBAL_POOL: dict[str, dict[int, type[nn.Module]]] = {
    "max": {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d},
    "avg": {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d},
}
NORMS = ("none", "batch", "layer")

# They mix features or change the shape, so they cannot stand between any two layers.
_NOT_ELEMENTWISE = {"GLU", "LogSoftmax", "Softmax", "Softmax2d", "Softmin"}


def _needs_no_argument(cls: type[nn.Module]) -> bool:
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    name: cls
    for name, cls in vars(_activations).items()
    if inspect.isclass(cls)
    and issubclass(cls, nn.Module)
    and cls.__module__ == _activations.__name__
    and name not in _NOT_ELEMENTWISE
    and _needs_no_argument(cls)
}


def choose(option: str, value: object, choices: Sequence[object]) -> None:
    """Raise ValueError, listing the choices, if ``value`` is not among them."""
    if value not in choices:
        raise ValueError(f"{option}={value!r} is not one of {', '.join(map(str, choices))}")


def grid_size(image_size: int | Sequence[int], spatial_dims: int) -> tuple[int, ...]:
    """Bring ``image_size`` (one number for all sides, or one a side) to a tuple of ``spatial_dims`` numbers."""
    size = (image_size,) * spatial_dims if isinstance(image_size, int) else tuple(image_size)
    if len(size) != spatial_dims:
        raise ValueError(f"image_size={list(size)} has {len(size)} sides, but spatial_dims={spatial_dims}")
    return size


def activation_layer(name: str) -> nn.Module:
    """Any element-wise activation of ``torch.nn`` by its class name; case does not matter."""
    by_lower_case = {known.lower(): cls for known, cls in ACTIVATIONS.items()}
    if str(name).lower() not in by_lower_case:
        choose("activation", name, sorted(ACTIVATIONS))
    return by_lower_case[name.lower()]()


def conv_norm(name: str, channels: int, spatial_dims: int) -> nn.Module:
    """Normalisation behind a convolution; ``Identity`` for ``none``.

    ``layer`` normalises over channels and positions of one sample: ``GroupNorm`` with one group, which is
    layer normalisation that does not depend on the image size.
    """
    choose("norm", name, NORMS)
    if name == "none":
        return nn.Identity()
    return BATCH_NORM[spatial_dims](channels) if name == "batch" else nn.GroupNorm(1, channels)


def linear_norm(name: str, features: int) -> nn.Module:
    """Normalisation behind a linear layer; ``Identity`` for ``none``."""
    choose("norm", name, NORMS)
    if name == "none":
        return nn.Identity()
    return nn.BatchNorm1d(features) if name == "batch" else nn.LayerNorm(features)


def dropout_layer(p: float) -> nn.Module:
    """Dropout with probability ``p``; ``Identity`` for 0."""
    return nn.Dropout(p) if p else nn.Identity()


def stack(layers: Sequence[nn.Module]) -> nn.Sequential:
    """The layers in sequence, without those that do nothing: an option that is off leaves no trace in names."""
    return nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.Identity)))

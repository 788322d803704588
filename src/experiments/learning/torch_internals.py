"""Reach into private parts of torch and torchmetrics; each function says what breaks without it, and why."""

from torch import nn
from torchmetrics import Metric


def set_update_count(metric: Metric, count: int) -> None:
    """Say how often a metric whose states are restored was updated.

    A resumed run's metric would warn that it was never updated; ``update_count`` has no setter, and ``state_dict``
    leaves it out.
    """
    metric._update_count = count


def has_hooks(module: nn.Module) -> bool:
    """Whether something is called with a module's, or its parameters', passes forward and back.

    A CUDA graph would not call it; torch lists hooks nowhere.
    """
    of_modules = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    of_parameters = ("_backward_hooks", "_post_accumulate_grad_hooks")
    return any(getattr(part, name) for part in module.modules() for name in of_modules) or any(
        getattr(parameter, name) for parameter in module.parameters() for name in of_parameters
    )

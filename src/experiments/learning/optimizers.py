"""Optimizers that torch does not have as one class."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from experiments.errors import UserError, ranges
from experiments.learning.param_groups import ParamGroup, parameter_groups


def make_optimizer(
    make: Callable[..., Optimizer],
    module: nn.Module,
    num_classes: int | None,
    groups: Mapping[str, ParamGroup] | None = None,
) -> Optimizer:
    """The optimizer of a module's parameters, frozen ones included, in groups if there are any.

    One that takes ``others`` is told the matrices that are no hidden ones.

    Raises:
        UserError: if it refuses its arguments, or a group means no parameter.
    """
    parameters = parameter_groups(module, groups, num_classes) if groups else module.parameters()
    try:
        own = (
            {"others": outer_matrices(module, num_classes)} if "others" in inspect.signature(make).parameters else {}
        )
        optimizer = make(parameters, **own)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"the optimizer refuses its arguments: {error}") from error
    for group in optimizer.param_groups:
        if group.get("weight_decay") and "weight_decay" not in optimizer.defaults:
            raise UserError(f"param_groups.{group['name']}.weight_decay: {type(optimizer).__name__} knows none")
        group["lr"] *= group.get("lr_factor", 1.0)
    return optimizer


def outer_matrices(module: nn.Module, num_classes: int | None) -> list[torch.Tensor] | None:
    """Embeddings, and the linear layers that give ``num_classes`` logits; None where no layer does."""
    heads = [
        part.weight for part in module.modules() if isinstance(part, nn.Linear) and part.out_features == num_classes
    ]
    embeddings = [part.weight for part in module.modules() if isinstance(part, (nn.Embedding, nn.EmbeddingBag))]
    return [*heads, *embeddings] if heads else None


def takes_tensor_rates(optimizer: Optimizer) -> bool:
    """Whether an optimizer does the same in every step, and reads its rates from the GPU where they are tensors."""
    return type(optimizer).__module__.startswith("torch.optim.") and all(
        (group.get("fused") or group.get("capturable")) and isinstance(group["lr"], float)
        for group in optimizer.param_groups
    )


class MuonAdamW(Optimizer):
    """Muon for the hidden weight matrices, AdamW for everything else: biases, norms, convolutions, the last layer.

    Muon orthogonalises each update (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon). Its updates are
    scaled to AdamW's size (Liu et al. 2025, arXiv 2502.16982), so that both share one learning rate and weight decay.

    ``others`` are the matrices that are no hidden weights, such as the head's; else the last one is the head's.

    Raises:
        ValueError: if this torch has no Muon, or there is no hidden weight matrix.
    """

    @ranges(lr="> 0", weight_decay=">= 0", momentum=">= 0", betas="list, >= 0, < 1", eps=">= 0")
    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 0.002,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        others: Sequence[torch.Tensor] | None = None,
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(
                f"optimizer=muon needs torch 2.9 or newer, this is {torch.__version__}: use optimizer=adamw"
            )
        given: list[Any] = list(params)
        groups = given if given and isinstance(given[0], dict) else [{"params": given}]
        parameters = [parameter for group in groups for parameter in group["params"]]
        matrices = [parameter for parameter in parameters if parameter.ndim == 2]
        if others is None:
            others = matrices[-1:]
        matrices = [matrix for matrix in matrices if all(matrix is not other for other in others)]
        if not matrices:
            raise ValueError("Muon is for hidden weight matrices, and this network has none: use optimizer=adamw")
        hidden = {id(parameter) for parameter in matrices}

        def parts_of(groups: list[dict[str, Any]], are_hidden: bool) -> list[dict[str, Any]]:
            found = []
            for group in groups:
                if own := [one for one in group["params"] if (id(one) in hidden) == are_hidden]:
                    named = (
                        {"name": f"{group['name']}-{'muon' if are_hidden else 'adamw'}"} if "name" in group else {}
                    )
                    found.append({**group, **named, "params": own})
            return found

        shared: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
        self._parts: list[Optimizer] = [
            torch.optim.Muon(parts_of(groups, True), momentum=momentum, adjust_lr_fn="match_rms_adamw", **shared),
            AdamW(parts_of(groups, False), betas=betas, eps=eps, fused=True, **shared),
        ]
        super().__init__(
            [group for part in self._parts for group in part.param_groups], {"weight_decay": weight_decay}
        )
        self._share()

    def _share(self) -> None:
        """Make the parts work on this optimizer's state and groups: schedules and checkpoints know no other."""
        hidden = len(self._parts[0].param_groups)
        for part, groups in zip(self._parts, (self.param_groups[:hidden], self.param_groups[hidden:]), strict=True):
            part.state, part.param_groups = self.state, groups

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both; ``closure`` is called once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave."""
        super().load_state_dict(state_dict)
        self._share()

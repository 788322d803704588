"""Train only a part of a network for a while."""

import logging
import math
from collections.abc import Sequence

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from experiments.errors import UserError, ranges
from experiments.learning.lightning_internals import let_ddp_find_unused_parameters
from experiments.learning.param_groups import matching_parameter_names, named_parameters

log = logging.getLogger(__name__)


class Freeze(Callback):
    """Keeps parameters as they are until an epoch begins; batch normalisation among them keeps its statistics.

    Frozen parameters are in the optimizer from the start, and get no gradient. Several of these callbacks, each with
    its own patterns and end, thaw a network in stages: a parameter is frozen while any of them freezes it. Freezing
    works on one device and under DDP.

    Args:
        parameters: what to freeze, as ``experiments.learning.param_groups.matching_parameter_names`` reads it.
        until: the number of epochs, or the fraction of all epochs, below 1 and rounded up, after which they are
            trained; None never trains them.

    Raises:
        ValueError: if ``until`` is above 1 and not whole.
    """

    @ranges(until="> 0")
    def __init__(self, parameters: Sequence[str] = ("backbone",), until: float | None = 1) -> None:
        if until is not None and until > 1 and until != int(until):
            raise ValueError(f"until={until} must be a whole number of epochs, or a fraction of all of them below 1")
        self.parameters = list(parameters)
        self.until = until
        self._target_names: list[str] = []
        self._was_frozen = False
        self._layers_in_eval: list[_BatchNorm] = []  # layers that this callback has put into evaluation mode

    @property
    def state_key(self) -> str:
        """Unique for each of several, as Lightning requires."""
        return f"{type(self).__qualname__}{self.parameters}{self.until}"

    def describe(self, module: nn.Module, num_classes: int | None = None) -> str:
        """Say what is frozen, and until when."""
        parameters = named_parameters(module)
        count = sum(parameters[name].numel() for name in self.parameter_names(module, num_classes))
        if self.until is None:
            end = "for good"
        elif self.until < 1:
            end = f"for {self.until:.0%} of the epochs"
        else:
            end = f"for {self.until:g} epoch{'s' if self.until > 1 else ''}"
        return f"frozen {end}: {', '.join(self.parameters)} ({count:,} parameters)"

    def parameter_names(self, module: nn.Module, num_classes: int | None = None) -> list[str]:
        """The names of the parameters that this callback freezes; a Classifier knows its ``num_classes``."""
        known = getattr(module, "num_classes", num_classes)
        return matching_parameter_names(module, self.parameters, known, "callbacks.freeze.parameters")

    def is_frozen_in(self, epoch: int, max_epochs: int | None) -> bool:
        """Whether its parameters are frozen in an epoch, counted from 0."""
        if self.until is None:
            return True
        if self.until < 1:
            if max_epochs is None or max_epochs < 0:
                raise UserError(f"callbacks.freeze.until={self.until:g}: the run has no last epoch. Name an epoch")
            return epoch < math.ceil(self.until * max_epochs)
        return epoch < self.until

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look for the parameters before anything is trained."""
        if stage != "fit":
            return
        self._target_names = self.parameter_names(pl_module)
        if not isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)):
            raise UserError(
                f"callbacks.freeze works on one device and with DDP, not with {type(trainer.strategy).__name__}"
            )
        if isinstance(trainer.strategy, DDPStrategy):
            let_ddp_find_unused_parameters(trainer.strategy)
        last = trainer.max_epochs or 0
        if trainer.is_global_zero and self.until is not None and last > 0 and self.is_frozen_in(last - 1, last):
            log.warning("%s stays frozen: the run has %d epochs", ", ".join(self.parameters), last)
        frozen = {name for each in _freeze_callbacks(trainer) for name in each.parameter_names(pl_module)}
        if not named_parameters(pl_module).keys() - frozen:
            raise UserError("callbacks.freeze: it leaves no parameter to train. Freeze fewer, such as [backbone]")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze after DDP has wrapped the module: it would skip for good what is frozen before."""
        self._update_requires_grad(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze again: a resumed run knows its epoch only now."""
        self._set_batch_norm_modes(pl_module, self._update_requires_grad(trainer, pl_module))
        self._was_frozen = self.is_frozen_in(trainer.current_epoch, trainer.max_epochs)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        frozen = self._update_requires_grad(trainer, pl_module)
        self._set_batch_norm_modes(pl_module, frozen)
        epoch = trainer.current_epoch
        before, self._was_frozen = self._was_frozen, self.is_frozen_in(epoch, trainer.max_epochs)
        if trainer.is_global_zero and before and not self._was_frozen:
            others = " but for what others freeze" if frozen.intersection(self._target_names) else ""
            log.info("epoch %d: from here on, %s is trained%s", epoch + 1, ", ".join(self.parameters), others)

    def _update_requires_grad(self, trainer: Trainer, pl_module: LightningModule) -> set[str]:
        """Freeze what any of these callbacks freezes now, and no more; return the names."""
        frozen = {
            name
            for callback in _freeze_callbacks(trainer)
            if callback.is_frozen_in(trainer.current_epoch, trainer.max_epochs)
            for name in callback._target_names
        }
        parameters = named_parameters(pl_module)
        for name in self._target_names:
            parameters[name].requires_grad_(name not in frozen)
        return frozen

    def _set_batch_norm_modes(self, pl_module: LightningModule, frozen: set[str]) -> None:
        """Let frozen batch normalisation keep its statistics, and thawed ones go on."""
        for layer in self._layers_in_eval:
            layer.train()
        self._layers_in_eval = [layer for layer in _frozen_batch_norms(pl_module, frozen) if layer.training]
        for layer in self._layers_in_eval:
            layer.eval()


def _freeze_callbacks(trainer: Trainer) -> list[Freeze]:
    return [callback for callback in trainer.callbacks if isinstance(callback, Freeze)]  # type: ignore[attr-defined]


def _frozen_batch_norms(module: nn.Module, frozen: set[str]) -> list[_BatchNorm]:
    """Batch normalisation of which all parameters are frozen."""
    found = []
    for name, layer in module.named_modules():
        own = [f"{name}.{key}".removeprefix("net.") for key, _ in layer.named_parameters(recurse=False)]
        if isinstance(layer, _BatchNorm) and own and frozen.issuperset(own):
            found.append(layer)
    return found

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
from experiments.learning.param_groups import matching_parameters, named_parameters

log = logging.getLogger(__name__)


class Freeze(Callback):
    """Keeps parameters as they are until an epoch begins; batch normalisation among them keeps its statistics.

    Frozen parameters are in the optimizer from the start, and get no gradient. Several of these callbacks, each with
    its own patterns and end, thaw a network in stages; what one of them freezes is frozen. It works on one device and
    under DDP.

    Args:
        parameters: what to freeze, as ``experiments.learning.param_groups.matching_parameters`` reads it.
        until: the number of epochs, or the fraction of all epochs, below 1 and rounded up, after which they are
            trained; None never trains them.

    Raises:
        ValueError: if ``until`` is neither.
    """

    @ranges(until="> 0")
    def __init__(self, parameters: Sequence[str] = ("backbone",), until: float | None = 1) -> None:
        if until is not None and until > 1 and until != int(until):
            raise ValueError(f"until={until} must be a whole number of epochs, or a fraction of all of them below 1")
        self.parameters = list(parameters)
        self.until = until
        self._names: list[str] = []
        self._freezes = False
        self._resting: list[_BatchNorm] = []  # layers that this callback has put into evaluation mode

    @property
    def state_key(self) -> str:
        """Another one for each of several."""
        return f"{type(self).__qualname__}{self.parameters}{self.until}"

    def describe(self, module: nn.Module, num_classes: int | None = None) -> str:
        """Say what is frozen, and until when."""
        parameters = named_parameters(module)
        count = sum(parameters[name].numel() for name in self.names(module, num_classes))
        if self.until is None:
            end = "for good"
        elif self.until < 1:
            end = f"for {self.until:.0%} of the epochs"
        else:
            end = f"for {self.until:g} epoch{'s' if self.until > 1 else ''}"
        return f"frozen {end}: {', '.join(self.parameters)} ({count:,} parameters)"

    def names(self, module: nn.Module, num_classes: int | None = None) -> list[str]:
        """The names of the parameters that this callback freezes; a Classifier knows its ``num_classes``."""
        known = getattr(module, "num_classes", num_classes)
        return matching_parameters(module, self.parameters, known, "callbacks.freeze.parameters")

    def freezes(self, epoch: int, max_epochs: int | None) -> bool:
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
        self._names = self.names(pl_module)
        if not isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)):
            raise UserError(
                f"callbacks.freeze: trainer.strategy={type(trainer.strategy).__name__} does not go with it"
            )
        if isinstance(trainer.strategy, DDPStrategy):
            let_ddp_find_unused_parameters(trainer.strategy)
        last = trainer.max_epochs or 0
        if trainer.is_global_zero and self.until is not None and last > 0 and self.freezes(last - 1, last):
            log.warning("%s stays frozen: the run has %d epochs", ", ".join(self.parameters), last)
        frozen = {name for each in _all(trainer) for name in each.names(pl_module)}
        if not named_parameters(pl_module).keys() - frozen:
            raise UserError("callbacks.freeze: it leaves no parameter to train. Freeze fewer, such as [backbone]")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze behind DDP's set-up, which forgets for good what is frozen before."""
        self._freeze(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Of a resumed run, the epoch is known now."""
        self._rest(pl_module, self._freeze(trainer, pl_module))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._rest(pl_module, self._freeze(trainer, pl_module))

    def _freeze(self, trainer: Trainer, pl_module: LightningModule) -> set[str]:
        """Freeze what any of the callbacks freezes now, and no more; return the names."""
        epoch, last = trainer.current_epoch, trainer.max_epochs
        frozen = {name for each in _all(trainer) if each.freezes(epoch, last) for name in each._names}
        parameters = named_parameters(pl_module)
        before, self._freezes = self._freezes, self.freezes(epoch, last)
        if trainer.is_global_zero and before and not self._freezes:
            others = " but for what others freeze" if frozen.intersection(self._names) else ""
            log.info("epoch %d: from here on, %s is trained%s", epoch + 1, ", ".join(self.parameters), others)
        for name in self._names:
            parameters[name].requires_grad_(name not in frozen)
        return frozen

    def _rest(self, pl_module: LightningModule, frozen: set[str]) -> None:
        """Let frozen batch normalisation keep its statistics, and thawed ones go on."""
        for layer in self._resting:
            layer.train()
        self._resting = [layer for layer in _layers(pl_module, frozen) if layer.training]
        for layer in self._resting:
            layer.eval()


def _all(trainer: Trainer) -> list[Freeze]:
    return [callback for callback in trainer.callbacks if isinstance(callback, Freeze)]  # type: ignore[attr-defined]


def _layers(module: nn.Module, frozen: set[str]) -> list[_BatchNorm]:
    """Batch normalisation of which all parameters are frozen."""
    found = []
    for name, layer in module.named_modules():
        own = [f"{name}.{key}".removeprefix("net.") for key, _ in layer.named_parameters(recurse=False)]
        if isinstance(layer, _BatchNorm) and own and frozen.issuperset(own):
            found.append(layer)
    return found

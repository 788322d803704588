"""The network as a graph."""

import logging
import warnings
from contextlib import redirect_stdout
from io import StringIO

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

log = logging.getLogger(__name__)


class Graph(Callback):
    """Shows TensorBoard the network's operations on one image, once, at the start.

    They are found by tracing: a network that cannot be traced is trained without its graph.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Trace, in evaluation mode and without touching any random state."""
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        image = pl_module.example_input_array
        if not (trainer.is_global_zero and loggers and isinstance(image, Tensor)):
            return
        net = getattr(pl_module, "net", pl_module)
        modes = {module: module.training for module in net.modules()}
        devices = [pl_module.device] if pl_module.device.type == "cuda" else []
        try:
            # torch prints what goes wrong before it raises it, and since 2.9 calls its own tracer deprecated
            with warnings.catch_warnings(), redirect_stdout(StringIO()), torch.no_grad():
                warnings.simplefilter("ignore")
                with torch.random.fork_rng(devices), trainer.precision_plugin.forward_context():
                    example = trainer.precision_plugin.convert_input(image.to(pl_module.device))
                    for logger in loggers:
                        logger.experiment.add_graph(net, example)
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            log.info("TensorBoard shows no graph, for %s cannot be traced: %s", type(net).__name__, reason)
        finally:
            for module, training in modes.items():
                module.training = training

"""Settle what a process must settle before it trains, and say what device it uses."""

import logging
import os
import sys
import warnings

import torch
from lightning import Trainer

from experiments.data.memory import keep_freed_memory
from experiments.errors import UserError


def prepare_process() -> None:
    """Settle what a process must settle before its first parallel operation. Notebooks may call it too.

    Adam's state fills with denormal numbers, which CPUs calculate with many times more slowly; set later than here,
    flushing them to zero has no effect on worker threads.
    """
    torch.set_flush_denormal(True)
    keep_freed_memory()
    if not torch.cuda.is_available():
        # Lightning has torch ask the driver's library, which is searched for anew where there is none; Adam asks
        # each step, and waits a tenth of the MLP's
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    for harmless in (
        ".*does not have many workers.*",  # batches come from memory: loader processes would slow them down
        ".*Checkpoint directory .* exists and is not empty.*",  # a run that goes on
        ".*is not supported by the model summary.*",  # its megabytes are counted in 32 bits
        ".*GPU available but not used.*",  # as it was asked for
        ".*smaller than the logging interval.*",  # metrics are logged every epoch anyway
        ".*It is recommended to use `self.log.*sync_dist=True.*",  # metrics have met the other ranks already
        ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning's own business with torch
    ):
        warnings.filterwarnings("ignore", message=harmless)
    if logging.getLogger().handlers:  # they say what Lightning's own handlers would say again
        for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).handlers.clear()
    # a run says by itself which device it uses and why it ended
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)


def show_messages() -> None:
    """Print what runs say where nobody has set up logging, as in a notebook."""
    ours = logging.getLogger("experiments")
    if not logging.getLogger().handlers and not ours.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)


def require_no_new_processes(trainer: Trainer) -> None:
    """Raise UserError if a run would start processes: as a job of a multirun, they would run all of it again."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if trainer.world_size > 1 and not (environment and environment.creates_processes_externally):
        raise UserError(
            f"a run of {trainer.world_size} processes cannot be a job of a multirun: each of them would start the "
            "whole multirun again. Run it without -m, let SLURM start the processes (hydra/launcher=submitit_slurm "
            "hydra.launcher.tasks_per_node=2), or give each run one device (trainer.devices=1) and let "
            "hydra.sweeper.workers=2 share the devices out"
        )

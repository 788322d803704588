"""What reaches into Lightning's private parts; each with what breaks without it, and why there is no public way."""

from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer import call
from torch.optim import Optimizer


def is_accumulating(trainer: Trainer) -> bool:
    """Whether the batch at hand ends without an optimizer step.

    Without it, steps that only add up gradients would be logged and saved as taken ones; Lightning tells no callback.
    """
    return trainer.fit_loop.epoch_loop._should_accumulate()


def count_optimizer_step(trainer: Trainer) -> None:
    """Count a step that Lightning did not take: ``global_step`` would stand still, and has no setter."""
    step = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step
    step.increment_ready()
    step.increment_completed()


def count_logged_steps(trainer: Trainer, steps: int) -> None:
    """Move the loggers' x-axis on: it counts Lightning's batches, and would count a list of batches as one."""
    trainer.fit_loop.epoch_loop._batches_that_stepped += steps


def logged_steps(checkpoint: dict[str, Any]) -> int:
    """How many steps of the loggers' x-axis a checkpoint holds.

    A resumed run could not tell TensorBoard which points will be logged again; the key has no public name.
    """
    return int(checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"]) + 1


def call_before_optimizer_step(trainer: Trainer, optimizer: Optimizer) -> None:
    """Let callbacks look at the gradients of a step that Lightning does not take; no public function calls them."""
    call._call_callback_hooks(trainer, "on_before_optimizer_step", optimizer)


def is_validation_due(trainer: Trainer) -> bool:
    """Whether a validation follows the batch at hand; a checkpoint of this moment would resume without it."""
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def restore_loader_position(trainer: Trainer) -> None:
    """Hand the train loader its position again.

    Lightning leaves it out where a schedule has asked for the number of steps before, and an epoch would start over.
    """
    trainer.fit_loop._load_combined_loader_states()


def end_resumed_epoch(trainer: Trainer) -> None:
    """Let plateau schedulers see the validation of an epoch that was resumed, which Lightning skips.

    The public property would set it to true again where ``max_steps`` counts, and end the run after this epoch.
    """
    trainer.fit_loop._restarting = False


def saves_by_steps(callback: ModelCheckpoint) -> bool:
    """Whether it saves every so many steps, which lists of batches would pass over; it has no public attribute."""
    return callback._every_n_train_steps > 0


def open_writer(logger: TensorBoardLogger) -> Any:
    """The logger's event writer if it has one: the public property would open another event file; or None."""
    return logger._experiment


def set_mlflow_run(logger: MLFlowLogger, run_id: str) -> None:
    """Let a logger go on with a run of MLflow's.

    The public argument asks for it before there is a store to look in.
    """
    logger._run_id = run_id


def let_ddp_find_unused_parameters(strategy: DDPStrategy) -> None:
    """Let DDP look for parameters without a gradient in every step.

    Without it, ranks would wait for the gradients of frozen parameters; the public argument is the user's.
    """
    strategy._ddp_kwargs.setdefault("find_unused_parameters", True)

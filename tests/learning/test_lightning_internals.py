"""The parts of Lightning's and torchmetrics' that this project reaches into are there, and do what they are for."""

import warnings

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.aggregation import SumMetric

from experiments.learning import lightning_internals as internals
from experiments.learning.torch_internals import set_update_count


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Watcher(Callback):
    """Notes what is due after each of four batches, in an epoch of two validations and two optimizer steps."""

    def __init__(self):
        self.seen = []
        self.called = 0

    def on_train_batch_end(self, trainer, module, *_):
        self.seen.append((internals.is_accumulating(trainer), internals.is_validation_due(trainer)))

    def on_before_optimizer_step(self, *_):
        self.called += 1


@pytest.fixture
def fitted(tmp_path):
    watcher = Watcher()
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, accumulate_grad_batches=2, val_check_interval=2, callbacks=[watcher],
        logger=TensorBoardLogger(tmp_path), default_root_dir=tmp_path, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    data = DataLoader(TensorDataset(torch.zeros(4, 2)))
    trainer.fit(Module(), data, data)
    return trainer, watcher, tmp_path


def test_what_is_due_after_a_batch_is_known(fitted):
    _, watcher, _ = fitted
    assert [accumulating for accumulating, _ in watcher.seen] == [True, False, True, False], (
        internals.is_accumulating.__doc__
    )
    assert [due for _, due in watcher.seen] == [False, True, False, True], internals.is_validation_due.__doc__


def test_steps_are_counted(fitted):
    trainer, watcher, folder = fitted
    assert (trainer.global_step, watcher.called) == (2, 2)
    internals.count_optimizer_step(trainer)
    assert trainer.global_step == 3, internals.count_optimizer_step.__doc__
    trainer.save_checkpoint(folder / "before.ckpt")
    before = internals.logged_steps(torch.load(folder / "before.ckpt", weights_only=True))
    internals.count_logged_steps(trainer, 5)
    trainer.save_checkpoint(folder / "after.ckpt")
    after = internals.logged_steps(torch.load(folder / "after.ckpt", weights_only=True))
    assert after - before == 5, internals.count_logged_steps.__doc__


def test_callbacks_are_called_before_a_step_of_ours(fitted):
    trainer, watcher, _ = fitted
    internals.call_before_optimizer_step(trainer, trainer.optimizers[0])
    assert watcher.called == 3, internals.call_before_optimizer_step.__doc__


def test_a_resumed_epochs_state_is_there(fitted):
    trainer, _, _ = fitted
    assert hasattr(trainer.fit_loop, "_load_combined_loader_states"), internals.restore_loader_position.__doc__
    trainer.fit_loop.restarting = True
    internals.end_resumed_epoch(trainer)
    assert not trainer.fit_loop.restarting, internals.end_resumed_epoch.__doc__


def test_a_loggers_writer_is_seen_without_opening_it(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    assert internals.open_writer(logger) is None, internals.open_writer.__doc__
    assert internals.open_writer(logger) is not logger.experiment
    assert internals.open_writer(logger) is logger.experiment


def test_checkpoints_by_steps_are_told_from_others(tmp_path):
    assert internals.saves_by_steps(ModelCheckpoint(tmp_path, every_n_train_steps=3)), (
        internals.saves_by_steps.__doc__
    )
    assert not internals.saves_by_steps(ModelCheckpoint(tmp_path))


def test_a_metric_whose_states_are_restored_does_not_warn():
    metric = SumMetric()
    set_update_count(metric, 3)
    assert metric.update_count == 3, set_update_count.__doc__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.compute()


def test_ddp_is_told_to_look_for_unused_parameters():
    strategy = DDPStrategy()
    internals.let_ddp_find_unused_parameters(strategy)
    assert strategy._ddp_kwargs == {"find_unused_parameters": True}, internals.let_ddp_find_unused_parameters.__doc__
    chosen = DDPStrategy(find_unused_parameters=False)
    internals.let_ddp_find_unused_parameters(chosen)
    assert chosen._ddp_kwargs == {"find_unused_parameters": False}

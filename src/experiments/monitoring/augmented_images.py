"""Show what augmentation makes of images."""

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torchvision.utils import make_grid

from experiments.data import ImageDataModule
from experiments.errors import ranges


class AugmentedImages(Callback):
    """Shows TensorBoard the first images of the train split, and what augmentation makes of them; once, at the start.

    What it draws is what the first epoch would draw at such a batch; no random state is touched.
    """

    @ranges(num_images="whole, >= 1")
    def __init__(self, num_images: int = 32) -> None:
        self.num_images = num_images

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write both pictures, where there is augmentation and a TensorBoard to write to."""
        data = getattr(trainer, "datamodule", None)
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not (isinstance(data, ImageDataModule) and data.augment and loggers and trainer.is_global_zero):
            return
        split = data.splits["train"]
        images, labels = split[torch.arange(min(self.num_images, len(split)))]
        with torch.no_grad():
            augmented, _ = data.augmented(images, labels, epoch=0, position=0)
        for logger in loggers:
            for name, batch in (("before", images / 255), ("after", augmented.clamp(0, 1))):
                logger.experiment.add_image(f"augmentation/{name}", make_grid(batch, nrow=8), trainer.global_step)

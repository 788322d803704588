"""A callback that ends the process when the first training step is due."""

import os

from lightning.pytorch.callbacks import Callback


class FirstStep(Callback):
    """Ends the process, as successfully as that can be told from outside."""

    def on_train_batch_start(self, *_: object) -> None:
        os._exit(0)

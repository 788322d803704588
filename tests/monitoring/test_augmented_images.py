import io

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import experiments
from experiments.training.build import build


def test_tensorboard_shows_a_batch_before_and_after_augmentation(tmp_path):
    config = experiments.compose(
        "augment=affine", "trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.accelerator=cpu",
        f"run_dir={tmp_path}",
    )  # fmt: skip
    experiment = build(config)
    experiment.trainer.fit(experiment.classifier, datamodule=experiment.data)
    events = EventAccumulator(str(tmp_path)).Reload()
    pictures = {}
    for name in ("before", "after"):
        (event,) = events.Images(f"augmentation/{name}")
        pictures[name] = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))[..., 0]
    first = experiment.data.splits["train"].tensors[0][0, 0].numpy()
    assert np.array_equal(pictures["before"][2:30, 2:30], first)
    assert pictures["after"].shape == pictures["before"].shape
    assert not np.array_equal(pictures["after"], pictures["before"])

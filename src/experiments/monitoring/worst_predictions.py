"""Show the images that were most confidently classified wrongly."""

from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule, Trainer
from PIL import Image
from torch import Tensor

from experiments.errors import ranges
from experiments.monitoring import drawing
from experiments.monitoring.loggers.log import log_picture, take_pictures
from experiments.monitoring.prediction_watcher import PredictionWatcher, probabilities


@dataclass(frozen=True)
class WrongPrediction:
    """An image, its class, the other one it was taken for, and how probable the network found that."""

    picture: Image.Image
    true: str
    predicted: str
    probability: float


class WorstPredictions(PredictionWatcher):
    """Shows the images that were classified wrongly with the greatest confidence.

    ``found``: for ``val`` and ``test``, the mistakes, the most confident first.
    """

    @ranges(num_images="whole, >= 1")
    def __init__(self, num_images: int = 24) -> None:
        super().__init__()
        self.num_images = num_images
        self.found: dict[str, list[WrongPrediction]] = {}
        self._kept: dict[str, Tensor] = {}

    def reset(self, pl_module: LightningModule, image_shape: tuple[int, ...]) -> None:
        """Nothing wrong yet: confidence -1 marks an empty place. Every rank has as many places."""
        count, device = self.num_images, pl_module.device
        self._kept = {
            "confidence": torch.full((count,), -1.0, device=device),
            "images": torch.zeros(count, *image_shape, device=device),
            "true": torch.zeros(count, dtype=torch.int64, device=device),
            "predicted": torch.zeros(count, dtype=torch.int64, device=device),
        }

    def update(self, images: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Keep the worst of those kept and these, without waiting for the device."""
        if images.shape[1:] != self._kept["images"].shape[1:]:
            return
        known = (labels >= 0) & (labels < len(self.class_names))
        confidence, predicted = probabilities(logits).max(1)
        confidence = torch.where(known & (predicted != labels), confidence, -1.0)
        new = {"confidence": confidence, "images": images.float(), "true": labels, "predicted": predicted}
        # of this batch first: the images are large
        chosen = confidence.topk(min(self.num_images, len(confidence))).indices
        self._kept = self._worst({name: torch.cat((self._kept[name], new[name][chosen])) for name in new})

    def _worst(self, some: dict[str, Tensor]) -> dict[str, Tensor]:
        order = some["confidence"].topk(self.num_images).indices
        return {name: values[order] for name, values in some.items()}

    def reduce(self, trainer: Trainer, stage: str) -> None:
        """The worst over all ranks, as pictures."""
        kept = self._kept
        if trainer.world_size > 1:
            gathered = {name: trainer.strategy.all_gather(values) for name, values in kept.items()}
            kept = self._worst({name: values.flatten(0, 1) for name, values in gathered.items()})
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        there = int((kept["confidence"] >= 0).sum())
        kept = {name: values[:there].cpu() for name, values in kept.items()}
        images = drawing.denormalized(kept.pop("images"), getattr(data, "mean", ()), getattr(data, "std", ()))
        rows = zip(*(kept[name].tolist() for name in ("true", "predicted", "confidence")), strict=True)
        names = self.class_names
        self.found[stage] = [
            WrongPrediction(picture, names[true], names[predicted], probability)
            for picture, (true, predicted, probability) in zip(drawing.pictures(images), rows, strict=False)
        ]

    def show(self, trainer: Trainer, stage: str) -> None:
        """``mistakes/<stage>``."""
        if self.found.get(stage) and take_pictures(trainer.loggers):
            picture = drawing.mistakes([(each.picture, caption(each)) for each in self.found[stage]])
            log_picture(trainer.loggers, f"mistakes/{stage}", picture, trainer.global_step)


def caption(mistake: WrongPrediction) -> tuple[str, str]:
    """Two short lines: what it is, and what it was taken for."""
    return f"is {mistake.true}", f"taken for {mistake.predicted} {mistake.probability:.1%}"

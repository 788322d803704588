"""What a network says of each class and each image, as tables to work with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from experiments.monitoring.drawing import Matrix, precision_recall_of
from experiments.monitoring.prediction_watcher import PredictionWatcher, probabilities
from experiments.runs.files import write_csv


def per_class(matrix: Matrix, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Each class's precision, recall, F1, accuracy (of telling it from all others) and support.

    None where it cannot be said: the precision of a class that is never predicted, the recall of one that is absent.

    Args:
        matrix: counts (num_classes, num_classes): true class by predicted one.
        class_names: in the order of the matrix.
    """
    precision, recall = precision_recall_of(matrix)
    right, support, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    total = matrix.sum()
    with np.errstate(invalid="ignore"):
        f1 = 2 * right / (support + predicted)
        accuracy = (total - support - predicted + 2 * right) / total
    columns = {"precision": precision, "recall": recall, "f1": f1, "accuracy": accuracy}
    return [
        {"class": name}
        | {key: None if np.isnan(values[index]) else float(values[index]) for key, values in columns.items()}
        | {"support": int(support[index])}
        for index, name in enumerate(class_names)
    ]


def write_class_tables(folder: Path, stage: str, matrix: Matrix, class_names: Sequence[str]) -> None:
    """Write ``per_class_<stage>.csv`` and ``confusion_<stage>.csv``, whose rows are true classes."""
    table = per_class(matrix, class_names)
    write_csv(folder / f"per_class_{stage}.csv", [list(table[0]), *(row.values() for row in table)])
    write_csv(
        folder / f"confusion_{stage}.csv",
        [["true", *class_names], *([name, *row] for name, row in zip(class_names, matrix.tolist(), strict=True))],
    )


class Predictions(PredictionWatcher):
    """Keeps each image's label, prediction and probability, in the order of the split."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[Tensor, Tensor, Tensor]] = []

    def reset(self, pl_module: LightningModule, image_shape: tuple[int, ...]) -> None:
        """Nothing was seen."""
        self.batches = []

    def update(self, images: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Keep a batch."""
        best = probabilities(logits).max(1)
        self.batches.append((labels.cpu(), best.indices.cpu(), best.values.cpu()))

    def reduce(self, trainer: Trainer, stage: str) -> None:
        """There is one process."""

    def show(self, trainer: Trainer, stage: str) -> None:
        """Leave it to ``write``."""

    def write(self, path: Path, files: Sequence[Path] | None = None) -> None:
        """Write a row an image: its index in the split or its file, label, prediction and probability."""
        labels, predicted, probability = (torch.cat(parts).tolist() for parts in zip(*self.batches, strict=True))
        names = dict(enumerate(self.class_names))
        images = range(len(labels)) if files is None else files
        rows = zip(images, labels, predicted, probability, strict=True)
        write_csv(
            path,
            [
                ["index" if files is None else "file", "label", "prediction", "probability"],
                *([image, names.get(true, ""), names[one], f"{value:.6g}"] for image, true, one, value in rows),
            ],
        )

"""Split images into parts, stratified by class and always the same."""

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split
from torch import Tensor
from torch.utils.data import TensorDataset

from experiments.data.images.cache import MappedImages, MappedSplit
from experiments.data.memory import to_device
from experiments.errors import UserError

# Splits never follow the experiment's seed: runs with different seeds must be comparable.
SPLIT_SEED = 0
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


def share(size: float | int, total: int, at_least: int) -> int:
    """The number of images that a count, or a fraction in (0, 1), of ``total`` stands for; a fraction's is no less
    than ``at_least``.
    """
    return max(round(size * total), at_least) if size < 1 else int(size)


def are_classes(labels: Tensor) -> bool:
    """Whether labels are a class an image (N,); other targets, several labels, values or masks, are not."""
    return labels.ndim == 1 and not labels.is_floating_point()


def stratified(indices: np.ndarray[Any, Any], labels: Tensor, count: int) -> tuple[Any, Any]:
    """Split ``indices`` into all but ``count`` and ``count``, both with the classes' shares of ``labels``, if any."""
    shares = labels.numpy() if are_classes(labels) else None
    try:
        rest, part = train_test_split(indices, test_size=count, stratify=shares, random_state=SPLIT_SEED)
    except ValueError as error:
        raise UserError(
            f"the {len(indices)} images cannot be split by class into {count} and the rest: {error}"
        ) from error
    return rest, part


def train_and_val(
    labels: Tensor, val_size: float | int, num_folds: int | None, fold: int | None, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Indices of a train and a validation part, ascending: ``val_size`` of them, or a fold; stratified by classes.

    Raises:
        UserError: if too few are left to train on, or a class has too few images.
    """
    indices = np.arange(len(labels))
    if num_folds is not None and fold is not None:
        kind = StratifiedKFold if are_classes(labels) else KFold
        folds = kind(num_folds, shuffle=True, random_state=SPLIT_SEED)
        try:
            train, val = list(folds.split(indices, labels))[fold]
        except ValueError as error:
            raise UserError(f"data.num_folds={num_folds}: {error}") from error
    else:
        count = share(val_size, len(labels), num_classes)
        if count + num_classes > len(labels):
            raise UserError(f"data.val_size={val_size} leaves too few of {len(labels)} images to train on")
        train, val = stratified(indices, labels, count)
    return torch.from_numpy(np.sort(train)), torch.from_numpy(np.sort(val))


def limited(indices: Tensor, labels: Tensor, limit: float | int | None, num_classes: int) -> Tensor:
    """The stratified part of ``indices`` that ``limit``, a fraction in (0, 1) or a count, allows.

    Raises:
        UserError: if it allows more images than there are, or fewer than there are classes.
    """
    if limit is None:
        return indices
    count = round(limit * len(indices)) if limit < 1 else int(limit)
    if limit == 1.0 and isinstance(limit, float):
        count = len(indices)
    if count > len(indices):
        raise UserError(f"data.limit={limit} exceeds the {len(indices)} images there are to train on")
    if count == len(indices):
        return indices
    if count < num_classes:
        raise UserError(f"data.limit={limit} leaves {count} images for {num_classes} classes")
    if are_classes(labels) and (surplus := len(indices) - count) < num_classes:  # too few to take some of each class
        of_class = [(labels[indices] == label).nonzero().flatten().tolist() for label in range(num_classes)]
        gone = [max(reversed(of_class), key=len).pop() for _ in range(surplus)]
        return torch.from_numpy(np.delete(indices.numpy(), gone))
    _, kept = stratified(indices.numpy(), labels[indices], count)
    return torch.from_numpy(np.sort(kept))


def split_folders(root: Path) -> tuple[dict[str, Path], list[str]]:
    """The folders of the splits by their names, and what other folders there are.

    Raises:
        UserError: if two folders are of one split.
    """
    found: dict[str, Path] = {}
    others = []
    for folder in sorted(path for path in root.glob("[!.]*") if path.is_dir()):
        split = next((split for split, names in SPLIT_NAMES.items() if folder.name.lower() in names), None)
        if split is None:
            others.append(folder.name)
        elif split in found:
            raise UserError(f"{found[split]} and {folder} are both of {split}: leave one of them there")
        else:
            found[split] = folder
    return {split: found[split] for split in SPLIT_NAMES if split in found}, others


Split: TypeAlias = TensorDataset | MappedSplit


def part_of(images: Tensor | MappedImages, labels: Tensor, indices: Tensor | None) -> Split:
    """The images of some indices, or all: a copy of those in memory, a list of indices into mapped ones.

    Raises:
        UserError: unless there are as many images as labels.
    """
    if len(images) != len(labels):
        raise UserError(f"data: there are {len(images):,} images and {len(labels):,} targets, which must be as many")
    some = torch.arange(len(labels)) if indices is None else indices
    if isinstance(images, MappedImages):
        return MappedSplit(images, labels[some], some)
    return TensorDataset(images, labels) if indices is None else TensorDataset(images[some], labels[some])


def labels_of(split: Split) -> Tensor:
    """The labels of all images, (N,)."""
    return split.labels if isinstance(split, MappedSplit) else split.tensors[1]


class ResidentSplit(TensorDataset):
    """A split on a GPU, which gets indices from the CPU without making Python wait for what it is at."""

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        if isinstance(index, Tensor) and not index.is_cuda:
            index = to_device(index, self.tensors[0].device)
        return super().__getitem__(index)


def resident(split: Split, device: torch.device) -> Split:
    """The split on the accelerator, where it takes no more than half of the free memory; else as it is."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    elif device.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    else:
        return split
    first = split[torch.arange(1)]
    if sum(tensor.nbytes for tensor in first) * len(split) > free / 2:
        return split
    kind = ResidentSplit if device.type == "cuda" else TensorDataset
    return kind(*(tensor.to(device) for tensor in split.tensors))

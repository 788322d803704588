"""Split images into parts, stratified by class and always the same."""

from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split
from torch import Tensor

from experiments.errors import UserError

# Splits never follow the experiment's seed: runs with different seeds must be comparable.
SPLIT_SEED = 0


def share(size: float | int, total: int, at_least: int) -> int:
    """The number of images that a count, or a fraction in (0, 1), of ``total`` stands for; a fraction's is no less
    than ``at_least``.
    """
    return max(round(size * total), at_least) if size < 1 else int(size)


def stratified(indices: np.ndarray[Any, Any], labels: Tensor, count: int) -> tuple[Any, Any]:
    """Split ``indices`` into all but ``count`` and ``count``, both with the classes' shares of ``labels``."""
    try:
        rest, part = train_test_split(indices, test_size=count, stratify=labels.numpy(), random_state=SPLIT_SEED)
    except ValueError as error:
        raise UserError(
            f"the {len(indices)} images cannot be split by class into {count} and the rest: {error}"
        ) from error
    return rest, part

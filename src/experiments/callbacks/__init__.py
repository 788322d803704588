"""What happens beside training."""

from experiments.callbacks.progress import Progress

__all__ = ["Progress"]

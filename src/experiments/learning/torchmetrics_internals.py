"""What reaches into torchmetrics' private parts; each with what breaks without it, and why there is no public way."""

from torchmetrics import Metric


def set_update_count(metric: Metric, count: int) -> None:
    """Say how often a metric whose states are restored was updated.

    A resumed run's metric would warn that it was never updated; ``update_count`` has no setter, and ``state_dict``
    leaves it out.
    """
    metric._update_count = count

"""Read values of a GPU without making it wait for Python."""

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class HostCopies:
    """Tensors on their way to main memory, each with what to do once it is there.

    Reading a GPU's tensor at once makes Python wait for all work before it, and then the GPU for Python.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[torch.cuda.Event, Tensor, Callable[[Tensor], None]]] = deque()

    def __reduce__(self) -> Any:
        """A copy begins without any."""
        return HostCopies, ()

    def add(self, value: Tensor, use: Callable[[Tensor], None]) -> None:
        """Copy a tensor and call ``use`` with the copy: at once on a CPU, else from ``use_arrived``."""
        if not value.is_cuda:
            use(value.detach())
            return
        copy = value.detach().to("cpu", non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self._pending.append((arrived, copy, use))

    def use_arrived(self, wait: bool = False) -> None:
        """Use the copies that have arrived, in their order; all of them, if told to wait."""
        while self._pending and (wait or self._pending[0][0].query()):
            arrived, copy, use = self._pending.popleft()
            arrived.synchronize()
            use(copy)

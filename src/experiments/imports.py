"""Importing what takes seconds."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unwatched() -> Iterator[None]:
    """Import without garbage collection, and keep what was imported out of it for good.

    Imports make millions of objects that stay; looking through them again and again takes a quarter of the time
    (benchmarks/start.py).
    """
    if "torch" in sys.modules:  # a later job of this process: what earlier ones left behind must be collected
        yield
        return
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # libraries count what is left over at the end
        if enabled:
            gc.enable()

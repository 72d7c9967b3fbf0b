"""While a process starts: the collector of garbage rests."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def resting() -> Iterator[None]:
    """Leave what is imported and built here to itself: the collector walked it over and over, which was a
    sixth of a short scan."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()

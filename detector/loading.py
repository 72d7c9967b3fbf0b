"""While a process starts: the collector of garbage rests, and what is imported late is fetched where that
cannot wait."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Final

# What modules import where they first need it, to spare those who never do.
LATE: Final = (
    "scipy.special", "Crypto.Hash.keccak", "Crypto.Hash.KangarooTwelve",
    "dns.exception", "dns.nameserver", "dns.resolver",
)  # fmt: skip


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


def late() -> None:
    """Import what is else imported late: once privileges were given up it may be out of reach."""
    for name in LATE:
        import_module(name)

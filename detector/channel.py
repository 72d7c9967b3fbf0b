"""What workers and who looks after them say to each other: orders, wishes and news, each one packet."""

import zlib
from collections.abc import Iterator
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry

from collectors.packet.sources import Handed
from detector.config import Config

RELOAD: Final = b"reload"
STOP: Final = b"stop"
# A packet on the channel, either way; the orders hold the whole configuration.
MOST_BYTES: Final = 4 << 20

Numbers = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


class Orders(msgspec.Struct, frozen=True):
    """What a worker is to do: the whole configuration; of exports its sockets by their descriptors, the
    address and the UDP ports that they are bound to; of packets its rings."""

    config: Config
    sockets: Numbers = ((), (), ())
    address: str = ""
    ports: tuple[int, ...] = ()
    rings: tuple[Handed, ...] = ()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All that it is to have."""
        return (*(n for kind in self.sockets for n in kind), *(ring.descriptor for ring in self.rings))


class Family(msgspec.Struct, frozen=True, array_like=True):
    """One metric with its samples: (name, labels, value)."""

    name: str
    told: str
    kind: str
    samples: list[tuple[str, dict[str, str], float]]


class News(msgspec.Struct, frozen=True):
    """What a worker tells.  ``reloads`` is how often it has read the lists again; ``sent`` is messages, rows,
    octets, refused, failed."""

    ready: bool
    status: str
    reloads: int
    sent: tuple[int, int, int, int, int]
    families: list[Family]


def families(registry: CollectorRegistry) -> Iterator[Family]:
    """All metrics as they are now."""
    for family in registry.collect():
        samples = [(s.name, dict(s.labels), float(s.value)) for s in family.samples]
        yield Family(family.name, family.documentation, family.type, samples)


def packed(news: News) -> bytes:
    """News as a packet."""
    return zlib.compress(msgspec.msgpack.encode(news), 1)


def unpacked(packet: bytes) -> News:
    """A packet as news."""
    return msgspec.msgpack.decode(zlib.decompress(packet), type=News)

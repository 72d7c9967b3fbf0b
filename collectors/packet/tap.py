"""All interfaces that are listened on: blocks of frames out, and their drops as metrics."""

import select
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from collectors.errors import ConfigError
from collectors.packet import afpacket, scapysource
from collectors.packet.pcapfile import Block
from collectors.packet.sources import CaptureConfig, Drops, Handed, Source, nothing

COUNT_S: Final = 1.0


class Metrics:
    """Everything that moves in this file, declared where it moves."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, told: str) -> Counter:
            return Counter(f"poolwatch_collector_packet_{name}", told, ("interface",), registry=registry)

        self.packets = counter("kernel_packets", "Frames that passed the kernel's filter, dropped ones too.")
        self.drops = counter("kernel_drops", "Frames dropped by the kernel: the ring was full.")
        self.freezes = counter("kernel_freezes", "Times that the ring was full.")
        self.reopened = counter("interface_reopened", "Times that an interface came back.")
        self.up = Gauge(
            "poolwatch_collector_packet_interface_up",
            "1 while the interface is there, up and has a carrier.",
            ("interface",),
            registry=registry,
        )


def source(interface: str, config: CaptureConfig, handed: Handed | None = None) -> Source:
    """The source that the configuration asks for, or what was ``handed`` to us; nothing is opened."""
    if config.source == "afpacket" and not afpacket.available():
        raise ConfigError("source = 'afpacket': this system has no AF_PACKET, try 'scapy'")
    if config.source == "scapy" or not afpacket.available():
        return scapysource.ScapySource(interface, config)
    return afpacket.Ring(interface, config, handed=handed)


class Tap(AbstractContextManager["Tap"]):
    """The sources of a configuration, opened on entering, or ``handed`` to us; and read in turn."""

    def __init__(
        self,
        config: CaptureConfig,
        metrics: Metrics,
        now: Callable[[], float] = time.monotonic,
        handed: Sequence[Handed] = (),
    ) -> None:
        if not config.interface:
            raise ConfigError("no interface to capture on")
        given = {one.interface: one for one in handed}
        self.sources = tuple(source(n, config, given.get(n)) for n in dict.fromkeys(config.interface))
        self._metrics = metrics
        self._now = now
        self._stack = ExitStack()
        self._told = {s.interface: (Drops(), 0) for s in self.sources}
        self._count_at = 0.0
        self._turn = 0

    def __enter__(self) -> "Tap":
        with ExitStack() as opening:
            for one in self.sources:
                opening.enter_context(one)
            self._stack = opening.pop_all()
        self._count()
        return self

    def __exit__(self, *error: object) -> None:
        self._count()
        self._stack.close()
        for one in self.sources:
            self._metrics.up.labels(one.interface).set(0)

    def read(self, wait_s: float = 0.1) -> Block:
        """Frames of one interface, in order; none when none came on any for ``wait_s``.

        Between interfaces the order is that of their blocks: it may be wrong by ``block_timeout_ms``.
        """
        if self._now() >= self._count_at:
            self._count()
        if len(self.sources) == 1:
            return self.sources[0].read(wait_s)
        block = self._any()
        if block is None and wait_s > 0:
            self._wait(wait_s)
            block = self._any()
        return block or nothing()

    def _any(self) -> Block | None:
        for _ in self.sources:
            self._turn = (self._turn + 1) % len(self.sources)
            block = self.sources[self._turn].read(0.0)
            if block.offset.size or block.refused:
                return block
        return None

    def _wait(self, wait_s: float) -> None:
        waiter = select.poll()
        for one in self.sources:
            if one.fileno() >= 0:
                waiter.register(one.fileno(), select.POLLIN)
        waiter.poll(wait_s * 1000)

    def _count(self) -> None:
        """Once a second: the kernel's sums are asked for by a system call."""
        self._count_at = self._now() + COUNT_S
        m = self._metrics
        for one in self.sources:
            before, reopened = self._told[one.interface]
            now = one.statistics()
            if now is not None:
                for counter, new, old in zip((m.packets, m.drops, m.freezes), now, before, strict=True):
                    counter.labels(one.interface).inc(new - old)
            m.reopened.labels(one.interface).inc(one.reopened - reopened)
            m.up.labels(one.interface).set(one.up)
            self._told[one.interface] = (now or before, one.reopened)

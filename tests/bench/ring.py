"""Live capture at rising rates: up to which nothing is dropped, by the ring alone and with the collector.

    .venv/bin/python tests/bench/ring.py [--seconds 4] [--packets 500000] [--rates 100,200]

Root only.  In a network namespace of its own, a second process sends the mixed capture of ``packets.py`` into
a veth pair by sendmmsg(2), as fast as asked or as it can, for ``--seconds``; here it is read from the ring,
alone (``ring``) or into a Collector whose publisher throws away (``collector``).  Dropped is the kernel's own
count.  CPU is ours without the kernel's softirq work, which is done on the sender's time.  Both share the
machine's cores, so the highest rate is the sender's as often as ours.  Report only: exit status 0.
"""

import argparse
import ctypes
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "helpers")]

import netns  # noqa: E402
import packets  # noqa: E402
from prometheus_client import CollectorRegistry  # noqa: E402

from collectors import subscribers  # noqa: E402
from collectors.packet import afpacket, collector, pcapfile, ring  # noqa: E402
from collectors.packet.sources import CaptureConfig  # noqa: E402

RATES = (50, 100, 200, 300, 400, 600, 800, 0)
BATCH = 64
PACKET_QDISC_BYPASS = 20
HEADER = np.dtype([
    ("name", "u8"), ("name_size", "u8"), ("parts", "u8"), ("part_count", "u8"), ("control", "u8"),
    ("control_size", "u8"), ("flags", "u8"), ("sent", "u8"),
])  # fmt: skip
PART = np.dtype([("at", "u8"), ("size", "u8")])


class Run(NamedTuple):
    """What came of one rate; ``bits`` are a frame's, ``busy`` the share of a core."""

    sent: int
    rate: float
    bits: float
    seen: int
    drops: int
    cpu_s: float
    busy: float

    def cells(self) -> tuple[str, ...]:
        return (
            f"{self.rate / 1e3:.0f}", f"{self.bits * self.rate / 1e9:.2f}", f"{self.seen:,}",
            f"{self.drops:,}",
            f"{100 * self.drops / self.sent:.2f}", f"{self.cpu_s / max(1, self.seen) * 1e6:.2f}",
            f"{self.busy:.2f}",
        )  # fmt: skip


class Sender:
    """Frames of a capture, ready for sendmmsg: struct mmsghdr and struct iovec, built once."""

    def __init__(self, path: Path, most: int) -> None:
        with path.open("rb") as file:
            found = list(pcapfile.blocks(file))
        self._blocks = found  # keeps the octets where they are
        self._parts = np.zeros(sum(b.offset.size for b in found), PART)
        self._parts["at"] = np.concatenate([b.offset + b.data.ctypes.data for b in found])
        self._parts["size"] = np.concatenate([b.captured for b in found])
        self._parts = self._parts[:most].copy()
        self._headers = np.zeros(self._parts.size, HEADER)
        self._headers["parts"] = self._parts.ctypes.data + np.arange(self._parts.size) * PART.itemsize
        self._headers["part_count"] = 1

    def run(self, name: str, rate: int, seconds: float) -> int:
        """Send at ``rate`` packets a second (0: no limit) for ``seconds``; how many were sent."""
        call = ctypes.CDLL(None, use_errno=True).sendmmsg
        first, count = self._headers.ctypes.data, self._headers.size
        sent = 0
        with netns.sender(name) as opened:
            opened.setsockopt(ring.SOL_PACKET, PACKET_QDISC_BYPASS, 1)
            opened.setsockopt(1, 32, 8 << 20)  # SO_SNDBUFFORCE
            number = opened.fileno()
            begun = time.perf_counter()
            while (now := time.perf_counter() - begun) < seconds:
                if rate and sent > now * rate:
                    time.sleep(max(0.0, sent / rate - now))
                    continue
                at = sent % count
                sent += max(0, call(number, ctypes.c_void_p(first + at * 64), min(BATCH, count - at), 0))
        return sent


def read(feed, config: CaptureConfig, sender: Sender, rate: int, seconds: float) -> Run:
    """One run: what was sent, seen and dropped."""
    with afpacket.Ring("pwb1", config) as source:
        ends, told = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.write(told, str(sender.run("pwb0", rate, seconds)).encode())
                code = 0
            finally:
                os._exit(code)
        os.close(told)
        begun, cpu, seen, octets, quiet = time.perf_counter(), time.process_time(), 0, 0, 0
        while quiet < 5 and time.perf_counter() - begun < seconds + 30:
            block = source.read(0.1)
            feed(block)
            seen += block.offset.size
            octets += int(block.length.sum())
            quiet = 0 if block.offset.size or time.perf_counter() - begun < seconds else quiet + 1
        cpu = time.process_time() - cpu
        _, status = os.waitpid(child, 0)
        sent = int(os.read(ends, 32) or 0)
        os.close(ends)
        drops = source.statistics()
    if status or not sent:
        sys.exit("the sender failed")
    return Run(sent, sent / seconds, octets * 8 / max(1, seen), seen, drops.drops, cpu, cpu / seconds)


def collecting():
    """A ``feed`` into a new collector."""
    made = collector.Collector(
        collector.Config(), subscribers.home(), 16, lambda *_: None, collector.Metrics(CollectorRegistry())
    )
    return lambda block: made.feed(block, time.time_ns())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--packets", type=int, default=500_000)
    parser.add_argument("--rates", default=",".join(map(str, RATES)), help="thousands a second; 0: no limit")
    parser.add_argument("--blocks", type=int, default=64)
    parser.add_argument("--block-kib", type=int, default=1024)
    options = parser.parse_args()
    if netns.why_not():
        sys.exit(netns.why_not())
    sender = Sender(packets.capture(options.packets, 1), options.packets)
    config = CaptureConfig(blocks=options.blocks, block_bytes=options.block_kib << 10)
    collector.warm()
    ring.warm()
    heads = (
        "path",
        "asked k/s",
        "sent k/s",
        "Gbit/s",
        "seen",
        "dropped",
        "dropped %",
        "us CPU/pkt",
        "core busy",
    )
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    with netns.entered():
        netns.veth("pwb0", "pwb1")
        for path in ("ring", "collector"):
            best = 0.0
            for thousands in (int(text) for text in options.rates.split(",")):
                feed = collecting() if path == "collector" else lambda _: None
                got = read(feed, config, sender, thousands * 1000, options.seconds)
                best = max(best, 0.0 if got.drops else got.rate)
                cells = (path, thousands or "max", *got.cells())
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)
            print(f"\n{path}: nothing dropped up to {best / 1e3:.0f} thousand packets a second\n", flush=True)


if __name__ == "__main__":
    main()

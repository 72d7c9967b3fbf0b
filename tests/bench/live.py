"""The whole live path at rising rates: ring, collector and detector in one process, as in ``poolwatch run``.

    .venv/bin/python tests/bench/live.py [--seconds 4] [--packets 500000] [--rates 50,100]

Root only.  In a network namespace of its own a second process sends the mixed capture of ``packets.py`` into
a veth pair at each rate; here a loop as that of ``poolwatch run`` reads the ring, collects, judges.  Dropped
is the kernel's own count.  Then, at half the highest rate without a drop, miners of ``pcaps/`` are sent
beside it, each under an address of its own: the latency of an alert is from the sending of the last frame
that it takes to the transition.  All processes share the machine's cores.  Report only: exit status 0.
"""

import argparse
import os
import statistics
import sys
import time
from ipaddress import IPv4Address
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "helpers")]

import netns  # noqa: E402
import packets  # noqa: E402
import ring as ringbench  # noqa: E402
from rewrite_captures import readdress  # noqa: E402

from collectors.packet import afpacket, pcapfile  # noqa: E402
from collectors.packet.sources import CaptureConfig  # noqa: E402
from detector import app  # noqa: E402
from detector.config import Config  # noqa: E402

RATES = (25, 50, 75, 100, 150, 200, 300, 0)
# Frames of the capture that confirm the miner: tests/test_live.py counts them.
MINER, FRAMES = "cpuminer-scrypt-dense", 12
EVERY_S = 0.2


class Judging:
    """A live engine of its own, and when it confirmed whom."""

    def __init__(self) -> None:
        service = app.Service(Config())
        self.confirmed: dict[str, float] = {}
        service.live_sink = self
        self.live = app.Live(service, "bench", captures=True, receives=False)

    def alert(self, made) -> None:
        if made.to == "confirmed":
            self.confirmed.setdefault(made.subscriber, time.time())

    def incident(self, document) -> None:
        pass


def miners(count: int) -> list[list[bytes]]:
    """The frames that confirm one, under ``count`` addresses."""
    with (HERE.parents[1] / "pcaps" / f"{MINER}.pcap").open("rb") as file:
        (block,) = pcapfile.blocks(file)
    frames = [bytes(block.data[o : o + c]) for o, c in zip(block.offset, block.captured, strict=True)][
        :FRAMES
    ]
    pool = IPv4Address(frames[0][30:34])
    out = []
    for n in range(count):
        miner = IPv4Address("10.77.0.0") + n + 1
        ends = {pool.packed: (pool, miner)}
        out.append([readdress(f, *ends.get(f[26:30], (miner, pool)), f[:12]) for f in frames])
    return out


def inject(count: int) -> dict[str, float]:
    """Send one miner after the other; when the last frame of each went out."""
    out = {}
    with netns.sender("pwb0") as wire:
        for n, frames in enumerate(miners(count)):
            time.sleep(EVERY_S)
            for frame in frames:
                wire.send(frame)
            out[f"10.77.{(n + 1) >> 8}.{(n + 1) & 255}"] = time.time()
    return out


def latencies(config: CaptureConfig, sender, rate: int, count: int) -> None:
    judging, seconds = Judging(), count * EVERY_S + 2
    ends, told = os.pipe()
    with afpacket.Ring("pwb1", config) as source:
        children = [os.fork()]
        if children[0] == 0:
            sender.run("pwb0", rate, seconds)
            os._exit(0)
        children.append(os.fork())
        if children[1] == 0:
            time.sleep(1)
            os.write(told, " ".join(f"{a}={t}" for a, t in inject(count).items()).encode())
            os._exit(0)
        stops = time.monotonic() + seconds + 2
        while time.monotonic() < stops:
            judging.live.frames(source.read(0.1))
        drops = source.statistics().drops
    for child in children:
        os.waitpid(child, 0)
    sent = dict(pair.split("=") for pair in os.read(ends, 1 << 16).decode().split())
    took = sorted(judging.confirmed[a] - float(t) for a, t in sent.items() if a in judging.confirmed)
    cuts = statistics.quantiles(took, n=100) if len(took) > 1 else [0.0] * 99
    print(
        f"at {rate / 1e3:.0f} thousand packets a second, {drops:,} dropped: {len(took)} of {count} miners "
        f"confirmed, p50 {cuts[49]:.3f} s, p99 {cuts[98]:.3f} s, most {max(took, default=0):.3f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--packets", type=int, default=500_000)
    parser.add_argument("--miners", type=int, default=100)
    parser.add_argument("--rates", default=",".join(map(str, RATES)), help="thousands a second; 0: no limit")
    options = parser.parse_args()
    if netns.why_not():
        sys.exit(netns.why_not())
    sender = ringbench.Sender(packets.capture(options.packets, 1), options.packets)
    config = CaptureConfig()
    app.warm_kernels(print)
    print("| asked k/s | sent k/s | Gbit/s | seen | dropped | dropped % | us CPU/pkt | core busy |")
    print("|" + "---|" * 8)
    with netns.entered():
        netns.veth("pwb0", "pwb1")
        best = 0
        for thousands in (int(text) for text in options.rates.split(",")):
            judging = Judging()
            got = ringbench.read(judging.live.frames, config, sender, thousands * 1000, options.seconds)
            print(f"| {thousands or 'max'} | " + " | ".join(got.cells()) + " |", flush=True)
            best = max(best, 0 if got.drops else int(got.rate))
        print(f"\nnothing dropped up to {best / 1e3:.0f} thousand packets a second\n", flush=True)
        latencies(config, sender, best // 2, options.miners)


if __name__ == "__main__":
    main()

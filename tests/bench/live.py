"""Live capture at rising rates: workers that collect, then ring, collector and detector in one process.

    .venv/bin/python tests/bench/live.py [--seconds 4] [--packets 500000] [--rates 50,100] [--only workers]

Root only.  First tcpreplay (Debian's; left out where it is not there) sends the mixed capture of
``packets.py`` into a veth pair, and 1 and 2 workers read it: processes with a ring each, as ``collect
packets`` has them, whose collectors publish to nobody.  The last line has tcpreplay at its top speed.  CPU
seconds are those of tcpreplay, which does the kernel's work of delivery too, and of the workers.

Then the whole path, as in ``poolwatch run``: in a network namespace of its own a second process sends the
same capture at each rate; here a loop as that of ``poolwatch run`` reads the ring, collects, judges.  Dropped
is the kernel's own count.  Then, at half the highest rate without a drop, miners of ``pcaps/`` are sent
beside it, each under an address of its own: the latency of an alert is from the sending of the last frame
that it takes to the transition.  All processes share the machine's cores.  Report only: exit status 0.
"""

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from ipaddress import IPv4Address
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "helpers")]

import netns  # noqa: E402
import numpy as np  # noqa: E402
import packets  # noqa: E402
import ring as ringbench  # noqa: E402
from rewrite_captures import readdress  # noqa: E402

from collectors.packet import afpacket, pcapfile  # noqa: E402
from collectors.packet.sources import CaptureConfig, Handed  # noqa: E402
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


def working(handed: Handed, config: CaptureConfig, ready: int, told: int, seconds: float) -> None:
    """A worker, in a process of its own: read until nothing comes any more, and say what came."""
    feed = ringbench.collecting()
    with afpacket.Ring(handed.interface, config, handed=handed) as source:
        os.write(ready, b"1")
        began, cpu, seen, last = time.monotonic(), time.process_time(), 0, time.monotonic()
        # tcpreplay takes its time to load the capture.
        while time.monotonic() - last < (2 if seen else 60) and time.monotonic() - began < seconds + 90:
            block = source.read(0.1)
            feed(block)
            if block.offset.size:
                seen, last = seen + block.offset.size, time.monotonic()
        drops = source.statistics().drops
    os.write(told, json.dumps([seen, drops, time.process_time() - cpu]).encode())


def replay(path: Path, rate: int, seconds: float) -> tuple[int, float, float]:
    """Have tcpreplay send it over and over; packets, seconds and CPU seconds that it took."""
    speed = f"--pps={rate}" if rate else "--topspeed"
    command = ["tcpreplay", "-i", "pwb0", "-K", "--loop=0", speed, f"--duration={max(1, round(seconds))}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*command, str(path)], capture_output=True, text=True, timeout=seconds + 120, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = re.search(r"Actual: (\d+) packets .*? sent in ([0-9.]+) seconds", done.stdout)
    if not told:
        sys.exit(f"tcpreplay: {done.stdout}{done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return int(told[1]), float(told[2]), cpu


def workers(path: Path, mean_bits: float, count: int, rate: int, seconds: float) -> None:
    """One line of the table."""
    ends, told = os.pipe()
    waits, ready = os.pipe()
    children = []
    with afpacket.Rings(CaptureConfig(interface=("pwb1",)), count) as rings:
        for n in range(count):
            pid = os.fork()
            if pid == 0:
                working(rings.share(n)[0], rings.config, ready, told, seconds)
                os._exit(0)
            children.append(pid)
        for _ in children:
            os.read(waits, 1)
        sent, took, cpu = replay(path, rate, seconds)
        for pid in children:
            os.waitpid(pid, 0)
    os.close(told)
    got = [json.loads(line) for line in re.findall(r"\[.*?\]", os.read(ends, 1 << 16).decode())]
    for end in (ends, waits, ready):
        os.close(end)
    seen, drops = sum(g[0] for g in got), sum(g[1] for g in got)
    shares = " + ".join(f"{g[2]:.2f}" for g in got)
    cells = (
        count, rate // 1000 or "max", f"{sent / took / 1e3:.0f}", f"{sent / took * mean_bits / 1e9:.2f}",
        f"{sent:,}", f"{seen:,}", f"{drops:,}", f"{100 * drops / max(1, sent):.2f}", f"{cpu:.2f}", shares,
    )  # fmt: skip
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def replayed(path: Path, rates: list[int], seconds: float) -> None:
    """The table of workers."""
    with path.open("rb") as file:
        lengths = np.concatenate([block.length for block in pcapfile.blocks(file)])
    heads = ("workers", "asked k/s", "sent k/s", "Gbit/s", "sent", "seen", "dropped", "dropped %",
             "CPU s tcpreplay", "CPU s workers")  # fmt: skip
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for count in (1, 2):
        for thousands in rates:
            workers(path, float(lengths.mean()) * 8, count, thousands * 1000, seconds)
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--packets", type=int, default=500_000)
    parser.add_argument("--miners", type=int, default=100)
    parser.add_argument("--rates", default=",".join(map(str, RATES)), help="thousands a second; 0: no limit")
    parser.add_argument("--only", choices=("workers", "whole"), help="one of the two parts")
    options = parser.parse_args()
    if netns.why_not():
        sys.exit(netns.why_not())
    path = packets.capture(options.packets, 1)
    app.warm_kernels(print)
    rates = [int(text) for text in options.rates.split(",")]
    if options.only != "whole" and shutil.which("tcpreplay"):
        with netns.entered():
            netns.veth("pwb0", "pwb1")
            replayed(path, rates, options.seconds)
    if options.only == "workers":
        return
    sender = ringbench.Sender(path, options.packets)
    config = CaptureConfig()
    print("| asked k/s | sent k/s | Gbit/s | seen | dropped | dropped % | us CPU/pkt | core busy |")
    print("|" + "---|" * 8)
    with netns.entered():
        netns.veth("pwb0", "pwb1")
        best = 0
        for thousands in rates:
            judging = Judging()
            got = ringbench.read(judging.live.frames, config, sender, thousands * 1000, options.seconds)
            print(f"| {thousands or 'max'} | " + " | ".join(got.cells()) + " |", flush=True)
            best = max(best, 0 if got.drops else int(got.rate))
        print(f"\nnothing dropped up to {best / 1e3:.0f} thousand packets a second\n", flush=True)
        latencies(config, sender, best // 2, options.miners)


if __name__ == "__main__":
    main()

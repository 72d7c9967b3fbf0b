"""The packet path on a mixed capture, beside ndpiReader, tshark, scapy and a plain copy of the same file.

    .venv/bin/python tests/bench/packets.py [--packets 1000000] [--full]

The capture is made by ``tests/helpers/mixed.py`` once and kept in ``$POOLWATCH_BENCH_DIR`` (else a folder
below the temporary one).  Every program is a process of its own; its CPU time and peak memory are the
kernel's.  "Alone" counts the rows that it is handed; "encoded" does with each batch what the live collector
does before the socket (Arrow, headers, Kafka's record, zstd) for 32 partitions, told the time of a tap that
brings ``TAP_RATE`` packets a second.  What comes before the first packet is left out of our own rates and
shown apart: kernels are compiled beforehand, the collector's time is taken inside its process from the first
block on, and from ``poolwatch scan`` the time of a scan of a small capture is taken away.  ``--full`` repeats
the input until each of our own paths has worked for 30 s, and lets tshark and scapy see more.  Exit status 1
when a miner is missed or somebody else is suspected.
"""

import argparse
import gc
import hashlib
import json
import math
import os
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

HERE = Path(__file__).resolve().parent
HELPERS = HERE.parent / "helpers"
PCAPS = HERE.parents[1] / "pcaps"
sys.path[:0] = [str(HERE), str(HELPERS)]

import processes  # noqa: E402

FULL_S = 30
# Of the link that the issue speaks of: it decides how many rows go into a message.
TAP_RATE = 1_000_000
PARTITIONS = 32
SMALL = PCAPS / "xmrig-plain.pcap"
RANKS = ("", "resolved", "suspected", "confirmed")
HEADS = ("M packets", "CPU s", "Mpkt/CPU s", "Gbit/CPU s", "x ndpi", "peak MB", "start s")


@dataclass(frozen=True)
class Row:
    """One line of the table.  ``start_s`` is CPU time before the first packet."""

    name: str
    packets: int
    octets: int
    cpu_s: float
    peak_bytes: int
    start_s: float = 0.0

    @property
    def rate(self) -> float:
        """Packets per CPU second."""
        return self.packets / self.cpu_s if self.cpu_s > 0 else math.nan


def capture(packets: int, seed: int) -> Path:
    """The mixed capture, made unless the same generator has made it before."""
    folder = Path(os.environ.get("POOLWATCH_BENCH_DIR") or Path(tempfile.gettempdir()) / "poolwatch-bench")
    folder.mkdir(parents=True, exist_ok=True)
    sources = b"".join(p.read_bytes() for p in sorted(HELPERS.glob("*.py")))
    path = folder / f"mixed-{packets}-{seed}-{hashlib.sha256(sources).hexdigest()[:8]}.pcap"
    if not Path(f"{path}.json").is_file():
        print(f"making {path}", file=sys.stderr)
        made = processes.run(
            [sys.executable, HELPERS / "mixed.py", path, "--packets", str(packets), "--seed", str(seed)]
        )
        if made.status:
            sys.exit(made.error)
    return path


def slice_of(path: Path, packets: int) -> tuple[Path, int]:
    """The first packets of a capture as a file of its own, and its octets."""
    out, octets = path.with_suffix(f".first{packets}"), 0
    with path.open("rb") as source, out.open("wb") as target:
        target.write(source.read(24))
        for _ in range(packets):
            header = source.read(16)
            if len(header) < 16:
                break
            size = struct.unpack_from("<I", header, 8)[0]
            octets += size
            target.write(header + source.read(size))
    return out, octets


class Wire:
    """What a Feed sends to, as far as a broker's socket: the record laid out and compressed."""

    partitions = PARTITIONS

    def __init__(self) -> None:
        self.octets = 0

    def send(self, _stream, _partition, key, value, headers, *, rows, blocking):
        """As ``collectors.kafka.sender.Sender.send`` and the client's batch behind it."""
        from collectors.kafka import packing
        from collectors.kafka.clients import Future

        self.octets += len(packing.compressed("zstd", packing.record(key, value, headers)))
        return Future().success(None)


def collect(path: Path, passes: int, *, encoded: bool = False) -> None:
    """Inside a child: the packet collector over the file, its own CPU time from the first block on."""
    # kafka.py beside this file is not the library.
    sys.path[:] = [folder for folder in sys.path if folder != str(HERE)]
    from prometheus_client import CollectorRegistry

    from collectors import subscribers
    from collectors.kafka.sender import Feed
    from collectors.packet import collector, pcapfile

    rows, wire = 0, Wire()

    def publish(_stream: str, _partition: int, batch, _header) -> None:
        nonlocal rows
        rows += batch.num_rows

    def once(file: Path) -> None:
        put = Feed(wire, "", "bench", blocking=False).publish if encoded else publish
        metrics = collector.Metrics(CollectorRegistry())
        partitions = PARTITIONS if encoded else 1
        whole = collector.Collector(collector.Config(), subscribers.home(), partitions, put, metrics)
        seen, now = 0, time.time_ns()
        with file.open("rb") as opened:
            for block in pcapfile.blocks(opened):
                seen += block.offset.size
                whole.feed(block, now + seen * 1_000_000_000 // TAP_RATE if encoded else None)
        whole.finish()

    once(SMALL)
    gc.freeze()  # as the command does: ``detector.loading``
    rows, wire.octets, start = 0, 0, time.process_time()
    for _ in range(passes):
        once(path)
    cpu_s = time.process_time() - start
    print(json.dumps({"start_s": start, "cpu_s": cpu_s, "rows": rows, "octets": wire.octets}))


def dissect(path: Path) -> None:
    """Inside a child: scapy over the file, its own CPU time from the first packet on."""
    from scapy.layers.inet import IP, TCP
    from scapy.utils import PcapReader

    flows: dict[tuple, int] = {}
    start = time.process_time()
    with PcapReader(str(path)) as packets:
        for packet in packets:
            if IP in packet and TCP in packet:
                key = packet[IP].src, packet[TCP].sport, packet[IP].dst, packet[TCP].dport
                flows[key] = flows.get(key, 0) + len(packet)
    print(json.dumps({"start_s": start, "cpu_s": time.process_time() - start}))


def inside(part: str, path: Path, passes: int, packets: int, octets: int, name: str) -> Row:
    """A row from one of the functions above, run as a child of this script."""
    ran = processes.run([sys.executable, __file__, "--inside", part, path, "--passes", str(passes)])
    if ran.status:
        sys.exit(ran.error)
    told = json.loads(ran.out)
    return Row(name, packets * passes, octets * passes, told["cpu_s"], ran.peak_bytes, told["start_s"])


def outside(command: Sequence[str | Path], packets: int, octets: int, name: str) -> Row | None:
    """A row of somebody else's program, whole; None where it is not installed."""
    if shutil.which(str(command[0])) is None:
        print(f"{command[0]} is not installed: left out", file=sys.stderr)
        return None
    ran = processes.run(command)
    if ran.status:
        print(f"{command[0]}: exit status {ran.status}: {ran.error[:300]}", file=sys.stderr)
    return Row(name, packets, octets, ran.cpu_s, ran.peak_bytes)


def scanned(path: Path, passes: int, packets: int, octets: int, start_s: float) -> tuple[Row, dict]:
    """``poolwatch scan`` of the file, so many times over, and the document of it."""
    ran = processes.run([processes.POOLWATCH, "scan", "--json", *[path] * passes])
    if ran.status:
        sys.exit(f"poolwatch scan: exit status {ran.status}\n{ran.error[-2000:]}")
    row = Row(
        "poolwatch scan", packets * passes, octets * passes, ran.cpu_s - start_s, ran.peak_bytes, start_s
    )
    return row, json.loads(ran.out)


def subscriber(address: str) -> str:
    """The subscriber that an address belongs to: itself, or its /64."""
    if ip_address(address).version == 4:
        return address
    return str(ip_network(f"{address}/64", strict=False))


def judged(document: dict, truth: list[dict]) -> bool:
    """Print miners found of miners true, and who else was taken for one; True when the answer is right."""
    states: dict[str, str] = {}
    services: dict[str, set[str]] = {}
    rules: dict[str, set[str]] = {}
    for incident in document["incidents"]:
        name = incident["subscriber"]
        name = name if "/" not in name else str(ip_network(name, strict=False))
        states[name] = max(states.get(name, ""), incident["state"], key=RANKS.index)
        services.setdefault(name, set()).update(s["address"] for s in incident["services"])
        rules.setdefault(name, set()).update(f"{e['kind']} {e['rule']}" for e in incident["evidence"])
    miners = {subscriber(row["client"]): row for row in truth}
    found = [name for name in miners if states.get(name) == "confirmed"]
    right = [name for name in found if miners[name]["server"] in services[name]]
    others = sorted(set(states) - set(miners))
    print(f"miners: {len(found)} of {len(miners)} confirmed, {len(right)} with the right server")
    for name in [n for n in miners if n not in found][:5]:
        print(f"  missed: {miners[name]} state {states.get(name, 'none')}")
    print(f"others: {len(others)} subscribers with an incident who do not mine")
    for name in others[:10]:
        print(f"  {name} {states[name]}: {', '.join(sorted(rules[name]))}")
    return len(right) == len(miners) and not others


def table(rows: Sequence[Row | None]) -> None:
    """One line a program, with its ratio to ndpiReader."""
    peer = next((row for row in rows if row and row.name.startswith("ndpiReader")), None)
    print(" " * 34 + "".join(f"{head:>11}" for head in HEADS))
    for row in rows:
        if row:
            ratio = row.rate / peer.rate if peer else math.nan
            print(
                f"{row.name:34}{row.packets / 1e6:11.2f}{row.cpu_s:11.2f}{row.rate / 1e6:11.3f}"
                f"{row.octets * 8e-9 / row.cpu_s:11.2f}{ratio:11.2f}{row.peak_bytes / 1e6:11.0f}"
                f"{row.start_s:11.2f}"
            )


def enough(row: Row) -> int:
    """How many passes over the file make ``FULL_S`` seconds of work."""
    return max(1, math.ceil(FULL_S / max(row.cpu_s, 0.01)))


def describe(truth: dict) -> None:
    """What the capture is like, and the machine."""
    print(
        f"{truth['packets']} packets, {truth['connections']} connections, {len(truth['mining'])} mining, ",
        end="",
    )
    print(f"mean {truth['mean_packet_bytes']} bytes, payload {truth['payload_share']:.0%}")
    print(processes.machine())


def ours(path: Path, truth: dict, full: bool) -> tuple[list[Row], dict]:
    """The rows of our two paths, and what scan said."""
    packets, octets = truth["packets"], truth["frame_bytes"]
    # The first scan compiles the kernels if need be; the second is what every scan spends before it works.
    processes.run([processes.POOLWATCH, "scan", "--json", SMALL])
    start_s = processes.run([processes.POOLWATCH, "scan", "--json", SMALL]).cpu_s
    own = inside("collect", path, 1, packets, octets, "packet path alone")
    sent = inside("encode", path, 1, packets, octets, "packet path, encoded")
    whole, document = scanned(path, 1, packets, octets, start_s)
    if full:
        own = inside("collect", path, enough(own), packets, octets, own.name)
        sent = inside("encode", path, enough(sent), packets, octets, sent.name)
        whole, document = scanned(path, enough(whole), packets, octets, start_s)
    return [own, sent, whole], document


def theirs(path: Path, truth: dict, full: bool) -> list[Row | None]:
    """The rows of other programs; the slow ones see the beginning of the file only."""
    packets, octets = truth["packets"], truth["frame_bytes"]
    few, fewer = (min(n, packets) for n in ((300_000, 60_000) if full else (50_000, 10_000)))
    part, part_octets = slice_of(path, few)
    bit, bit_octets = slice_of(path, fewer)
    conversations = ("tshark", "-r", part, "-q", "-z", "conv,tcp")
    copy = ("tcpdump", "-r", path, "-w", "/dev/null")
    rows = [
        outside(("ndpiReader", "-i", path, "-q"), packets, octets, "ndpiReader -q"),
        outside(copy, packets, octets, "tcpdump -r -w /dev/null (copy)"),
        outside(conversations, few, part_octets, f"tshark conv,tcp, first {few}"),
        inside("dissect", bit, 1, fewer, bit_octets, f"scapy, first {fewer}"),
    ]
    part.unlink()
    bit.unlink()
    return rows


def main() -> int:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description="packets per CPU second, ours and others'")
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--full", action="store_true", help="at least 30 s of work for our own paths")
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--passes", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        part, path = options.inside[0], Path(options.inside[1])
        if part == "dissect":
            dissect(path)
        else:
            collect(path, options.passes, encoded=part == "encode")
        return 0
    path = capture(options.packets, options.seed)
    truth = json.loads(Path(f"{path}.json").read_text())
    describe(truth)
    own, document = ours(path, truth, options.full)
    table([*own, *theirs(path, truth, options.full)])
    return 0 if judged(document, truth["mining"]) else 1


if __name__ == "__main__":
    sys.exit(main())

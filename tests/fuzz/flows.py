"""Fuzzing the decoders of exports with atheris (libFuzzer), coverage of our own code as its guide.

    NUMBA_DISABLE_JIT=1 .venv/bin/python tests/fuzz/flows.py DECODER --seconds 1800 --corpus DIR

DECODER is ``fixed`` (NetFlow v1, v5, v7), ``netflow9``, ``ipfix`` or ``sflow``; or a form of imported
records: ``goflow2``, ``goflow2-json`` or ``pmacct``.  Compiled kernels run as plain Python, so that a read
outside an array is an error and branches count.  An input is a few datagrams (or values of a topic), each
behind two octets of length.  What must hold of any of them: the collector takes it and publishes batches
that pass the validation of the bus; the plain reader (``records``) decodes a datagram or refuses it; and both
find as many records.  DIR is filled with seeds at first, from the captures in ../shared where they are and
from our own.
"""

import argparse
import os
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

if os.environ.get("NUMBA_DISABLE_JIT") != "1":
    sys.exit("set NUMBA_DISABLE_JIT=1: compiled code shows neither its branches nor its mistakes")
try:
    import atheris
except ImportError:
    sys.exit("atheris is not here: .venv/bin/uv pip install atheris")

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2]))
sys.path.append(str(HERE.parents[1] / "collectors" / "netflow"))


def _plain_reading() -> ModuleType:
    """``collectors.reading`` without LLVM: a read outside the octets is an error."""

    def octets(data: np.ndarray, at: int, size: int = 8) -> bytes:
        if not 0 <= at <= data.size - size:
            raise IndexError(f"{size} octets at {at} of {data.size}")
        return data[int(at) : int(at) + size].tobytes()

    made = ModuleType("collectors.reading")
    made.PADDING = 16
    made.little = lambda data, at: np.uint64(int.from_bytes(octets(data, at), "little"))
    made.big = lambda data, at: np.uint64(int.from_bytes(octets(data, at), "big"))
    made.big16 = lambda data, at: np.int64(int.from_bytes(octets(data, at, 2), "big"))
    made.big32 = lambda data, at: np.int64(int.from_bytes(octets(data, at, 4), "big"))
    made.swapped = lambda word: np.uint64(int.from_bytes(int(word).to_bytes(8, "little"), "big"))
    return made


def _records(make: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """The fields of a row by their names, as compiled code has them."""

    kinds: dict[Any, np.dtype] = {}

    def made(shape: Any, dtype: Any = float, **more: Any) -> np.ndarray:
        kind = np.dtype(dtype)
        if kind.names:
            kind = kinds.setdefault(kind, np.dtype((np.record, kind)))
        return make(shape, kind, **more)

    return made


np.zeros, np.empty = _records(np.zeros), _records(np.empty)
sys.modules["collectors.reading"] = _plain_reading()
with atheris.instrument_imports(include=["collectors"]):
    from prometheus_client import CollectorRegistry

    from collectors import subscribers
    from collectors.app import sampled_frames
    from collectors.errors import DecodeError
    from collectors.importing import collector as importing
    from collectors.importing.metrics import Metrics as ImportMetrics
    from collectors.netflow import collector as netflow
    from collectors.netflow import records
    from collectors.netflow.datagrams import Datagram
    from collectors.netflow.metrics import Metrics

# Unsigned arithmetic wraps in compiled code without a word.
warnings.simplefilter("ignore", RuntimeWarning)
VERSIONS = {"fixed": (1, 5, 7), "netflow9": (9,), "ipfix": (10,), "sflow": (0,)}
_ADDRESS = b"\x0a\x00\x00\x01"
_FLOW = (
    b"\x08\x03\x18\x0a\x32\x04" + _ADDRESS + b"\x3a\x04" + _ADDRESS + b"\x48\xe8\x07\x50\x05\xa0\x01\x06"
    b"\xa8\x01\xbb\x03\xb0\x01\xbb\x03\x5a\x10" + 4 * _ADDRESS + b"\xf0\x06\x80\x80\x01"
)
VALUES: dict[str, tuple[bytes | str, ...]] = {
    "goflow2": (
        _FLOW,
        bytes([len(_FLOW)]) + _FLOW,
        bytes([len(_FLOW)]) + _FLOW + bytes([len(_FLOW)]) + _FLOW,
    ),
    "goflow2-json": (
        '{"type":"NETFLOW_V9","time_received_ns":1700000000000000000,"sampling_rate":10,"sampler_address":'
        '"192.0.2.1","time_flow_start_ns":1700000000000000000,"bytes":1000,"packets":5,"src_addr":"10.0.0.1",'
        '"dst_addr":"2001:db8::1","proto":"TCP","src_port":443,"dst_port":3333,"tcp_flags":24}',
    ),
    "pmacct": (
        '{"event_type":"purge","peer_ip_src":"192.0.2.1","ip_src":"10.0.0.1","ip_dst":"10.0.0.2",'
        '"port_src":1,"port_dst":3333,"tcp_flags":["SYN","ACK"],"ip_proto":"tcp",'
        '"timestamp_start":"2026-11-22 10:00:00.5","timestamp_end":"2026-11-22T10:00:01Z","packets":5,'
        '"bytes":1000,"sampling_rate":"10"}\n{"ip_src":"::1"}',
        '[{"ip_src":"10.0.0.1","ip_dst":"10.0.0.2","ip_proto":6,"timestamp_start":1700000000.25,"bytes":1}]',
    ),
}
CAPTURES = HERE.parents[3] / "shared" / "captures" / "flows"
EXPORTER = bytes(10) + b"\xff\xff" + bytes((192, 0, 2, 1))
HOME = subscribers.home(("0.0.0.0/0", "::/0"))
MOST_DATAGRAMS = 6
REGISTRY = CollectorRegistry()
METRICS = Metrics(REGISTRY)
IMPORTED = ImportMetrics(REGISTRY)
# Of sFlow the plain reader shows samples of every kind.
NAMES = ("poolwatch_collector_netflow_records", "poolwatch_collector_netflow_sflow_samples")
COUNTED = [one for one in REGISTRY._collector_to_names if getattr(one, "_name", "") in NAMES]
SECOND = 10**9


def datagrams(data: bytes, versions: tuple[int, ...]) -> Iterator[bytes]:
    """The datagrams of an input; the version of each is made one that is looked for."""
    at = made = 0
    while at + 2 <= len(data) and made < MOST_DATAGRAMS:
        size = struct.unpack_from(">H", data, at)[0]
        one = bytearray(data[at + 2 : at + 2 + size])
        at, made = at + 2 + size, made + 1
        if versions and len(one) >= 2 and int.from_bytes(one[:2], "big") not in versions:
            one[:2] = versions[one[1] % len(versions)].to_bytes(2, "big")
        yield bytes(one)


def framed(payloads: list[bytes]) -> bytes:
    """Datagrams as one input."""
    return b"".join(struct.pack(">H", len(p)) + p for p in payloads)


def seeds(decoder: str) -> Iterator[bytes]:
    """Inputs of real exporters: neighbours in a capture, for templates stand before their data."""
    from conftest import udp_payloads

    if decoder in VALUES:
        yield framed([value.encode() if isinstance(value, str) else value for value in VALUES[decoder]])
        return
    for path in sorted(CAPTURES.rglob("*.pcap")):
        try:
            payloads = [p for p, *_ in udp_payloads(path)]
        except (IndexError, KeyError, struct.error):
            continue
        mine = [p for p in payloads if int.from_bytes(p[:2], "big") in VERSIONS[decoder]]
        for first in range(0, min(len(mine), 32), 4):
            yield framed(mine[first : first + 4])
    yield framed([struct.pack(">HH", VERSIONS[decoder][-1], 1) + bytes(60)])
    if decoder == "fixed":
        for version, record in ((1, 52), (7, 52), (5, 48)):
            size = {1: 16, 5: 24, 7: 24}[version]
            yield framed([struct.pack(">HH", version, 2) + bytes(range(size - 4)) + bytes(range(2 * record))])


def publish(stream: str, partition: int, rows: Any, header: Any) -> None:
    """Raises where a batch is none."""
    rows.validate(full=True)


def counted() -> float:
    """The records that collectors have read."""
    return sum(
        sample.value
        for counter in COUNTED
        for family in counter.collect()
        for sample in family.samples
        if sample.name.endswith("_total") and sample.labels.get("protocol") != "sflow"
    )


def check(payloads: list[bytes]) -> None:
    """Raises whatever is wrong."""
    state, plain = records.State(frames=sampled_frames), 0
    for i, payload in enumerate(payloads):
        try:
            plain += len(records.records(payload, state, EXPORTER, i * SECOND))
        except DecodeError:
            continue
    before = counted()
    collector = netflow.Collector(netflow.Config(), HOME, 2, publish, METRICS, sampled_frames)
    collector.feed([Datagram(p, EXPORTER, 2055, i * SECOND) for i, p in enumerate(payloads)])
    collector.finish()
    found = counted() - before
    if not state.dropped and not state.refused and found != plain:
        raise AssertionError(f"the collector read {found} records, the plain reader {plain}")


def imported(form: str, values: list[bytes]) -> None:
    """Raises whatever is wrong."""
    collector = importing.Collector(importing.Config(form=form), HOME, 2, publish, IMPORTED)  # type: ignore[arg-type]
    collector.feed(values, [SECOND * 1_700_000_000] * len(values), SECOND * 1_700_000_000)
    collector.finish()


def main() -> None:
    """Parse the command line and fuzz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("decoder", choices=(*VERSIONS, *VALUES))
    parser.add_argument("--seconds", type=int, default=1800)
    parser.add_argument("--corpus", type=Path, required=True)
    options = parser.parse_args()
    options.corpus.mkdir(parents=True, exist_ok=True)
    if not any(options.corpus.iterdir()):
        for seed in seeds(options.decoder):
            (options.corpus / sha256(seed).hexdigest()[:16]).write_bytes(seed)
    versions = VERSIONS.get(options.decoder, ())

    def test(data: bytes) -> None:
        given = list(datagrams(data, versions))
        if versions:
            check(given)
        else:
            imported(options.decoder, given)

    atheris.Setup(
        [sys.argv[0], str(options.corpus), f"-max_total_time={options.seconds}", "-max_len=4096",
         f"-artifact_prefix={options.corpus.parent}/{options.decoder}-", "-timeout=60", "-rss_limit_mb=12000",
         "-print_final_stats=1"],
        test,
    )  # fmt: skip
    atheris.Fuzz()


if __name__ == "__main__":
    main()

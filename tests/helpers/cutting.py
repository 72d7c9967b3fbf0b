"""A recording of ours cut into files, as tcpdump rotates them."""

from pathlib import Path

WHOLE = Path(__file__).parents[2] / "pcaps" / "cpuminer-realpool-sha256d-vardiff.pcap"


def records(raw):
    """The records of a little-endian pcap file, headers included."""
    out, at = [], 24
    while at < len(raw):
        size = int.from_bytes(raw[at + 8 : at + 12], "little")
        out.append(raw[at : at + 16 + size])
        at += 16 + size
    return out


def parts(files):
    """The capture in so many files."""
    raw = WHOLE.read_bytes()
    found = records(raw)
    size = -(-len(found) // files)
    return [raw[:24] + b"".join(found[n * size : (n + 1) * size]) for n in range(files)]

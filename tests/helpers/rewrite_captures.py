"""Recorded captures in, the same captures with documentation addresses out: what fills ``pcaps/``.

    .venv/bin/python tests/helpers/rewrite_captures.py ../shared/captures/packets

``pcaps/manifest.toml`` says per file where the recording lies below that folder (``origin``) and which
``subscriber`` and ``server`` address it gets.  The side that opened a connection (SYN without ACK) becomes
the subscriber, the other the server, in every frame of that connection; MAC addresses become locally
administered ones made from 00-00-5E-00-53 (RFC 7042, for documentation).  IP and TCP checksums are computed
anew, for on loopback the kernel leaves TCP's unfinished.  Everything else stays as recorded: ports, payload,
sequence numbers, time stamps, link type, file header.  The sha256 of each written file goes into the
manifest.  Same input, same bytes: running it again changes nothing.

It reads what was recorded for this project and refuses anything else: little-endian microsecond pcap,
Ethernet, whole frames, IPv4 without fragments, TCP whose opening is in the file.
"""

import hashlib
import re
import struct
import sys
import tomllib
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

PCAPS = Path(__file__).parents[2] / "pcaps"
SYN, ACK = 0x02, 0x10


def frames(capture: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(record header, frame) of each packet of a pcap file.  Raises ValueError on any other form."""
    magic, _, _, _, _, _, link = struct.unpack_from("<IHHiIII", capture)
    if magic != 0xA1B2C3D4 or link != 1:
        raise ValueError("not a little-endian microsecond pcap of Ethernet frames")
    at = 24
    while at < len(capture):
        captured, length = struct.unpack_from("<II", capture, at + 8)
        if captured != length or at + 16 + captured > len(capture):
            raise ValueError(f"frame at {at} is not whole")
        yield capture[at : at + 16], capture[at + 16 : at + 16 + captured]
        at += 16 + captured


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def mac(side: int, address: IPv4Address) -> bytes:
    """A locally administered address that names the side (0 client, 1 server) and the host number."""
    return bytes((0x02, side, 0x5E, 0x00, 0x53, address.packed[3]))


def ends(frame: bytes) -> tuple[int, int, int]:
    """(source port, destination port, TCP flags).  Raises ValueError on what is not TCP over IPv4."""
    version, protocol = frame[14], frame[23]
    fragment = struct.unpack_from(">H", frame, 20)[0] & 0x3FFF
    if frame[12:14] != b"\x08\x00" or version >> 4 != 4 or protocol != 6 or fragment:
        raise ValueError("not an unfragmented TCP segment over IPv4")
    tcp = 14 + 4 * (version & 15)
    source, target = struct.unpack_from(">HH", frame, tcp)
    return source, target, frame[tcp + 13]


def readdress(frame: bytes, source: IPv4Address, target: IPv4Address, macs: bytes) -> bytes:
    """The frame with other addresses and right checksums."""
    size = struct.unpack_from(">H", frame, 16)[0]
    tcp = 4 * (frame[14] & 15)
    ip = bytearray(frame[14 : 14 + size])
    if len(ip) != size:
        raise ValueError("IP length runs past the frame")
    ip[12:20] = source.packed + target.packed
    ip[10:12] = bytes(2)
    struct.pack_into(">H", ip, 10, checksum(bytes(ip[:tcp])))
    pseudo = bytes(ip[12:20]) + struct.pack(">BBH", 0, 6, size - tcp)
    ip[tcp + 16 : tcp + 18] = bytes(2)
    struct.pack_into(">H", ip, tcp + 16, checksum(pseudo + bytes(ip[tcp:])))
    return macs + frame[12:14] + bytes(ip) + frame[14 + size :]


def rewrite(capture: bytes, subscriber: IPv4Address, server: IPv4Address) -> bytes:
    """A whole capture, re-addressed."""
    up = mac(1, server) + mac(0, subscriber)
    down = mac(0, subscriber) + mac(1, server)
    opened: set[tuple[int, int]] = set()
    out = [capture[:24]]
    for header, frame in frames(capture):
        source, target, flags = ends(frame)
        if flags & (SYN | ACK) == SYN:
            opened.add((source, target))
        if (source, target) in opened:
            new = readdress(frame, subscriber, server, up)
        elif (target, source) in opened:
            new = readdress(frame, server, subscriber, down)
        else:
            raise ValueError(f"who opened {source} - {target} is not in the capture")
        out += (header, new)
    return b"".join(out)


def main(recordings: Path) -> None:
    """Write every file of the manifest, and its sha256 into the manifest."""
    manifest = PCAPS / "manifest.toml"
    text = manifest.read_text()
    for row in tomllib.loads(text)["capture"]:
        recorded = (recordings / row["origin"]).read_bytes()
        new = rewrite(recorded, IPv4Address(row["subscriber"]), IPv4Address(row["server"]))
        (PCAPS / row["file"]).write_bytes(new)
        told = f'file = "{row["file"]}"\nsha256 = '
        text = re.sub(re.escape(told) + '"[^"]*"', f'{told}"{hashlib.sha256(new).hexdigest()}"', text)
    manifest.write_text(text)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} FOLDER  (the one that holds ours-positive and ours-negative)")
    main(Path(sys.argv[1]))

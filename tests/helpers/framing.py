"""Packets as columns in, the bytes of a pcap file out: Ethernet, VLAN, IPv4 and IPv6, TCP and UDP.

What a packet is comes from two tables: the script that its connection follows (payload, flags, relative
sequence numbers) and the connection itself (addresses, ports, initial numbers).  Checksums are right.  The
file is little-endian, microseconds, Ethernet.
"""

from typing import NamedTuple

import numpy as np

from collectors.jit import inline, kernel

PCAP_HEADER = np.array([0xA1B2C3D4, 0x00040002, 0, 0, 262144, 1], "<u4").tobytes()
TCP, UDP = 6, 17
SYN = 2


class Steps(NamedTuple):
    """Packets of all scripts, one after another; (n,) each.

    ``side`` 0 is the client's.  A payload is ``length`` bytes: the first ``head`` of them stand at ``at`` in
    the texts, the others are noise.  ``seq`` and ``ack`` count from the initial numbers.  ``wait_ns`` is the
    time since the script's start.
    """

    side: np.ndarray
    flags: np.ndarray
    at: np.ndarray
    head: np.ndarray
    length: np.ndarray
    seq: np.ndarray
    ack: np.ndarray
    wait_ns: np.ndarray


class Ends(NamedTuple):
    """Connections; (n,) each, addresses (n, 2, 16), ports and initial sequence numbers (n, 2), client first.

    ``version`` is 4 or 6, ``vlan`` 0 for none, ``noise`` where this connection begins in the noise.
    """

    protocol: np.ndarray
    version: np.ndarray
    vlan: np.ndarray
    address: np.ndarray
    port: np.ndarray
    isn: np.ndarray
    noise: np.ndarray


def sizes(steps: Steps, ends: Ends, connection: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Frame length of each packet, (n,) i8."""
    link = np.where(ends.vlan > 0, 18, 14) + np.where(ends.version == 6, 40, 20)
    syn = steps.flags & SYN > 0
    transport = np.where(ends.protocol[connection] == UDP, 8, np.where(syn[step], 40, 32))
    return link[connection] + transport + steps.length[step]


@inline
def _put2(out, at, value):
    out[at] = (value >> 8) & 0xFF
    out[at + 1] = value & 0xFF


@inline
def _put4(out, at, value):
    _put2(out, at, (value >> 16) & 0xFFFF)
    _put2(out, at + 2, value & 0xFFFF)


@inline
def _little4(out, at, value):
    for i in range(4):
        out[at + i] = (value >> (8 * i)) & 0xFF


@inline
def _sum(out, start, end, total):
    i = start
    while i + 1 < end:
        total += (np.int64(out[i]) << 8) | np.int64(out[i + 1])
        i += 2
    if i < end:
        total += np.int64(out[i]) << 8
    return total


@inline
def _fold(total):
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@inline
def _link(out, at, host, vlan, version, side):
    for i in range(12):
        out[at + i] = 0
    up, down = (0, 6) if side else (6, 0)
    out[at + up] = 2
    _put4(out, at + up + 2, host & 0xFFFFFFFF)
    out[at + down] = 2
    out[at + down + 5] = 1
    at += 12
    if vlan:
        _put2(out, at, 0x8100)
        _put2(out, at + 2, vlan)
        at += 4
    _put2(out, at, 0x86DD if version == 6 else 0x0800)
    return at + 2


@inline
def _internet(out, at, version, protocol, size, number, source, target):
    """Write the IP header for ``size`` bytes of transport; give back its end and the pseudo header's sum."""
    if version == 6:
        _put4(out, at, 0x60000000)
        _put2(out, at + 4, size)
        out[at + 6] = protocol
        out[at + 7] = 58
        for i in range(16):
            out[at + 8 + i] = source[i]
            out[at + 24 + i] = target[i]
        return at + 40, _sum(out, at + 8, at + 40, np.int64(protocol + size))
    _put4(out, at, 0x45000000 | (20 + size))
    _put4(out, at + 4, ((number & 0xFFFF) << 16) | 0x4000)
    out[at + 8] = 58
    out[at + 9] = protocol
    _put2(out, at + 10, 0)
    for i in range(4):
        out[at + 12 + i] = source[12 + i]
        out[at + 16 + i] = target[12 + i]
    _put2(out, at + 10, _fold(_sum(out, at, at + 20, np.int64(0))))
    return at + 20, _sum(out, at + 12, at + 20, np.int64(protocol + size))


@inline
def _tcp(out, at, flags, seq, ack, stamp):
    """Sequence numbers and the options that a Linux host sends; gives back the header's length."""
    size = 40 if flags & SYN else 32
    _put4(out, at + 4, seq & 0xFFFFFFFF)
    _put4(out, at + 8, ack & 0xFFFFFFFF if flags & 16 else 0)
    out[at + 12] = (size // 4) << 4
    out[at + 13] = flags
    _put2(out, at + 14, 64240)
    _put4(out, at + 16, 0)
    if flags & SYN:
        _put4(out, at + 20, 0x02040578)
        _put4(out, at + 24, 0x0402080A)
        _put4(out, at + 28, stamp)
        _put4(out, at + 32, 0)
        _put4(out, at + 36, 0x01030307)
    else:
        _put4(out, at + 20, 0x0101080A)
        _put4(out, at + 24, stamp)
        _put4(out, at + 28, stamp - 20)
    return size


@kernel
def assemble(steps, ends, texts, noise, connection, step, t_ns, where, first_number, out):
    """Write the packets into ``out``, record header first, packet i at ``where[i]``.

    ``where`` is (n + 1,) i8.  ``first_number`` is the running number of packet 0: IPv4 identification and
    the place in the noise follow from it.
    """
    for i in range(connection.size):
        c = connection[i]
        s = step[i]
        side = np.int64(steps.side[s])
        at = where[i]
        captured = where[i + 1] - at - 16
        _little4(out, at, t_ns[i] // 1_000_000_000)
        _little4(out, at + 4, (t_ns[i] % 1_000_000_000) // 1000)
        _little4(out, at + 8, captured)
        _little4(out, at + 12, captured)
        protocol = ends.protocol[c]
        host = np.int64(c)
        version = ends.version[c]
        at = _link(out, at + 16, host, np.int64(ends.vlan[c]), version, side)
        length = steps.length[s]
        flags = np.int64(steps.flags[s])
        header = 8 if protocol == UDP else (40 if flags & SYN else 32)
        number = np.int64(first_number + i)
        source = ends.address[c, side]
        at, pseudo = _internet(
            out, at, version, np.int64(protocol), header + length, number, source, ends.address[c, 1 - side]
        )
        _put2(out, at, np.int64(ends.port[c, side]))
        _put2(out, at + 2, np.int64(ends.port[c, 1 - side]))
        check = at + 6 if protocol == UDP else at + 16
        if protocol == UDP:
            _put2(out, at + 4, 8 + length)
            _put2(out, at + 6, 0)
        else:
            seq = np.int64(ends.isn[c, side]) + steps.seq[s]
            ack = np.int64(ends.isn[c, 1 - side]) + steps.ack[s]
            _tcp(out, at, flags, seq, ack, (t_ns[i] // 1_000_000) & 0xFFFFFFFF)
        body = at + header
        head = steps.head[s]
        for j in range(head):
            out[body + j] = texts[steps.at[s] + j]
        rest = length - head
        if rest > 0:
            # A retransmission repeats its bytes: the place depends on the stream, not on the packet.
            start = (ends.noise[c] + steps.seq[s] * 7 + s * 1021) % (noise.size - 65536)
            out[body + head : body + length] = noise[start : start + rest]
        total = _fold(_sum(out, at, body + length, pseudo))
        _put2(out, check, 0xFFFF if total == 0 and protocol == UDP else total)

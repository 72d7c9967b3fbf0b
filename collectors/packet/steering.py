"""Which of several rings a frame goes to: a program for the kernel, and its twin in Python.

The kernel's own hash (PACKET_FANOUT_HASH) takes the ports in, so the fragments of a packet go elsewhere than
its connection; it knows nothing of VXLAN, GENEVE or GTP-U, so that a tunnel is one connection to it, and all
of MPLS one.  This classic BPF program (PACKET_FANOUT_CBPF, Linux 4.3) goes to the innermost IP header, as
``frames`` does, and chooses by its two addresses alone: both directions, every fragment and all connections
of a pair come to one ring, so they have one flow table and one reassembly.

By the outer addresses go: what is in fragments of the tunnel's own packets, in Teredo or PPTP, or behind
IPv6 extension headers.  What is not IP goes to one ring, and what is cut short within its headers to the
first.  A connection whose directions are in tunnels between other ends is still one: only addresses count.
"""

import struct
from collections.abc import Iterator
from typing import Final

# Headers that are stepped over: tags, label stacks, sessions, tunnels, IP headers; ``links`` and ``frames``
# go further, but no link that is known does.
LEVELS: Final = 8

_FACTOR: Final = 0x9E3779B1
_MIX: Final = 0x85EBCA6B
_MASK: Final = 0xFFFFFFFF
_MAPPED: Final = bytes(10) + b"\xff\xff"

# linux/bpf_common.h and linux/filter.h: load from X + k, from memory, of what the kernel says of a frame.
_WORD, _HALF, _BYTE = 0x40, 0x48, 0x50
_AT_HALF: Final = 0x28
_SAID: Final = 0x20
_LOAD_X_VALUE: Final = 0x01
_FROM, _FROM_X, _TO, _TO_X = 0x60, 0x61, 0x02, 0x03
_ADD, _ADD_X, _MULTIPLY, _AND, _LEFT, _RIGHT, _XOR, _XOR_X = 0x04, 0x0C, 0x24, 0x54, 0x64, 0x74, 0xA4, 0xAC
_A_TO_X, _X_TO_A, _RETURN_A, _VALUE = 0x07, 0x87, 0x16, 0x00
_JUMP, _IF_EQUAL, _IF_SET = 0x05, 0x15, 0x45
_PROTOCOL: Final = 0xFFFFF000  # SKF_AD_OFF + SKF_AD_PROTOCOL, _PKTTYPE
_DIRECTION: Final = 0xFFFFF004
_OUTGOING: Final = 4
# Cells of memory: the two addresses folded, a protocol or EtherType, X, and two for sums.
_SOURCE, _TARGET, _KIND, _PLACE, _SUM, _OTHER = range(6)

Instruction = tuple[int, int, int, int]
Item = str | tuple[int, int] | tuple[int, int, str] | tuple[int, int, str, bool]


def _go(label: str) -> Item:
    return _JUMP, 0, label


def _equal(value: int, label: str) -> Item:
    return _IF_EQUAL, value, label


def _other(value: int, label: str) -> Item:
    """Jump where A is not ``value``."""
    return _IF_EQUAL, value, label, False


def _on(by: int) -> list[Item]:
    """Let X be ``by`` more; A is lost."""
    return [(_X_TO_A, 0), (_ADD, by), (_A_TO_X, 0)]


def _next(kind: int, by: int, level: int) -> list[Item]:
    """Go on ``by`` octets further, with what this EtherType announces."""
    return [*_on(by), (_VALUE, kind), _go(f"level{level + 1}")]


def _told_next(at: int, by: int, level: int) -> list[Item]:
    """The same, where the EtherType is at X + ``at``."""
    return [(_HALF, at), (_TO, _KIND), *_on(by), (_FROM, _KIND), _go(f"level{level + 1}")]


def _level(k: int) -> Iterator[Item]:
    """What an EtherType in A announces at X."""
    yield f"level{k}"
    for kind, label in (
        (0x0800, "four"), (0x86DD, "six"), (0x8100, "tag"), (0x88A8, "tag"), (0x9100, "tag"), (0x9200, "tag"),
        (0x8847, "labels"), (0x8848, "labels"), (0x8864, "session"), (0x6558, "bridged"),
    ):  # fmt: skip
        yield _equal(kind, f"{label}{k}")
    yield _go("done")
    yield f"tag{k}"
    yield from _told_next(2, 4, k)
    yield f"bridged{k}"
    yield from _told_next(12, 14, k)
    yield f"session{k}"
    yield from ((_HALF, 0), _other(0x1100, "done"), (_HALF, 6))
    yield from (_equal(0x21, f"ppp4{k}"), _equal(0x57, f"ppp6{k}"), _other(0x0281, "done"))
    yield from _next(0x8847, 8, k)
    yield f"ppp4{k}"
    yield from _next(0x0800, 8, k)
    yield f"ppp6{k}"
    yield from _next(0x86DD, 8, k)
    yield from _labels(k)
    yield from _four(k)
    yield from _six(k)
    yield from _gre(k)
    yield from _udp(k)


def _labels(k: int) -> Iterator[Item]:
    """A stack of labels, and what is below it; see ``links``."""
    yield f"labels{k}"
    for _ in range(4):
        yield from ((_BYTE, 2), (_TO, _KIND), *_on(4), (_FROM, _KIND), (_IF_SET, 1, f"bottom{k}"))
    yield from ((_VALUE, 0x8847), _go(f"level{k + 1}"))
    yield f"bottom{k}"
    yield from ((_BYTE, 0), (_RIGHT, 4))
    yield from (_equal(4, f"maybe4{k}"), _equal(6, f"maybe6{k}"), _other(0, f"wire{k}"))
    # A control word, where an Ethernet header with something that we read is behind it.
    yield (_HALF, 16)
    for kind in (0x0800, 0x86DD, 0x8100, 0x88A8, 0x8847, 0x8864):
        yield _equal(kind, f"control{k}")
    yield _go(f"wire{k}")
    yield f"control{k}"
    yield from _next(0x6558, 4, k)
    # An address may begin with these nibbles too: is there an Ethernet header and IP behind it?
    for nibble, kind in ((4, 0x0800), (6, 0x86DD)):
        yield f"maybe{nibble}{k}"
        yield from ((_HALF, 12), _equal(0x0800, f"see{nibble}{k}"), _other(0x86DD, f"ip{nibble}{k}"))
        yield from ((_BYTE, 14), (_RIGHT, 4), _equal(6, f"wire{k}"), _go(f"ip{nibble}{k}"))
        yield from (f"see{nibble}{k}", (_BYTE, 14), (_RIGHT, 4), _equal(4, f"wire{k}"))
        yield from (f"ip{nibble}{k}", (_VALUE, kind), _go(f"level{k + 1}"))
    yield f"wire{k}"
    yield from ((_VALUE, 0x6558), _go(f"level{k + 1}"))


def _four(k: int) -> Iterator[Item]:
    yield f"four{k}"
    yield from ((_BYTE, 0), (_RIGHT, 4), _other(4, "done"))
    yield from ((_WORD, 12), (_TO, _SOURCE), (_WORD, 16), (_TO, _TARGET), (_BYTE, 9), _equal(6, "done"))
    yield from ((_TO, _KIND), (_HALF, 6), (_IF_SET, 0x3FFF, "done"))
    yield from ((_BYTE, 0), (_AND, 15), (_LEFT, 2), (_ADD_X, 0), (_A_TO_X, 0), (_FROM, _KIND))
    yield _go(f"carried{k}")


def _six(k: int) -> Iterator[Item]:
    yield f"six{k}"
    yield from ((_BYTE, 0), (_RIGHT, 4), _other(6, "done"), (_TO_X, _PLACE))
    for cell, first in ((_SOURCE, 8), (_TARGET, 24)):
        yield from ((_WORD, first), (_TO, cell))
        for at in (first + 4, first + 8, first + 12):
            yield from ((_WORD, at), (_FROM_X, cell), (_XOR_X, 0), (_TO, cell), (_FROM_X, _PLACE))
    yield from ((_BYTE, 6), _equal(6, "done"), (_TO, _KIND), *_on(40), (_FROM, _KIND))
    yield f"carried{k}"
    yield from (_equal(17, f"udp{k}"), _equal(47, f"gre{k}"))
    for protocol, kind in ((4, 0x0800), (41, 0x86DD), (137, 0x8847)):
        yield from (_other(protocol, f"not{protocol}.{k}"), (_VALUE, kind), _go(f"level{k + 1}"))
        yield f"not{protocol}.{k}"
    yield _go("done")


def _gre(k: int) -> Iterator[Item]:
    """RFC 2784, 2890, ERSPAN; no PPTP: see ``tunnels``."""
    yield f"gre{k}"
    yield from ((_HALF, 2), (_TO, _KIND), (_HALF, 0), (_IF_SET, 0x4FFF, "done"), (_TO, _SUM))
    # Four octets each for checksum, key and sequence number; _OTHER has whether the last is there.
    yield from ((_AND, 0x1000), (_TO, _OTHER))
    for n, flag in enumerate((0x8000, 0x2000, 0x1000)):
        yield from ((_FROM, _SUM), (_IF_SET, flag, f"has{k}.{n}"), _go(f"goes{k}.{n}"), f"has{k}.{n}")
        yield from (*_on(4), f"goes{k}.{n}")
    yield from ((_FROM, _KIND), _equal(0x88BE, f"span{k}"), _equal(0x22EB, f"span3{k}"), *_on(4))
    yield from ((_FROM, _KIND), _go(f"level{k + 1}"))
    yield f"span{k}"
    yield from ((_FROM, _OTHER), _equal(0, f"span1{k}"))
    yield from _next(0x6558, 12, k)
    yield f"span1{k}"
    yield from _next(0x6558, 4, k)
    yield f"span3{k}"
    yield from ((_BYTE, 15), (_IF_SET, 1, f"long{k}"))
    yield from _next(0x6558, 16, k)
    yield f"long{k}"
    yield from _next(0x6558, 24, k)


def _udp(k: int) -> Iterator[Item]:
    """VXLAN, VXLAN-GPE, GENEVE and GTP-U, by the port and the fixed bits of their header."""
    yield f"udp{k}"
    yield (_HALF, 2)
    for port, label in ((4789, "vxlan"), (8472, "vxlan"), (4790, "gpe"), (6081, "geneve"), (2152, "gtp")):
        yield _equal(port, f"{label}{k}")
    yield _go("done")
    yield f"vxlan{k}"
    yield from ((_BYTE, 8), (_AND, 8), _equal(0, "done"))
    yield from _next(0x6558, 16, k)
    yield f"gpe{k}"
    yield from ((_BYTE, 8), (_AND, 0x3C), _other(0x0C, "done"), (_BYTE, 11))
    for told, kind in ((1, 0x0800), (2, 0x86DD), (3, 0x6558), (5, 0x8847)):
        yield from (_other(told, f"no{told}.{k}"), *_next(kind, 16, k), f"no{told}.{k}")
    yield _go("done")
    yield f"geneve{k}"
    yield from ((_BYTE, 9), (_IF_SET, 0x80, "done"), (_BYTE, 8), (_IF_SET, 0xC0, "done"))
    yield from ((_HALF, 10), (_TO, _KIND), (_BYTE, 8), (_AND, 0x3F), (_LEFT, 2), (_ADD, 16), (_ADD_X, 0))
    yield from ((_A_TO_X, 0), (_FROM, _KIND), _go(f"level{k + 1}"))
    yield f"gtp{k}"
    yield from ((_BYTE, 9), _other(255, "done"), (_BYTE, 8), (_TO, _SUM), (_RIGHT, 4), _other(3, "done"))
    yield from ((_FROM, _SUM), (_IF_SET, 7, f"longer{k}"), *_on(16), _go(f"packet{k}"))
    yield from (f"longer{k}", (_IF_SET, 4, f"extended{k}"), *_on(20), _go(f"packet{k}"))
    yield from (f"extended{k}", (_BYTE, 19), (_TO, _KIND), *_on(20), (_FROM, _KIND))
    for _ in range(2):
        # Its length in units of four octets; the last octet says what follows.
        yield from (_equal(0, f"packet{k}"), (_BYTE, 0), _equal(0, "done"), (_LEFT, 2), (_ADD, _MASK))
        yield from ((_ADD_X, 0), (_A_TO_X, 0), (_BYTE, 0), (_TO, _KIND), *_on(1), (_FROM, _KIND))
    yield _other(0, "done")
    yield f"packet{k}"
    yield from ((_BYTE, 0), (_RIGHT, 4), _equal(6, f"gtp6{k}"), (_VALUE, 0x0800), _go(f"level{k + 1}"))
    yield from (f"gtp6{k}", (_VALUE, 0x86DD), _go(f"level{k + 1}"))


def _choice(seed: int) -> Iterator[Item]:
    """Both addresses mixed alike, so that it does not matter which is which."""
    yield f"level{LEVELS}"
    yield "done"
    for cell in (_SOURCE, _TARGET):
        yield from ((_FROM, cell), (_XOR, seed), (_MULTIPLY, _FACTOR), (_TO, _KIND), (_RIGHT, 15))
        yield from ((_FROM_X, _KIND), (_XOR_X, 0), (_TO, cell))
    yield from ((_FROM_X, _SOURCE), (_ADD_X, 0), (_MULTIPLY, _MIX), (_TO, _KIND), (_RIGHT, 16))
    yield from ((_FROM_X, _KIND), (_XOR_X, 0), (_RETURN_A, 0))


def _items(seed: int, head: int) -> Iterator[Item]:
    """A frame that comes begins for us at its network header, one that we send ``head`` octets before."""
    yield from ((_VALUE, 0), (_TO, _SOURCE), (_TO, _TARGET), (_LOAD_X_VALUE, 0))
    yield from ((_SAID, _DIRECTION), _equal(_OUTGOING, "sent"), (_SAID, _PROTOCOL), _go("level0"))
    yield from ("sent", (_SAID, _PROTOCOL), (_LOAD_X_VALUE, head))
    if head:
        yield (_AT_HALF, head - 2)
    for k in range(LEVELS):
        yield from _level(k)
    yield from _choice(seed)


def instructions(seed: int, *, ethernet: bool = True) -> list[Instruction]:
    """The program: (code, jump if true, jump if not, k).  Its result modulo the rings is the ring."""
    places: dict[str, int] = {}
    made: list[tuple[int, int, str, bool]] = []
    for item in _items(seed, 14 if ethernet else 0):
        if isinstance(item, str):
            places[item] = len(made)
        elif len(item) == 2:
            made.append((*item, "", True))
        elif item[0] == _JUMP:
            made.append((_JUMP, 0, item[2], True))
        else:
            # A condition reaches 255 instructions far, a jump any.
            made.append((item[0], item[1], "", len(item) == 3))
            made.append((_JUMP, 0, item[2], True))
    out: list[Instruction] = []
    for at, (code, k, label, wanted) in enumerate(made):
        if code == _JUMP:
            out.append((code, 0, 0, places[label] - at - 1))
        elif code in (_IF_EQUAL, _IF_SET):
            out.append((code, int(not wanted), int(wanted), k))
        else:
            out.append((code, 0, 0, k))
    return out


def program(seed: int, *, ethernet: bool = True) -> bytes:
    """The same as the kernel takes it (struct sock_filter)."""
    return b"".join(struct.pack("=HBBI", *one) for one in instructions(seed, ethernet=ethernet))


def member(one: bytes, other: bytes, rings: int, seed: int) -> int:
    """What the kernel makes of the program's answer for two addresses of 16 octets (IPv4 mapped)."""
    total = 0
    for address in (one, other):
        folded = 0
        for (word,) in struct.iter_unpack(">I", address[12:] if address.startswith(_MAPPED) else address):
            folded ^= word
        mixed = (folded ^ seed) * _FACTOR & _MASK
        total += mixed ^ mixed >> 15
    total = (total & _MASK) * _MIX & _MASK
    return (total ^ total >> 16) % rings

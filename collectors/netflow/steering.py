"""Which of several sockets an exporter's datagrams go to: a program for the kernel, and its twin in Python.

The kernel's own choice in a group of sockets that share a port (SO_REUSEPORT) is a hash of both addresses and
both ports.  An exporter that sends templates from one port and data from another would be torn apart.  A
classic BPF program (SO_ATTACH_REUSEPORT_CBPF, Linux 4.5) chooses by the source address and nothing else, and
the same address goes to the same place after a restart: there is no seed in it.
"""

import struct
from typing import Final

_FACTOR: Final = 0x9E3779B1
_MASK: Final = 0xFFFFFFFF
_MAPPED: Final = bytes(10) + b"\xff\xff"

# linux/bpf_common.h and linux/filter.h.  Offsets from SKF_NET_OFF begin at the IP header.
_LOAD_BYTE: Final = 0x30
_LOAD_WORD: Final = 0x20
_SHIFT_RIGHT: Final = 0x74
_MULTIPLY: Final = 0x24
_REMAINDER: Final = 0x94
_XOR_X: Final = 0xAC
_A_TO_X: Final = 0x07
_JUMP: Final = 0x05
_JUMP_IF: Final = 0x15
_RETURN_A: Final = 0x16
_NET: Final = 0xFFF00000
_SOURCE4: Final = _NET + 12
_SOURCE6: Final = _NET + 8

Instruction = tuple[int, int, int, int]


def program(sockets: int) -> bytes:
    """Instructions (struct sock_filter) whose result is the number of a socket, from the source address."""
    six: list[Instruction] = [(_LOAD_WORD, 0, 0, _SOURCE6)]
    for word in (1, 2, 3):
        six += [(_A_TO_X, 0, 0, 0), (_LOAD_WORD, 0, 0, _SOURCE6 + 4 * word), (_XOR_X, 0, 0, 0)]
    four: list[Instruction] = [(_LOAD_WORD, 0, 0, _SOURCE4), (_JUMP, 0, 0, len(six))]
    mixing: list[Instruction] = [(_MULTIPLY, 0, 0, _FACTOR), (_A_TO_X, 0, 0, 0), (_SHIFT_RIGHT, 0, 0, 16)]
    made = [
        (_LOAD_BYTE, 0, 0, _NET),
        (_SHIFT_RIGHT, 0, 0, 4),
        (_JUMP_IF, len(four), 0, 6),
        *four,
        *six,
        *mixing,
        (_XOR_X, 0, 0, 0),
        (_REMAINDER, 0, 0, sockets),
        (_RETURN_A, 0, 0, 0),
    ]
    return b"".join(struct.pack("=HBBI", *one) for one in made)


def member(address: bytes, sockets: int) -> int:
    """What the program answers for an address of 16 octets (IPv4 mapped)."""
    mixed = 0
    for (word,) in struct.iter_unpack(">I", address[12:] if address.startswith(_MAPPED) else address):
        mixed ^= word
    mixed = mixed * _FACTOR & _MASK
    return (mixed ^ mixed >> 16) % sockets

"""A filter's text in, the kernel's program out, by libpcap; a ConfigError on what it does not understand.

libpcap is loaded when a filter is asked for and at no other time.  It is given the interface itself, because
only then it knows that the kernel keeps VLAN tags beside the frame (``vlan 7`` matches nothing otherwise).
"""

import ctypes
import struct
from typing import Any, Final

from collectors.errors import ConfigError
from collectors.packet.sources import WHOLE

_NAMES: Final = ("libpcap.so.1", "libpcap.so.0.8", "libpcap.so")
_ERROR_BYTES: Final = 256
_OPTIMISE: Final = 1
_NO_MASK: Final = 0xFFFFFFFF
# pcap/dlt.h
_EN10MB: Final = 1
_RAW: Final = 12
# BPF_RET | BPF_K: passes no frame.
NOTHING: Final = struct.pack("=HBBI", 6, 0, 0, 0)


class _Program(ctypes.Structure):
    """struct bpf_program; an instruction is as long as linux/filter.h's struct sock_filter."""

    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


def _library() -> Any:
    for name in _NAMES:
        try:
            found = ctypes.CDLL(name)
        except OSError:
            continue
        found.pcap_create.restype = found.pcap_open_dead.restype = ctypes.c_void_p
        found.pcap_geterr.restype = ctypes.c_char_p
        return found
    raise ConfigError("a capture filter needs libpcap (Debian: libpcap0.8), which is not installed")


def _handle(pcap: Any, interface: str, link: int, snap_length: int) -> ctypes.c_void_p:
    """The live interface, or where that does not go (it is down) one of its kind."""
    live = ctypes.c_void_p(pcap.pcap_create(interface.encode(), ctypes.create_string_buffer(_ERROR_BYTES)))
    if live:
        pcap.pcap_set_snaplen(live, snap_length)
        if pcap.pcap_activate(live) >= 0 and pcap.pcap_datalink(live) == link:
            return live
        pcap.pcap_close(live)
    return ctypes.c_void_p(pcap.pcap_open_dead(link, snap_length))


def program(interface: str, *, ethernet: bool, expression: str, snap_length: int) -> bytes:
    """Instructions that pass what ``expression`` says, cut to ``snap_length``; none where all is wanted."""
    if not expression.strip():
        # BPF_RET | BPF_K
        return b"" if snap_length >= WHOLE else struct.pack("=HBBI", 6, 0, 0, snap_length)
    pcap = _library()
    handle = _handle(pcap, interface, _EN10MB if ethernet else _RAW, snap_length)
    made = _Program()
    try:
        if pcap.pcap_compile(handle, ctypes.byref(made), expression.encode(), _OPTIMISE, _NO_MASK) < 0:
            told = pcap.pcap_geterr(handle).decode(errors="replace")
            raise ConfigError(f"capture filter {expression!r}: {told}")
        instructions = ctypes.string_at(made.instructions, made.length * 8)
        pcap.pcap_freecode(ctypes.byref(made))
    finally:
        pcap.pcap_close(handle)
    return instructions

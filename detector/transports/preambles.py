"""What is said to a proxy, or by a load balancer, before the first line: how long it is, whom it names.

PROXY protocol 1 and 2 (HAProxy's proxy-protocol.txt), SOCKS 4 and 4a, SOCKS 5 (RFC 1928, RFC 1929), either
direction's.  HTTP CONNECT is ``http``'s.  Each reader gives (octets, target), "" for no target; None while
more is to come; and raises ValueError on what is none.
"""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

Read = tuple[int, str] | None

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
WORD: Final = b"PROXY "
MAX_PROXY: Final = 2048
"""Of version 2, with what is appended to the addresses; the specification asks for 536 at least."""
MAX_LINE: Final = 107
MAX_NAME: Final = 256
_METHODS: Final = 16
_REPLIES: Final = range(0x5A, 0x5E)


def proxy_line(data: bytes) -> Read:
    """Version 1: one line.  The target is where the client was going."""
    end = data.find(b"\n", 0, MAX_LINE + 1)
    if end < 0:
        if len(data) > MAX_LINE:
            raise ValueError("no line")
        return None
    words = data[:end].split()
    target = ""
    if len(words) == 6 and words[1] in {b"TCP4", b"TCP6"}:
        target = _end(words[3].decode("latin-1"), int(words[5]) if words[5].isdigit() else 0)
    return end + 1, target


def proxy_header(data: bytes) -> Read:
    """Version 2: binary."""
    if not data.startswith(SIGNATURE[: len(data)]):
        raise ValueError("no signature")
    if len(data) < 16:
        return None
    version, family, size = data[12], data[13], int.from_bytes(data[14:16], "big")
    if version not in {0x20, 0x21} or family >> 4 > 3 or family & 15 > 2 or size > MAX_PROXY:
        raise ValueError("no header of version 2")
    if len(data) < 16 + size:
        return None
    told, target = data[16 : 16 + size], ""
    if family >> 4 == 1 and size >= 12:
        target = _end(str(IPv4Address(told[4:8])), int.from_bytes(told[10:12], "big"))
    elif family >> 4 == 2 and size >= 36:
        target = _end(str(IPv6Address(told[16:32])), int.from_bytes(told[34:36], "big"))
    return 16 + size, target


def socks4(data: bytes) -> Read:
    """A request (4, a command, port, address, user, and of 4a a name), or a reply of eight octets."""
    if len(data) < 2:
        return None
    if data[0] == 0 and data[1] in _REPLIES:
        return (8, "") if len(data) >= 8 else None
    if data[0] != 4 or data[1] not in {1, 2}:
        raise ValueError("no SOCKS 4")
    user = data.find(b"\0", 8)
    if user < 0:
        _still(data, 8 + MAX_NAME)
        return None
    address, port = data[4:8], int.from_bytes(data[2:4], "big")
    if address[:3] != bytes(3) or not address[3]:
        return user + 1, _end(str(IPv4Address(address)), port)
    name = data.find(b"\0", user + 1)
    if name < 0:
        _still(data, user + 1 + MAX_NAME)
        return None
    return name + 1, _end(data[user + 1 : name].decode("latin-1"), port)


def socks5_opening(data: bytes) -> Read:
    """What comes first: the methods that a client offers; the one that a server chose is as long as that
    says, or is read with the status that follows it."""
    if data[:1] != b"\5":
        raise ValueError("no SOCKS 5")
    if len(data) < 2:
        return None
    if data[1] > _METHODS:
        raise ValueError("more methods than there are")
    size = 2 + data[1]
    if len(data) >= size:
        return size, ""
    return None


def socks5(data: bytes) -> Read:
    """What follows: user and password, or their status; a request, or the reply to one."""
    if len(data) < 2:
        return None
    if data[0] == 1:
        return _password(data)
    if data[0] != 5 or data[1] > 8:
        raise ValueError("no SOCKS 5")
    if len(data) < 5:
        return None
    sizes = {1: 4, 3: 1 + data[4], 4: 16}
    if data[2] or data[3] not in sizes:
        raise ValueError("no address of SOCKS 5")
    end = 4 + sizes[data[3]]
    if len(data) < end + 2:
        return None
    told, port = data[4:end], int.from_bytes(data[end : end + 2], "big")
    makers: dict[int, Callable[[bytes], str]] = {
        1: lambda b: str(IPv4Address(b)),
        3: lambda b: b[1:].decode("latin-1"),
        4: lambda b: str(IPv6Address(b)),
    }
    return end + 2, _end(makers[data[3]](told), port)


def _password(data: bytes) -> Read:
    """RFC 1929.  A status is 1 and one octet, 0 where it is well; no user's name is that short."""
    if data[1] == 0:
        return 2, ""
    at = 2 + data[1]
    if len(data) <= at:
        return None
    end = at + 1 + data[at]
    return (end, "") if len(data) >= end else None


def _still(data: bytes, most: int) -> None:
    if len(data) > most:
        raise ValueError("a name without an end")


def _end(host: str, port: int) -> str:
    host = host[:MAX_NAME]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

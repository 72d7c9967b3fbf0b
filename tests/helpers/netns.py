"""A network namespace of one's own, and veth pairs in it: for what needs real interfaces.

    with netns.entered():
        netns.veth("pw0", "pw1")

The calling thread is in the namespace inside the block; the interfaces vanish with it.  Needs root, or
what gives CAP_SYS_ADMIN and CAP_NET_ADMIN; ``why_not`` says what is missing.
"""

import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


@cache
def why_not() -> str:
    """Empty where namespaces can be had."""
    if not shutil.which("ip"):
        return "no ip command (Debian: iproute2)"
    try:
        with entered():
            veth("pwq0", "pwq1")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network namespaces here: {error}"
    return ""


def _check(status: int) -> None:
    if status < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@contextmanager
def entered() -> Iterator[None]:
    """Be in a new, empty namespace, its loopback up."""
    own = os.open(f"/proc/self/task/{_thread()}/ns/net", os.O_RDONLY)
    try:
        _check(_LIBC.unshare(_CLONE_NEWNET))
        try:
            ip("link", "set", "lo", "up")
            yield
        finally:
            _check(_LIBC.setns(own, _CLONE_NEWNET))
    finally:
        os.close(own)


def _thread() -> str:
    return Path("/proc/thread-self").readlink().name


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def veth(one: str, other: str) -> None:
    """Two interfaces with a wire between them, up, and silent: no address; frames may be 64 KiB long."""
    ip("link", "add", one, "mtu", "65535", "type", "veth", "peer", "name", other, "mtu", "65535")
    for name in (one, other):
        up(name)


def up(name: str) -> None:
    # Without this the kernel sends router solicitations and multicast reports over a new interface.
    setting = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    if setting.exists():
        setting.write_text("1")
    ip("link", "set", name, "up")


def down(name: str) -> None:
    ip("link", "set", name, "down")


def delete(name: str) -> None:
    ip("link", "del", name)


def sender(name: str) -> socket.socket:
    """A socket whose ``send`` puts a frame on the wire at ``name``."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.bind((name, 0))
    return opened

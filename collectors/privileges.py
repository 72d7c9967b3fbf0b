"""Give up what is not needed any more: the user root, and all capabilities but CAP_NET_RAW.

Capabilities belong to threads (capabilities(7)): call ``drop`` once sockets and files are open and before
threads are started, which then begin with what is left.  Numbers: linux/capability.h, linux/prctl.h.  Where
there are no capabilities (macOS, the BSDs) only the user is changed.
"""

import ctypes
import os
import pwd
import struct
import sys
from typing import Any, Final, NamedTuple

from collectors.errors import ConfigError

NET_RAW: Final = 13
_SETPCAP: Final = 8
_VERSION_3: Final = 0x20080522
_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_MOST: Final = 64


class Left(NamedTuple):
    """What a process is after ``drop``: user and capability numbers."""

    user: str
    capabilities: frozenset[int]


def drop(user: str, keep: frozenset[int] = frozenset({NET_RAW})) -> Left:
    """Become ``user`` if we are root (empty: do not), and lose every capability that is not in ``keep``.

    There is no way back: set-user-ID programs and file capabilities give nothing any more.  Raises
    ConfigError where there is no such user, before anything was changed, and OSError where we cannot.
    """
    known = entry(user) if user and os.geteuid() == 0 else None
    libc = _libc()
    held = _permitted(libc)
    if _SETPCAP in held:
        _bound(libc, keep)
    if known is not None:
        if libc is not None:
            _prctl(libc, _PR_SET_KEEPCAPS, 1)
        os.setgroups([])
        os.setgid(known.pw_gid)
        os.setuid(known.pw_uid)
        if libc is not None:
            _prctl(libc, _PR_SET_KEEPCAPS, 0)
    if libc is not None:
        libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        _set(libc, held & keep)
        _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    return Left(_name(), _permitted(libc))


def hand_down(kept: frozenset[int] = frozenset({NET_RAW})) -> None:
    """Let programs that we start have those of ``kept`` that we hold: workers that are started again."""
    libc = _libc()
    if libc is None:
        return
    held = _permitted(libc) & kept
    _set(libc, held, held)
    for number in held:
        _prctl(libc, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0)


def entry(user: str) -> pwd.struct_passwd:
    """Who that is.  Raises ConfigError where there is no such user."""
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise ConfigError(f"user {user!r}: there is none") from None


def _name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _fail() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))


def _prctl(libc: Any, option: int, *values: int) -> None:
    if libc.prctl(option, *values, *(0,) * (4 - len(values))) < 0:
        raise _fail()


def _header() -> Any:
    return ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0))


def _permitted(libc: Any) -> frozenset[int]:
    """Ours, by capget(2): effective, permitted and inheritable, low halves before high halves."""
    if libc is None:
        return frozenset()
    data = ctypes.create_string_buffer(24)
    if libc.capget(_header(), data) < 0:
        raise _fail()
    _, low, _, _, high, _ = struct.unpack("=6I", data.raw)
    bits = low | high << 32
    return frozenset(n for n in range(_MOST) if bits >> n & 1)


def _set(libc: Any, kept: frozenset[int], inheritable: frozenset[int] = frozenset()) -> None:
    """Effective and permitted become ``kept``."""
    bits, more = (sum(1 << n for n in of) for of in (kept, inheritable))
    low, high = (bits & 0xFFFFFFFF, more & 0xFFFFFFFF), (bits >> 32, more >> 32)
    data = ctypes.create_string_buffer(struct.pack("=6I", low[0], low[0], low[1], high[0], high[0], high[1]))
    if libc.capset(_header(), data) < 0:
        raise _fail()


def _bound(libc: Any, keep: frozenset[int]) -> None:
    for n in range(_MOST):
        if n not in keep and libc.prctl(_PR_CAPBSET_READ, n, 0, 0, 0) == 1:
            _prctl(libc, _PR_CAPBSET_DROP, n)

"""Octets of one direction of Alephium's miner API in, its messages out, each as a JSON object.

A message is its length, a version (1) and a type, then (alephium/mining-pool lib/messages.js, errata B5): a
count of jobs, each of them two groups, three blobs behind their lengths (header, transactions, target) and a
height; a client's block behind its length; or what became of it.  Numbers have four octets, most significant
first.  Of a job its header is kept as a name, of its transactions nothing.
"""

import hashlib
from typing import Annotated, Any, Final

import msgspec

MAX_MESSAGE: Final = 1 << 26
"""Sixteen blocks of transactions, and room."""
MOST_JOBS: Final = 64
MOST_GROUPS: Final = 16
HEADERS: Final = range(78, 1025)
"""Octets of a header without its nonce: 302 where there are four groups."""
MAX_TARGET: Final = 64
NONCE: Final = 24
RESULT: Final = 43
"""Octets of a result behind the length: version, type, two groups, a hash, a flag."""
BLOCK: Final = 10 + NONCE
"""Octets of a block's message before its header."""
LEAST_BLOCK: Final = BLOCK + 3
_DEPENDENCIES: Final = 7  # two for each group, less one
FOUR_GROUPS_BYTES: Final = 2 + 32 * _DEPENDENCIES + 76
FOUR_GROUPS: Final = bytes([0, _DEPENDENCIES])
"""How a header begins that a miner hands in."""
_START: Final = 22  # up to the length of the first job's header

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_MESSAGE)]


def begins(data: bytes, *, joined: bool) -> bool | None:
    """Whether a message begins here; None while one could, of a stream that was not joined."""
    if len(data) < _START or (data[:6] == b"\0\0\0\x2b\1\1" and len(data) < 4 + RESULT):
        could = data[:1] == b"\0" and data[4:5] in {b"", b"\1"} and data[5:6] in {b"", b"\0", b"\1"}
        return None if could and not joined else False
    try:
        _first(data, 0)
    except ValueError:
        return False
    return True


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _groups(data: bytes, at: int) -> tuple[int, int]:
    """Raises ValueError."""
    found = _number(data, at), _number(data, at + 4)
    if max(found) >= MOST_GROUPS:
        raise ValueError("no groups")
    return found


def _first(data: bytes, at: int) -> str:
    """What the message is that begins at ``at`` and has _START octets.  Raises ValueError on none."""
    size = _number(data, at)
    if size > MAX_MESSAGE or data[at + 4] != 1 or data[at + 5] > 1:
        raise ValueError("no message of version 1")
    if data[at + 5] == 1:
        if size != RESULT or data[at + 3 + RESULT :][:1] not in {b"\0", b"\1", b""}:
            raise ValueError("no result")
        _groups(data, at + 6)
        return "result"
    told = _number(data, at + 6)
    if told == size - 6 and told > NONCE + 2:
        if data[at + BLOCK : at + BLOCK + 2] not in {b"", b"\0", FOUR_GROUPS}:
            raise ValueError("no block")
        return "submit"
    _groups(data, at + 10)
    if not 0 < told <= MOST_JOBS or _number(data, at + 18) not in HEADERS:
        raise ValueError("no jobs")
    return "jobs"


def name(header: bytes) -> str:
    """A header without its nonce, and whatever is behind it, as the name of its job."""
    size = 2 + 32 * header[1] + 76 if len(header) > 1 else 0
    return hashlib.sha256(header[:size]).hexdigest()[:32]


class Node(msgspec.Struct, array_like=True, gc=False):
    """Where one direction stands: ``left`` octets of a message are to come, of which the next ``skip`` are
    passed over; ``jobs`` of it; of the one that is begun its ``name`` and ``groups``."""

    left: Count = 0
    skip: Count = 0
    jobs: Annotated[int, msgspec.Meta(ge=0, le=MOST_JOBS)] = 0
    name: Annotated[str, msgspec.Meta(max_length=32)] = ""
    groups: tuple[int, int] = (0, 0)

    def rests(self) -> bool:
        """Whether no message is begun."""
        return not (self.left or self.skip or self.jobs or self.name)

    def step(self, data: bytes, at: int) -> tuple[int, bytes | None]:
        """Read on at ``at``: where it stopped, and the object that ends there, if one does; ``at`` itself
        where more is needed.  Raises ValueError on what is no message."""
        if self.skip:
            taken = min(self.skip, len(data) - at)
            self.skip -= taken
            self.left -= taken
            return at + taken, None
        if self.name:
            return self._target(data, at)
        if self.jobs:
            return self._header(data, at)
        if self.left:  # behind the last job, or a block
            self.skip = self.left
            return self.step(data, at)
        return self._message(data, at)

    def _message(self, data: bytes, at: int) -> tuple[int, bytes | None]:
        if len(data) - at < _START:
            return at, None
        size = 4 + _number(data, at)
        what = _first(data, at)
        if what == "jobs":
            self.left, self.jobs = size - 10, _number(data, at + 6)
            return at + 10, None
        if what == "result":
            if len(data) - at < size:
                return at, None
            told = {"hash": data[at + 14 : at + 46].hex(), "succeed": data[at + 46] == 1}
            return at + size, _told("result", _groups(data, at + 6), **told)
        # The header is needed whole, its transactions are not.
        most = at + min(size, BLOCK + HEADERS.stop)
        if len(data) < most:
            return at, None
        self.left = size - (most - at)
        return most, _told("submit", job=name(data[at + BLOCK : most]))

    def _header(self, data: bytes, at: int) -> tuple[int, bytes | None]:
        """Of a job, up to the length of its transactions."""
        if len(data) - at < 12:
            return at, None
        groups, size = _groups(data, at), _number(data, at + 8)
        if size not in HEADERS:
            raise ValueError("no header")
        end = at + 12 + size
        if len(data) < end + 4:
            return at, None
        self._take(16 + size)
        self.skip = _number(data, end)
        if self.skip > self.left:
            raise ValueError("longer than its message")
        self.groups, self.name = groups, name(data[at + 12 : end])
        return end + 4, None

    def _target(self, data: bytes, at: int) -> tuple[int, bytes | None]:
        """Of a job, what is behind its transactions."""
        if len(data) - at < 4:
            return at, None
        size = _number(data, at)
        if not 0 < size <= MAX_TARGET:
            raise ValueError("no target")
        if len(data) - at < 8 + size:
            return at, None
        self._take(8 + size)
        job = {"jobId": self.name, "targetBlob": data[at + 4 : at + 4 + size].hex()}
        self.name, self.jobs = "", self.jobs - 1
        return at + 8 + size, _told("jobs", self.groups, jobs=[job])

    def _take(self, octets: int) -> None:
        if octets > self.left:
            raise ValueError("longer than its message")
        self.left -= octets


def _told(what: str, groups: tuple[int, int] | None = None, **more: Any) -> bytes:
    said: dict[str, Any] = {"alephium_node": what}
    if groups is not None:
        said["fromGroup"], said["toGroup"] = groups
    return msgspec.json.encode({**said, **more})

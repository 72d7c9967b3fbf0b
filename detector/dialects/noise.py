"""Payload sizes of both sides of a connection in; whether they are those of Stratum V2 inside of Noise out.

All is encrypted, and the keys of the handshake are random octets to who looks on, so sizes are all there is:
handshake, SetupConnection and its success, a channel asked for and opened, then the client's shares, which
all are of one size.  A header alone in its segment is taken with what follows.  Bitcoin's encrypted transport
(BIP 324) begins with 64 octets too, but its server does so as well, and its messages are of other sizes.
"""

from collections.abc import Sequence
from functools import cache
from typing import Final, Literal, NamedTuple

import msgspec

from detector import tables

HEADER: Final = 22
"""A header of 6 octets with its tag, where headers are encrypted apart."""
_OVERHEAD: Final = {"apart": HEADER + 16, "whole": 2 + 6 + 16}
"""Octets on the wire beyond a message's payload: with a tag for header and payload each (since 2023), or a
length before a message that is encrypted whole."""
_UPGRADES: Final = frozenset({1, 5, 9})
"""Of the ciphers that a client offered (1 + 4n octets), and the server's answer of 1 or 5, until 2023-11."""


class Era(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One revision of the handshake."""

    id: str
    what: str
    client: tuple[tuple[int, ...], ...]
    server: tuple[tuple[int, ...], ...]
    framing: Literal["apart", "whole"]
    status: Literal["sourced", "UNVERIFIED"]
    source: str
    hits: tuple[str, ...]
    misses: tuple[str, ...]
    upgrade: bool = False


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The least and the most octets of a message's payload."""

    id: str
    least: int
    most: int
    source: str


class Found(NamedTuple):
    """A mining connection.  ``spent`` are the client's octets until its channel was asked for; ``share`` is
    the size of a share on the wire, None while none was seen or sizes differ; ``shares`` how many of the
    sizes are of shares."""

    era: Era
    spent: int
    share: int | None
    shares: int


@cache
def eras() -> tuple[Era, ...]:
    """The rows, the present era first."""
    return tables.rows("noise", "era", Era)


@cache
def _messages() -> dict[str, Message]:
    return {m.id: m for m in tables.rows("noise", "message", Message)}


@cache
def openings() -> frozenset[tuple[int, int]]:
    """The first sizes of both sides, (client, server), that any era has."""
    return frozenset((c, s) for era in eras() for c in era.client[0] for s in era.server[0])


def recognise(client: Sequence[int], server: Sequence[int]) -> Found | None:
    """What the first payload sizes of both sides are, None where no era has them up to the opening of a
    channel."""
    for era in eras():
        found = _follow(era, client, server)
        if found is not None:
            return found
    return None


def _follow(era: Era, client: Sequence[int], server: Sequence[int]) -> Found | None:
    if not (_begins(era.client, client) and _begins(era.server, server)):
        return None
    ours, theirs = list(client[len(era.client) :]), list(server[len(era.server) :])
    spent = sum(client[: len(era.client)])
    if era.upgrade and ours and theirs and ours[0] in _UPGRADES and theirs[0] in {1, 5}:
        spent += ours.pop(0)
        del theirs[0]
    if era.framing == "apart":
        ours, theirs = _joined(ours), _joined(theirs)
    over = _OVERHEAD[era.framing]
    if min(len(ours), len(theirs)) > 2 and all(
        _is("RequestExtensions", some[1] - over) for some in (ours, theirs)
    ):
        spent += ours.pop(1)
        del theirs[1]
    if len(ours) < 2 or len(theirs) < 2:
        return None
    asked = _is("SetupConnection", ours[0] - over) and _is("OpenMiningChannel", ours[1] - over)
    if not asked or not _is("SetupConnection.Success", theirs[0] - over) or not _opened(theirs[1], over):
        return None
    share, count = _shares(ours[2:], over)
    return Found(era, spent + ours[0] + ours[1], share, count)


def _begins(wanted: tuple[tuple[int, ...], ...], sizes: Sequence[int]) -> bool:
    return len(sizes) >= len(wanted) and all(size in some for some, size in zip(wanted, sizes, strict=False))


def _joined(sizes: list[int]) -> list[int]:
    """Headers that have a segment of their own, taken with the payload behind them."""
    out: list[int] = []
    alone = False
    for size in sizes:
        if alone:
            out[-1] += size
        else:
            out.append(size)
        alone = not alone and size == HEADER
    return out[:-1] if alone else out


def _is(name: str, payload: int) -> bool:
    row = _messages()[name]
    return row.least <= payload <= row.most


def _opened(size: int, over: int) -> bool:
    """The channel's opening, alone or with jobs behind it in the segment."""
    least = _messages()["OpenMiningChannel.Success"].least + _messages()["NewMiningJob"].least
    return _is("OpenMiningChannel.Success", size - over) or size >= least + 2 * over


def _shares(sizes: list[int], over: int) -> tuple[int | None, int]:
    """(the size of a share, how many there are) where all is shares, one or more a segment, and updates of
    the channel."""
    update = _messages()["UpdateChannel"].least + over
    told = [size for size in sizes if size != update] or sizes
    if not told:
        return None, 0
    share = min(told)
    standard = _is("SubmitSharesStandard", share - over)
    if not standard and not _is("SubmitSharesExtended", share - over):
        return None, 0
    if any(size % share for size in told):
        return None, 0
    return share, sum(size // share for size in told)

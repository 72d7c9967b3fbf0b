"""Octets of one direction of a connection in, the lines that it carries out, whatever carries them.

``feed`` is the verb.  Most directions are plain lines from their first byte on, and are handed to the cutter
of lines at once.  Before them may be preambles of proxies, one inside another; around them HTTP/1 or the
frames of a WebSocket, also inside of a tunnel; or they are messages of
Stratum V2 or of Alephium's nodes.  Plain lines may turn to gzip.  What begins as one of these and is not is
given to the cutter as it is.
"""

from typing import Annotated, Final

import msgspec

from detector.dialects.lines import Assembler, Refusal
from detector.transports import alephium, chia, gunzip, http, preambles, stratum2, websocket
from detector.transports.alephium import Node
from detector.transports.bodies import is_whole, objects
from detector.transports.gunzip import Gunzip
from detector.transports.http import Http
from detector.transports.inflating import InflateError
from detector.transports.websocket import Frames

MAX_HELD: Final = http.MAX_HEAD + http.MAX_LINE
MAX_TARGETS: Final = 4
"""Proxies one behind another."""

_BLANKS: Final = b" \t\r\n"
_MAX_BLANKS: Final = 1024

UNDECIDED, PLAIN, HTTP, UPGRADING, FRAMES, SOCKS, SEEKING, STRATUM2, NODE, GZIP, WEB = range(11)
Mode = Annotated[int, msgspec.Meta(ge=0, le=10)]

Told = tuple[bytes, int, bool]
"""A line; the offset behind it in what was fed; whether it is a body of HTTP, whole and by itself."""


class Wrapping(msgspec.Struct, array_like=True, gc=False):
    """What is around the lines of one direction.  ``held`` is the beginning of something that is not whole,
    to be read again with what follows; ``targets`` whom preambles and CONNECT named."""

    mode: Mode = UNDECIDED
    held: Annotated[bytes, msgspec.Meta(max_length=MAX_HELD)] = b""
    http: Http | None = None
    frames: Frames | None = None
    targets: Annotated[list[str], msgspec.Meta(max_length=MAX_TARGETS)] = []
    node: Node | None = None
    gunzip: Gunzip | None = None


def feed(
    side: Wrapping,
    peer: Wrapping,
    lines: Assembler,
    data: bytes,
    refused: dict[str, int],
    *,
    joined: bool = False,
    ends: bool = False,
) -> list[Told]:
    """Lines of ``data``.  ``joined``: the direction's first byte was not seen; ``ends``: it ends behind."""
    if side.mode == PLAIN and not joined and not side.held and gunzip.MAGIC[:1] not in data:
        return [(line, end, False) for line, end in lines.feed(data, refused)]
    return _Feeding(side, peer, lines, refused, joined).run(data, ends=ends)


def lost(side: Wrapping, octets: int = 0) -> None:
    """Bytes were lost, so many where that is known: what was begun is not finished, but for the body of a
    message that goes on behind; what follows is looked at as it comes."""
    side.held = b""
    if side.mode == HTTP and side.http is not None and octets and side.http.passed(octets):
        return
    if side.http is not None:
        side.http = side.http.anew()
    if side.mode in {HTTP, FRAMES, SEEKING, STRATUM2, NODE, GZIP}:
        side.mode, side.node, side.gunzip = SEEKING, None, None
        side.frames = Frames() if side.frames is not None else None
    elif side.mode not in {PLAIN, WEB}:
        side.mode = UNDECIDED


class _Feeding:
    """One call of ``feed``: ``base`` octets of what is read were held from before."""

    __slots__ = ("base", "joined", "lines", "out", "peer", "refused", "side")

    def __init__(
        self, side: Wrapping, peer: Wrapping, lines: Assembler, refused: dict[str, int], joined: bool
    ) -> None:
        self.side, self.peer, self.lines, self.refused, self.joined = side, peer, lines, refused, joined
        self.base = 0
        self.out: list[Told] = []

    def run(self, fresh: bytes, *, ends: bool) -> list[Told]:
        side = self.side
        data, side.held = side.held + fresh, b""
        self.base = len(data) - len(fresh)
        at = self._look_again(data)
        while at < len(data):
            mode = side.mode
            try:
                after = self._step(data, at)
            except ValueError:
                self._give_up(mode)
                # What is no frame here is none when it is looked for again.
                after = at + (mode == FRAMES)
            if after == at and side.mode == mode:
                side.held = data[at:][:MAX_HELD]
                break
            at = after
        if ends and side.mode == HTTP and side.http is not None and side.http.ends():
            self._body(len(data))
        return self.out

    def _look_again(self, data: bytes) -> int:
        """Of a direction that was joined, or in which something was lost, lines or nothing may be HTTP or
        frames from here on, or messages of Stratum V2 from a place on.  Gives where to begin."""
        side = self.side
        if side.mode == WEB and http.starts(data[:8]):
            side.mode = HTTP
        joined = side.mode == PLAIN and self.joined
        if not (joined or side.mode == SEEKING):
            return 0
        if http.starts(data[:8]):
            self._end_line()
            side.http, side.mode = side.http or Http(), HTTP
        elif (side.frames is not None or not self.lines.read) and websocket.is_frames(data):
            self.lines.gap()
            side.frames, side.mode = Frames(), FRAMES
        elif data.startswith(gunzip.MAGIC):
            side.mode = GZIP
        elif (side.mode == SEEKING or not self.lines.read) and alephium.begins(data, joined=True):
            self.lines.gap()
            side.mode = NODE
        elif (side.mode == SEEKING or not self.lines.read) and (at := stratum2.find(data)) >= 0:
            self.lines.gap()
            side.mode = STRATUM2
            return at
        return 0

    def _joins(self, first: int) -> bool:
        """Whether the frames of a WebSocket may begin from here on: nothing else was read, or they were lost;
        or what was read was one's text, and here, behind it, is the ``first`` octet of another."""
        side = self.side
        late = side.mode == SEEKING or (self.joined and not self.lines.tail)
        return late and (side.frames is not None or not self.lines.read or first in websocket.STARTS)

    def _seek(self, data: bytes, at: int) -> int | None:
        """Look for frames: where they begin, or where they may; None where they do not, from ``at`` on."""
        side = self.side
        found, sure = websocket.find(data, at)
        if sure:
            self.lines.gap()
            side.frames, side.mode = Frames(), FRAMES
            return found
        if found == len(data):
            return None
        if side.mode == PLAIN and found > at:
            self.out += [
                (line, max(0, at + end - self.base), False)
                for line, end in self.lines.feed(data[at:found], self.refused)
            ]
        return found

    def _end_line(self) -> None:
        """What of a line is there ends where HTTP begins: it was the body of a message."""
        if self.lines.tail.rstrip().endswith(b"}"):
            self.out += [(line, 0, False) for line, _ in self.lines.feed(b"\n", self.refused)]
        else:
            self.lines.gap()

    def _step(self, data: bytes, at: int) -> int:
        """Read on at ``at`` by the present mode: where it stopped.  Raises ValueError."""
        side = self.side
        if side.mode == UNDECIDED:
            return self._decide(data, at)
        if side.mode in {PLAIN, SEEKING} and self._joins(data[at]):
            after = self._seek(data, at)
            if after is not None:
                return after
        if side.mode == PLAIN:
            return self._plain(data, at)
        if side.mode == HTTP:
            return self._http(data, at)
        if side.mode == FRAMES:
            return self._frames(data, at)
        if side.mode == STRATUM2:
            return self._messages(data, at)
        if side.mode == NODE:
            return self._node(data, at)
        if side.mode == GZIP:
            return self._gzip(data, at)
        if side.mode == SOCKS:
            return self._preamble(preambles.socks5(data[at:]), at, last=data[at] == 5)
        if side.mode == UPGRADING:
            # A WebSocket, if the server lets it be; else another request (RFC 6455 section 4.1).
            begins = http.starts(data[at : at + 8])
            if begins is None:
                return at
            side.mode = HTTP if begins else FRAMES
            side.frames = None if begins else Frames()
            return at
        return len(data)  # SEEKING, WEB

    def _give_up(self, mode: int) -> None:
        """It is not what it began as."""
        side = self.side
        if mode in {FRAMES, STRATUM2, NODE, GZIP}:
            self._count(Refusal.INFLATE if mode == GZIP else Refusal.FRAME)
            side.mode, side.node, side.gunzip = SEEKING, None, None
            return
        if mode == HTTP:
            self._count(Refusal.HTTP)
            # Behind a head nothing is a miner's that is not read by the rules of HTTP.
            if side.http is not None and side.http.heads:
                self.lines.web, side.mode = True, WEB
                side.http = side.http.anew()
                return
        side.mode = PLAIN

    def _count(self, why: Refusal) -> None:
        self.refused[why] = self.refused.get(why, 0) + 1

    # -- the beginning -----------------------------------------------------------------------------

    def _decide(self, data: bytes, at: int) -> int:
        """What begins here?  Held as long as it may be several."""
        side, head = self.side, data[at:]
        if head.startswith(preambles.SIGNATURE[: len(head)]):
            return self._preamble(preambles.proxy_header(head), at)
        text = head.lstrip(_BLANKS)
        if text[:1] in {b"{", b"["}:
            side.mode = PLAIN
            return at
        if not text:
            side.mode = PLAIN if len(head) > _MAX_BLANKS else UNDECIDED
            return at
        begins = http.starts(text[:8])
        if begins is None or preambles.WORD.startswith(text):
            return at
        if begins:
            side.http, side.mode = side.http or Http(), HTTP
            return at
        if text.startswith(preambles.WORD):
            return self._preamble(preambles.proxy_line(text), at + len(head) - len(text))
        return self._decide_binary(head, at)

    def _decide_binary(self, head: bytes, at: int) -> int:
        side = self.side
        mode = GZIP if head.startswith(gunzip.MAGIC) else _binary(head, joined=self.joined)
        if mode is None:
            return at
        if mode:
            side.mode = mode
            return at
        frames = websocket.begins(head, 0) if head[0] in websocket.STARTS else False
        if frames is None:
            return at
        if frames or (self.joined and not side.targets):
            frames = frames or websocket.is_frames(head)
            side.mode, side.frames = (FRAMES, Frames()) if frames else (PLAIN, None)
            return at
        if head[:1] == b"\5":
            found = preambles.socks5_opening(head)
            if found is not None:
                side.mode = SOCKS
                return at + found[0]
            return at
        return self._preamble(preambles.socks4(head), at)

    def _preamble(self, found: preambles.Read, at: int, *, last: bool = True) -> int:
        side = self.side
        if found is None:
            return at
        if found[1] and last:
            self._name(found[1])
        if last:
            side.mode = UNDECIDED
        return at + found[0]

    def _name(self, target: str) -> None:
        side = self.side
        if len(side.targets) < MAX_TARGETS:
            side.targets = [*side.targets, target]
        else:
            side.mode = PLAIN

    # -- HTTP and WebSocket ------------------------------------------------------------------------

    def _http(self, data: bytes, at: int) -> int:
        side = self.side
        if side.http is None:
            side.http = Http()
        after, what = side.http.step(data, at, self.peer.http)
        if what == http.BODY:
            self._body(after)
        elif what == http.TUNNEL:
            side.mode = UNDECIDED
            if side.http.target:
                self._name(side.http.target)
        elif what == http.FRAMES:
            client = bool(side.http.target)
            side.mode = UPGRADING if client else FRAMES
            side.frames = None if client else Frames()
        return after

    def _body(self, after: int) -> None:
        """A body is whole: one object, or lines of them."""
        if self.side.http is None:
            return
        try:
            body = self.side.http.take()
        except InflateError:
            self._count(Refusal.INFLATE)
            return
        if body is None or not body.strip(_BLANKS):
            return
        end = max(0, after - self.base)
        whole = body.strip(_BLANKS)
        call = self.side.http.call
        if self.side.http.strict and not is_whole(whole):
            return
        told = chia.messages(call, whole) if call else objects(whole)
        self.out += [(line, end, True) for line in told]

    def _plain(self, data: bytes, at: int) -> int:
        """Lines, up to where one is over and gzip begins."""
        cut = at if not self.lines.tail and data.startswith(gunzip.MAGIC, at) else len(data)
        found = data.find(b"\n" + gunzip.MAGIC, at) if cut > at else -1
        if found >= 0:
            cut = found + 1
        gzip, cut = cut < len(data), self._begun(data, at, cut)
        lines = self.lines.feed(data[at:cut], self.refused) if cut > at else []
        self.out += [(line, max(0, at + end - self.base), False) for line, end in lines]
        if gzip:
            self.side.mode = GZIP
        return cut

    def _begun(self, data: bytes, at: int, end: int) -> int:
        """Where before ``end`` gzip may have begun, of which no more is there; ``end`` where it has not."""
        for size in (1, 2):
            begin = end - size
            if begin >= at and data[begin:] == gunzip.MAGIC[:size]:
                begins = data[begin - 1 : begin] == b"\n" if begin > at else not self.lines.tail
                return begin if begins else end
        return end

    def _gzip(self, data: bytes, at: int) -> int:
        side = self.side
        if side.gunzip is None:
            side.gunzip = Gunzip()
        after, text = side.gunzip.step(data, at)
        if text:
            self._text(text, after)
        return after

    def _messages(self, data: bytes, at: int) -> int:
        return self._whole(*stratum2.step(data, at))

    def _node(self, data: bytes, at: int) -> int:
        side = self.side
        if side.node is None:
            side.node = Node()
        return self._whole(*side.node.step(data, at))

    def _whole(self, after: int, message: bytes | None) -> int:
        """Tell a binary message, if one ends at ``after``."""
        if message is not None:
            self.out.append((message, max(0, after - self.base), True))
        return after

    def _frames(self, data: bytes, at: int) -> int:
        side = self.side
        if side.frames is None:
            side.frames = Frames()
        after, whole, message = side.frames.step(data, at)
        if not whole:
            return after
        if message is None:
            self._count(Refusal.INFLATE)
            return after
        self._text(message, after)
        return after

    def _text(self, message: bytes, after: int) -> None:
        # A message that ends as an object does is not cut short; one that does not goes on in the next.
        if message.rstrip(_BLANKS)[-1:] in {b"}", b"]"}:
            message += b"\n"
        end = max(0, after - self.base)
        self.out += [(line, end, False) for line, _ in self.lines.feed(message, self.refused)]


def _binary(head: bytes, *, joined: bool) -> int | None:
    """The mode of binary messages that begin here, 0 for none; None while they could."""
    nodes = alephium.begins(head, joined=joined)
    if nodes:
        return NODE
    frames = stratum2.begins(head, joined=joined)
    if frames:
        return STRATUM2
    return None if nodes is None or frames is None else 0

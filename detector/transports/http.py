"""Octets of one direction of HTTP/1 in, the JSON bodies of its messages out (RFC 9112).

Bodies of requests are read where they are POSTed or PUT as JSON, which no page can make a browser do to
another's server without its leave, or by a program that is no browser, whatever it calls them; bodies of
responses where they answer such a request.  All others are passed over.
"""

import re
from typing import Annotated, Final

import msgspec

from detector.transports import chia, excerpts, heads
from detector.transports.heads import MAX_TEXT, Head, text
from detector.transports.inflating import CODINGS, InflateError
from detector.transports.inflating import body as inflated

MAX_HEAD: Final = 16 << 10
MAX_BODY: Final = 64 << 10
"""What is kept whole; of a longer one that is not compressed its first and last octets (``excerpts``)."""
MAX_ASKED: Final = 64
MAX_LINE: Final = 256
"""Of a chunk's size, with its extensions."""

METHODS: Final = ("GET", "POST", "PUT", "HEAD", "CONNECT", "OPTIONS", "DELETE", "PATCH", "TRACE")
STARTS: Final = (b"HTTP/1.", *(f"{method} ".encode() for method in METHODS))
_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?\r?", re.S)

# What a response's request was.
JSON: Final = "json"  # a body that is read was POSTed, or a miner's head
PLAIN: Final = ""
CONNECT: Final = "CONNECT"
HEAD: Final = "HEAD"
UNKNOWN: Final = "?"  # it was not seen

# What comes behind a head or a body.
MORE: Final = "more"  # of what is there not enough is there
BODY: Final = "body"  # a body ends here
NEXT: Final = "next"  # another message, or nothing to be told
TUNNEL: Final = "tunnel"  # whatever it is, not HTTP of this server
FRAMES: Final = "frames"  # a WebSocket

_AT_HEAD, _COUNTED, _SIZES, _CHUNK, _TRAILER, _TO_END = range(6)

Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Where = Annotated[int, msgspec.Meta(ge=0, le=5)]


def starts(data: bytes) -> bool | None:
    """Whether a message begins so; None while it could."""
    found = any(data.startswith(word) for word in STARTS)
    if not found and any(word.startswith(data) for word in STARTS):
        return None
    return found


class Http(msgspec.Struct, array_like=True, gc=False):
    """Where one direction stands.  ``asked`` is what the requests were that wait for their responses; of
    the present message ``wanted`` says that its ``body`` is kept, ``coding`` how it is packed.

    ``user`` and ``agent`` are those of the latest request: getwork names its worker there alone.  ``target``
    is whom CONNECT asked for, or whose WebSocket; ``heads`` says that a head was whole; ``call`` is that of
    ``chia`` which the present message is; ``last`` is the end of a body that is ``long``.  ``strict``: the
    present message is not called JSON, so that it is read only as a whole.  ``asks``: these are requests.
    """

    where: Where = _AT_HEAD
    left: Annotated[int, msgspec.Meta(ge=0)] = 0
    wanted: bool = False
    long: bool = False
    coding: Text = ""
    body: Annotated[bytes, msgspec.Meta(max_length=MAX_BODY)] = b""
    asked: Annotated[list[Text], msgspec.Meta(max_length=MAX_ASKED)] = []
    user: Text = ""
    agent: Text = ""
    target: Text = ""
    heads: bool = False
    call: Text = ""
    last: Annotated[bytes, msgspec.Meta(max_length=2 * excerpts.LAST)] = b""
    strict: bool = False
    asks: bool = False

    def step(self, data: bytes, at: int, peer: "Http | None") -> tuple[int, str]:
        """Read on at ``at``: where it stopped, and what comes there.  ``peer`` is the other direction.

        With MORE, what is behind ``at`` is to be given again with what follows.  Raises ValueError on what
        is no HTTP/1.
        """
        if self.where == _AT_HEAD:
            return self._head(data, at, peer)
        if self.where in {_COUNTED, _CHUNK}:
            return self._counted(data, at)
        if self.where == _TO_END:
            self._keep(data[at:])
            return len(data), MORE
        return self._size(data, at)

    def take(self) -> bytes | None:
        """The body that has ended; None where it was not wanted.  Raises InflateError on one that cannot be
        read."""
        body, self.body = self.body, b""
        last, self.last = self.last, b""
        wanted, self.wanted = self.wanted, False
        if not wanted:
            return None
        if self.long:
            found = None if self.coding else excerpts.excerpt(body, last)
            if found is None:
                raise InflateError("more than is read")
            return found
        if not self.coding:
            return body
        return inflated(body, self.coding)

    def ends(self) -> bool:
        """The connection ends: whether a body does with it."""
        whole = self.where == _TO_END
        self.where = _AT_HEAD
        return whole

    def rests(self) -> bool:
        """Whether what comes next is a head."""
        return self.where == _AT_HEAD

    def passes(self, said: Head, peer: "Http") -> bool:
        """Whether a whole message with such a head (``apart``) is plainly one whose body is read."""
        if said.status:
            return not self.asks and bool(peer.asked) and peer.asked[0] == JSON
        return self.asks

    def whole(self, said: Head, peer: "Http") -> None:
        """Take such a message, the same as ``step`` and ``take`` would."""
        self.long, self.coding, self.call, self.wanted = False, "", "", False
        self.strict = not said.is_json and said.has_type
        if said.status:
            del peer.asked[0]
            return
        self.user, self.agent = said.user, said.agent
        if len(self.asked) < MAX_ASKED:
            self.asked.append(JSON)

    def anew(self) -> "Http":
        """Where it stands once something was lost: before a head, with what earlier ones said."""
        return Http(asked=self.asked, user=self.user, agent=self.agent, heads=self.heads, asks=self.asks)

    # -- heads -------------------------------------------------------------------------------------

    def _head(self, data: bytes, at: int, peer: "Http | None") -> tuple[int, str]:
        while data[at : at + 1] in {b"\r", b"\n"}:
            at += 1  # RFC 9112 section 2.2
        if at == len(data):
            return at, NEXT
        blank = _BLANK_LINE.search(data, at)
        if blank is None or blank.end() - at > MAX_HEAD:
            if len(data) - at > MAX_HEAD or starts(data[at : at + 8]) is False:
                raise ValueError("no head")
            return at, MORE
        head = data[at : blank.start()]
        at = blank.end()
        said = heads.known(head)
        self.heads = True
        if said.status:
            return at, self._response(said, peer)
        return at, self._request(said)

    def _request(self, said: Head) -> str:
        self.user, self.agent = said.user, said.agent
        self.asks = True
        posts = said.method in {b"POST", b"PUT"} and (said.is_json or said.is_program)
        kind = JSON if said.mines or posts else PLAIN
        self.call = chia.call(said.method, said.target) if posts or said.method == b"GET" else ""
        if said.method in {b"CONNECT", b"HEAD"}:
            kind = said.method.decode()
        if len(self.asked) < MAX_ASKED:
            self.asked.append(self.call + chia.ANSWER if self.call else kind)
        if said.method == b"CONNECT":
            self.target = text(said.target)
            return TUNNEL
        if said.upgrades:
            self.target = text(said.host + said.target)
            return FRAMES
        self.strict = not said.is_json and said.has_type
        return self._body(said, wanted=kind == JSON, to_end=False)

    def _response(self, said: Head, peer: "Http | None") -> str:
        status = said.status
        if status == 101:
            if not said.upgrades:
                raise ValueError("another protocol")
            return FRAMES
        if status < 200:
            return NEXT
        asked = UNKNOWN
        if peer is not None and peer.asked:
            asked = peer.asked.pop(0)
        # Whose request was not seen is told by its words alone.
        connected = asked == CONNECT or (asked == UNKNOWN and said.connects)
        if connected and status < 300:
            return TUNNEL
        if asked == HEAD or status in {204, 304}:
            return NEXT
        self.call = asked if asked.endswith(chia.ANSWER) else ""
        self.strict = not said.is_json and said.has_type
        answers = asked == JSON or ((bool(self.call) or asked == UNKNOWN) and not self.strict)
        return self._body(said, wanted=said.mines or answers, to_end=True)

    def _body(self, said: Head, *, wanted: bool, to_end: bool) -> str:
        """What of a body comes behind a head (RFC 9112 section 6.3)."""
        self.body, self.last, self.long = b"", b"", False
        self.coding = said.coding if said.coding in CODINGS else ""
        self.wanted = wanted and (said.coding in CODINGS or said.coding == "identity")
        if said.transfer is not None:
            if not said.transfer.endswith(b"chunked"):
                raise ValueError("a transfer coding")
            self.where = _SIZES
            return NEXT
        size = said.size
        if size is None:
            self.where = _TO_END if to_end else _AT_HEAD
            return NEXT
        if not size.isdigit() or len(size) > 15:
            raise ValueError("no length")
        self.left = int(size)
        self.where = _COUNTED if self.left else _AT_HEAD
        return NEXT

    # -- bodies ------------------------------------------------------------------------------------

    def _keep(self, data: bytes) -> None:
        if not self.wanted:
            return
        if not self.long:
            self.body += data
            if len(self.body) <= MAX_BODY:
                return
            self.body, data, self.long = self.body[: excerpts.FIRST], self.body[excerpts.FIRST :], True
        self.last += data
        if len(self.last) > 2 * excerpts.LAST:
            self.last = self.last[-excerpts.LAST :]

    def passed(self, octets: int) -> bool:
        """Octets of a body were not seen; whether one is read that goes on behind them."""
        if self.where != _COUNTED or not self.wanted or self.coding or octets >= self.left:
            return False
        self.left -= octets
        self.body, self.long = self.body[: excerpts.FIRST], True
        return True

    def _counted(self, data: bytes, at: int) -> tuple[int, str]:
        taken = data[at : at + self.left]
        self._keep(taken)
        self.left -= len(taken)
        at += len(taken)
        if self.left:
            return at, MORE
        if self.where == _CHUNK:
            self.where = _SIZES
            return at, NEXT
        self.where = _AT_HEAD
        return at, BODY

    def _size(self, data: bytes, at: int) -> tuple[int, str]:
        """A line between chunks: the end of one, the size of the next, or a trailer (RFC 9112 7.1)."""
        end = data.find(b"\n", at)
        if end < 0:
            if len(data) - at > MAX_LINE:
                raise ValueError("no size of a chunk")
            return at, MORE
        line = data[at:end]
        if self.where == _TRAILER:
            if line.strip(b"\r"):
                return end + 1, NEXT
            self.where = _AT_HEAD
            return end + 1, BODY
        if not line.strip(b"\r"):
            return end + 1, NEXT
        size = _SIZE.fullmatch(line)
        if size is None:
            raise ValueError("no size of a chunk")
        self.left = int(size[1], 16)
        self.where = _CHUNK if self.left else _TRAILER
        return end + 1, NEXT

"""Octets of one direction of HTTP/1 in, the JSON bodies of its messages out (RFC 9112).

Bodies of requests are read where they are POSTed or PUT as JSON, which no page can make a browser do to
another's server without its leave, or by a program that is no browser, whatever it calls them; bodies of
responses where they answer such a request.  All others are passed over.
"""

import base64
import binascii
import re
from functools import lru_cache
from typing import Annotated, Final, NamedTuple

import msgspec

from detector.transports import chia, excerpts
from detector.transports.inflating import CODINGS, InflateError
from detector.transports.inflating import body as inflated

MAX_HEAD: Final = 16 << 10
MAX_KNOWN: Final = 512
"""Octets of a head that is remembered, with what it says."""
MAX_BODY: Final = 64 << 10
"""What is kept whole; of a longer one that is not compressed its first and last octets (``excerpts``)."""
MAX_ASKED: Final = 64
MAX_TEXT: Final = 128
MAX_LINE: Final = 256
"""Of a chunk's size, with its extensions."""

METHODS: Final = ("GET", "POST", "PUT", "HEAD", "CONNECT", "OPTIONS", "DELETE", "PATCH", "TRACE")
STARTS: Final = (b"HTTP/1.", *(f"{method} ".encode() for method in METHODS))
_REQUEST: Final = re.compile(rb"([A-Z]{3,7}) (\S+) HTTP/1\.[01]\r?")
_RESPONSE: Final = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)((?: .*)?)\r?", re.S)
_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?\r?", re.S)

_BROWSER: Final = re.compile(rb"(?:mozilla|opera)/", re.IGNORECASE)
_PAGES: Final = frozenset({b"origin", b"referer", b"cookie", b"sec-fetch-mode", b"sec-fetch-site"})

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
        short = len(head) <= MAX_KNOWN and b"authorization" not in head.lower()  # no password is kept
        said = _known(head) if short else _read(head)
        self.heads = True
        if said.status:
            return at, self._response(said, peer)
        return at, self._request(said)

    def _request(self, said: "_Head") -> str:
        self.user, self.agent = said.user, said.agent
        self.asks = True
        posts = said.method in {b"POST", b"PUT"} and (said.is_json or said.is_program)
        kind = JSON if said.mines or posts else PLAIN
        self.call = chia.call(said.method, said.target) if posts or said.method == b"GET" else ""
        if said.method in {b"CONNECT", b"HEAD"}:
            kind = said.method.decode()
        if len(self.asked) < MAX_ASKED:
            self.asked = [*self.asked, self.call + chia.ANSWER if self.call else kind]
        if said.method == b"CONNECT":
            self.target = _text(said.target)
            return TUNNEL
        if said.upgrades:
            self.target = _text(said.host + said.target)
            return FRAMES
        self.strict = not said.is_json and said.has_type
        return self._body(said, wanted=kind == JSON, to_end=False)

    def _response(self, said: "_Head", peer: "Http | None") -> str:
        status = said.status
        if status == 101:
            if not said.upgrades:
                raise ValueError("another protocol")
            return FRAMES
        if status < 200:
            return NEXT
        asked = UNKNOWN
        if peer is not None and peer.asked:
            asked, *peer.asked = peer.asked
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

    def _body(self, said: "_Head", *, wanted: bool, to_end: bool) -> str:
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


class _Head(NamedTuple):
    """What a head says: of a request method and target, of a response its status, else 0; ``mines``: a field
    that only miners or their nodes send."""

    method: bytes
    target: bytes
    status: int
    connects: bool
    mines: bool
    user: str
    agent: str
    host: bytes
    is_json: bool
    is_program: bool
    has_type: bool
    upgrades: bool
    coding: str
    transfer: bytes | None
    size: bytes | None


def _read(head: bytes) -> _Head:
    """A head, without the blank line behind it.  Raises ValueError on what is none."""
    first, *fields = head.split(b"\n")
    told: dict[bytes, bytes] = {}
    for field in fields:
        name, colon, value = field.partition(b":")
        if field[:1] in {b" ", b"\t"} or not colon:
            continue  # the rest of the field before (section 5.2), or nothing
        name, value = name.rstrip().lower(), value.strip()
        if name == b"content-length" and value != told.get(name, value):
            value = _shorter(value, told[name])
        elif name in told:
            continue
        told[name] = value
    request, response = _REQUEST.fullmatch(first), _RESPONSE.fullmatch(first)
    if request is None and response is None:
        raise ValueError("no start line")
    mines = b"x-long-polling" in told or b"x-stratum" in told
    if request is not None:
        mines = any(name.startswith(b"x-mining-") for name in told)
    return _Head(
        method=b"" if request is None else request[1],
        target=b"" if request is None else request[2],
        status=0 if response is None else int(response[1]),
        connects=response is not None and b"onnection" in response[2],
        mines=mines,
        user=_user(told.get(b"authorization", b"")),
        agent=_text(told.get(b"user-agent", b"")),
        host=told.get(b"host", b""),
        is_json=_is_json(told),
        is_program=_is_program(told),
        has_type=b"content-type" in told,
        upgrades=_upgrades(told),
        coding=told.get(b"content-encoding", b"identity").lower().decode("latin-1"),
        transfer=told[b"transfer-encoding"].lower() if b"transfer-encoding" in told else None,
        size=told.get(b"content-length", b"").partition(b",")[0].rstrip() or None,
    )


_known: Final = lru_cache(maxsize=1024)(_read)
"""Programs send the same heads again and again."""


def _shorter(a: bytes, b: bytes) -> bytes:
    """Of two lengths (section 6.3, item 5: an error) that behind which the next head is still found."""
    return a if a.isdigit() and b.isdigit() and int(a[:15]) < int(b[:15]) else b


def _is_program(told: dict[bytes, bytes]) -> bool:
    """Whether what asks is no browser: those say who they are, and whose page makes them ask."""
    agent = told.get(b"user-agent", b"")
    return bool(agent) and not _BROWSER.match(agent) and _PAGES.isdisjoint(told)


def _is_json(told: dict[bytes, bytes]) -> bool:
    kind = told.get(b"content-type", b"").lower().partition(b";")[0].strip()
    return kind.startswith(b"application/") and b"json" in kind


def _upgrades(told: dict[bytes, bytes]) -> bool:
    return b"websocket" in map(bytes.strip, told.get(b"upgrade", b"").lower().split(b","))


def _text(value: bytes) -> str:
    return value[:MAX_TEXT].decode("latin-1")


def _user(authorization: bytes) -> str:
    """Who asks, of the Basic scheme (RFC 7617); the password is not kept."""
    scheme, _, told = authorization.partition(b" ")
    if scheme.lower() != b"basic" or len(told) > 4 * MAX_TEXT:
        return ""
    try:
        return base64.b64decode(told.strip(), validate=True).partition(b":")[0].decode()[:MAX_TEXT]
    except (binascii.Error, UnicodeDecodeError):
        return ""

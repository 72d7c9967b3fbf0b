"""A seed in, random words, hashes and JSON-RPC lines out, in the habits of one program at a time.

``begin`` draws the habits of a conversation's programs: blanks or none, order of keys, kind of ids,
whether they write ``jsonrpc``.  Everything else is drawn by name, so that a family reads as what it says.
"""

import base64
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Line = tuple[bytes, bool]
FROM_CLIENT, FROM_SERVER = True, False
WORDS = (
    *(
        "alice",
        "bob",
        "carol",
        "dave",
        "erin",
        "office",
        "lobby",
        "north",
        "printer",
        "kettle",
        "garden",
        "river",
    ),
    *(
        "stone",
        "maple",
        "cedar",
        "amber",
        "falcon",
        "otter",
        "badger",
        "heron",
        "lima",
        "oslo",
        "quito",
        "rig",
    ),
    *("node", "worker", "queue", "task", "report", "invoice", "ledger", "wallet", "pool", "miner"),
)
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class Draw:
    """Random things by name; one per seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.begin()

    def begin(self) -> None:
        """Draw the habits of the next conversation's two programs."""
        bits = self.random.getrandbits(8)
        self.separators = (",", ":") if bits & 1 else (", ", ": ")
        self.jsonrpc = bool(bits & 2)
        self.order = bits >> 2 & 3
        self.texts_as_ids = bits >> 4 == 0
        self.end = b"\r\n" if bits >> 4 == 1 else b"\n"
        self.id = self.below(50)

    def keep_jsonrpc(self) -> None:
        """These programs follow JSON-RPC 2.0 to the letter, mostly."""
        self.jsonrpc = self.jsonrpc or not self.one_in(4)

    # Numbers and choices.

    def below(self, n: int) -> int:
        """0 to n - 1."""
        return int(self.random.random() * n)

    def between(self, low: int, high: int) -> int:
        """``low`` to ``high``, both possible."""
        return low + int(self.random.random() * (high - low + 1))

    def one_in(self, n: int) -> bool:
        """True once in n times."""
        return self.random.random() * n < 1

    def pick(self, things: Iterable[Any]) -> Any:
        """One of a collection."""
        ordered = things if isinstance(things, (tuple, list)) else tuple(things)
        return ordered[int(self.random.random() * len(ordered))]

    def some(self, *things: Any) -> Any:
        """One of the arguments."""
        return things[int(self.random.random() * len(things))]

    def fields(self, row: Mapping[str, Any], keep: int) -> dict[str, Any]:
        """Some of the fields, at least ``keep``, in their order."""
        wanted = set(self.random.sample(list(row), self.between(min(keep, len(row)), len(row))))
        return {key: value for key, value in row.items() if key in wanted}

    # Names and values.

    def hex(self, digits: int) -> str:
        """So many hexadecimal digits."""
        return f"{self.random.getrandbits(4 * digits):0{digits}x}"

    def hash(self) -> str:
        """64 hexadecimal digits."""
        return f"{self.random.getrandbits(256):064x}"

    def quantity(self) -> str:
        """An Ethereum quantity."""
        return hex(self.random.getrandbits(self.between(8, 60)))

    def base64(self, size: int) -> str:
        """So many bytes in base64."""
        return base64.b64encode(self.random.randbytes(size)).decode()

    def uuid(self) -> str:
        """A UUID's form."""
        h = self.hex(32)
        return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"

    def word(self) -> str:
        """A name such as a person, host or queue has."""
        return f"{self.pick(WORDS)}{self.below(9999)}"

    def wallet(self) -> str:
        """A Bitcoin address's form."""
        return "1" + "".join(self.random.choices(BASE58, k=33))

    def monero(self) -> str:
        """A Monero address's form."""
        return "4" + "".join(self.random.choices(BASE58, k=94))

    def address(self) -> str:
        """A documentation address."""
        return f"203.0.113.{self.below(256)}"

    def height(self) -> int:
        """A block height."""
        return self.between(700_000, 990_000)

    # Lines.

    def json(self, value: Any) -> bytes:
        """A value in this conversation's habits."""
        return json.dumps(value, separators=self.separators).encode()

    def told(self, value: Any, side: bool) -> Line:
        """A line with any JSON value."""
        return self.json(value) + self.end, side

    def arranged(self, message: dict[str, Any]) -> dict[str, Any]:
        """The members in this conversation's order, jsonrpc where its programs write it."""
        if self.jsonrpc:
            message = {"jsonrpc": "2.0", **message}
        keys = list(message)
        if self.order == 1:
            keys.reverse()
        elif self.order == 2:
            keys.sort()
        elif self.order == 3:
            keys = keys[1:] + keys[:1]
        return {key: message[key] for key in keys}

    def next_id(self) -> int | str:
        """The id of the next request."""
        self.id += 1
        return str(self.id) if self.texts_as_ids else self.id

    def ask(self, method: str, params: Any, number: int | str) -> Line:
        """A request."""
        message = {"id": number, "method": method}
        return self.told(
            self.arranged(message if params is None else {**message, "params": params}), FROM_CLIENT
        )

    def push(self, method: str, params: Any) -> Line:
        """A notification by the server."""
        message = {"method": method, "params": params}
        if self.order == 0:
            message = {"id": None, **message}
        return self.told(self.arranged(message), FROM_SERVER)

    def answer(self, number: int | str, result: Any) -> Line:
        """A reply; the error member is null, or absent with JSON-RPC 2.0."""
        message = {"id": number, "result": result}
        return self.told(self.arranged(message if self.jsonrpc else {**message, "error": None}), FROM_SERVER)

    def call(self, method: str, params: Any, result: Any) -> Iterator[Line]:
        """A request and its reply."""
        number = self.next_id()
        yield self.ask(method, params, number)
        yield self.answer(number, result)

    def fail(self, method: str, params: Any, why: str) -> Iterator[Line]:
        """A request and the error that it got, in one of three forms."""
        number = self.next_id()
        yield self.ask(method, params, number)
        error = self.some({"code": -32601, "message": why}, {"code": 1, "message": why}, [20, why, None], why)
        yield self.told(self.arranged({"id": number, "error": error}), FROM_SERVER)

    def http(self, line: bytes, side: bool) -> bytes:
        """The line as the body of an HTTP request or reply."""
        body = line.rstrip()
        first = "POST / HTTP/1.1\r\nHost: 203.0.113.9:8545" if side else "HTTP/1.1 200 OK\r\nServer: node"
        return (
            f"{first}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

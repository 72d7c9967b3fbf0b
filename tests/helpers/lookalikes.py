"""A seed in, benign conversations out that look like mining: what the payload observer must not believe.

``conversations(seed)`` never ends; each is a family name and its lines in order, ``(bytes, from_client)``,
of one connection.  ``lines(seed, count)`` gives the bare lines.  The same seed gives the same bytes; names,
numbers, hashes, key order, blanks and ids are drawn anew every time: of 4 million lines 2.5 million are
distinct, the others are short replies such as ``{"id":1,"result":true}``.

Where they come from: section 6 of the dialect reference, the recordings ``electrum``, ``ethrpc``,
``rpcapp3333``, ``chat`` and ``mqtt`` in ``pcaps/``; ``nearmisses.py`` adds mining lines that lack one thing,
``strangers.py`` what is no JSON-RPC in lines.
"""

from collections.abc import Iterator

import nearmisses
import strangers
from draw import FROM_CLIENT, FROM_SERVER, Draw, Line
from wallets import electrum, ethereum, node


def printing(d: Draw) -> Iterator[Line]:
    """login, submit, job, keepalive of a printing service: the words of CryptoNote, every field mix."""
    d.keep_jsonrpc()
    who = {
        "login": d.word(),
        "pass": d.word(),
        "agent": f"print-client/{d.below(9)}.{d.below(9)}",
        "rigid": d.word(),
    }
    login = d.fields(who, keep=1)
    if d.one_in(6):
        yield from d.fail("login", login, d.some("Invalid password", "unknown user", "Unauthenticated"))
        return
    session = d.fields(
        {"id": d.hex(16), "status": "OK", "session": d.hex(32), "job": None, "extensions": []}, keep=2
    )
    yield from d.call("login", login, session)
    for _ in range(d.between(1, 6)):
        task = {"id": d.hex(16), "job_id": d.hex(8), "document": f"{d.word()}.pdf", "result": d.word(),
                "nonce": d.below(99)}  # fmt: skip
        yield from d.call("submit", d.fields(task, keep=2), d.some({"status": "OK"}, True, "ok", [True]))
        job = {
            "job_id": d.hex(8),
            "state": "running",
            "target": f"printer-{d.below(9)}",
            "height": d.below(99),
            "blob": d.base64(60),
            "algo": d.some("gzip", "lzma", "none"),
        }
        yield d.push("job", d.fields(job, keep=2))
        if d.one_in(3):
            yield from d.call(
                d.some("keepalive", "keepalived"), {"id": d.hex(16)}, {"status": d.some("KEEPALIVE", "OK")}
            )
        if d.one_in(3):
            yield from d.call(d.some("getjob", "getjobs"), {}, [{"job_id": d.hex(8), "name": "print"}])


def verto(d: Draw) -> Iterator[Line]:
    """FreeSWITCH verto: login with passwd and sessid."""
    d.keep_jsonrpc()
    params = {
        "login": f"{d.below(9999)}@{d.word()}.example",
        "passwd": d.word(),
        "sessid": d.uuid(),
        "pass": d.word(),
    }
    yield from d.call("login", d.fields(params, keep=3), {"message": "logged in", "sessid": d.uuid()})
    for _ in range(d.between(1, 4)):
        dialog = {"callID": d.uuid(), "destination_number": str(d.below(9999))}
        yield from d.call(
            d.some("verto.invite", "verto.bye", "verto.info"), {"dialogParams": dialog}, {"message": "OK"}
        )


def game(d: Draw) -> Iterator[Line]:
    """A game server: login, submit of a score, notify, difficulty, worker."""
    yield from d.call(
        "login", {"login": d.word(), "pass": d.hex(32), "algo": ["sha256"]}, {"id": d.hex(8), "level": 3}
    )
    for _ in range(d.between(1, 6)):
        yield from d.call(
            "submit", [d.word(), d.below(9999), d.hex(8)], d.some(True, None, {"rank": d.below(99)})
        )
        yield d.push(d.some("notify", "set_difficulty", "game.notify", "set_target"), [d.below(9), d.hex(64)])
        if d.one_in(3):
            yield from d.call("authorize", [d.word(), d.word()], True)
        if d.one_in(3):
            yield from d.call("subscribe", [f"client/{d.below(9)}.1"], [[["notify", d.hex(8)]], d.hex(8), 4])


def queue(d: Draw) -> Iterator[Line]:
    """A job queue: job_id, target, blob in base64, nonce, status OK."""
    for _ in range(d.between(2, 8)):
        job = {
            "job_id": d.uuid(),
            "target": d.some(d.word(), d.hex(8)),
            "blob": d.base64(160),
            "worker": d.word(),
            "height": d.below(2000),
            "difficulty": d.below(9),
            "nonce": d.base64(8),
        }
        some = d.fields(job, keep=3)
        if d.one_in(2):
            yield from d.call(d.some("queue.push", "job", "submit", "work"), some, {"status": "OK"})
        else:
            yield from d.call(d.some("getwork2", "getjob", "pop"), [], some)


def exchange(d: Draw) -> Iterator[Line]:
    """An exchange's WebSocket: SUBSCRIBE, channels, tickers."""
    pair = d.some("btcusdt", "ethusdt", "xmrusdt", "BTC-USD")
    yield from d.call(d.some("SUBSCRIBE", "subscribe"), [f"{pair}@trade", f"{pair}@depth"], None)
    for _ in range(d.between(2, 10)):
        trade = {
            "e": "trade",
            "s": pair,
            "p": f"{d.below(10**7) / 100}",
            "q": f"0.{d.below(10**6)}",
            "t": d.below(10**9),
        }
        yield d.told(
            d.some(trade, {"channel": "ticker", "data": trade}, {"method": "ticker", "params": trade}),
            FROM_SERVER,
        )


def gateway(d: Draw) -> Iterator[Line]:
    """One connection to several services: the login is one's, the question for work another's."""
    for family in (d.some(printing, verto, game), queue, ethereum):
        yield from family(d)


def telemetry(d: Draw) -> Iterator[Line]:
    """Reports with the words hashrate, shares, accepted, pool, worker, difficulty."""
    for _ in range(d.between(2, 10)):
        report = {"ts": d.below(2**31), "hashrate": d.below(10**6) / 10, "shares": {"accepted": d.below(999)},
                  "accepted": d.below(99), "rejected": 0, "worker": d.word(), "difficulty": d.below(9000),
                  "pool": d.some("none", d.word()), "algo": d.some("rx/0", "kawpow"), "method": "submit",
                  "result": d.some(True, "OK")}  # fmt: skip
        yield d.told(d.fields(report, keep=3), FROM_CLIENT)
        if d.one_in(2):
            yield d.told(
                d.some({"status": "OK"}, {"result": True, "id": d.below(99)}, {"accepted": 1}), FROM_SERVER
            )


def editor(d: Draw) -> Iterator[Line]:
    """LSP and DAP: JSON after a Content-Length head; documents may hold mining code."""
    for _ in range(d.between(1, 5)):
        if d.one_in(2):
            text = d.some("hello", nearmisses.quoted(d))
            body = {
                "jsonrpc": "2.0",
                "method": "textDocument/didChange",
                "params": {"text": text, "version": d.below(99)},
            }
        else:
            body = {"seq": d.below(999), "type": "request", "command": d.some("initialize", "next", "submit")}
        text = d.json(body)
        yield b"Content-Length: %d\r\n\r\n%s" % (len(text), text), FROM_CLIENT
        text = d.json({"jsonrpc": "2.0", "id": d.below(999), "result": {"capabilities": {}}})
        yield b"Content-Length: %d\r\n\r\n%s" % (len(text), text), FROM_SERVER


def mqtt(d: Draw) -> Iterator[Line]:
    """MQTT publications that carry JSON."""
    yield b"\x10\x1a\x00\x04MQTT\x04\x02\x00\x3c\x00\x0e" + d.word().encode().ljust(14, b"_"), FROM_CLIENT
    yield b"\x20\x02\x00\x00", FROM_SERVER
    for line, side in d.some(telemetry, queue)(d):
        body = b"\x00\x05rig/1" + line.rstrip()
        size = bytes((len(body) & 127 | 128, len(body) >> 7)) if len(body) > 127 else bytes((len(body),))
        yield b"\x30" + size + body, side


def redis(d: Draw) -> Iterator[Line]:
    """Redis texts, mining lines among the values."""
    for _ in range(d.between(2, 8)):
        value = d.some(d.hash(), nearmisses.quoted(d), d.word()).encode()
        words = (d.some(b"SET", b"PUBLISH", b"LPUSH"), b"job:%d" % d.below(10**6), value)
        yield b"*3\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words), FROM_CLIENT
        yield d.some(b"+OK\r\n", b":1\r\n", b"$-1\r\n", b"$%d\r\n%s\r\n" % (len(value), value)), FROM_SERVER


def chat(d: Draw) -> Iterator[Line]:
    """IRC, chat over JSON and logs, in which people quote real Stratum lines."""
    form = d.between(0, 3)
    for _ in range(d.between(2, 8)):
        said, side = nearmisses.quoted(d), d.one_in(2)
        if form == 0:
            who = b"" if side else b":%s!u@h " % d.word().encode()
            yield who + f"PRIVMSG #{d.word()} :{d.word()} says {said}\r\n".encode(), side
        elif form == 1:
            yield d.told({"type": "message", "user": d.word(), "text": said}, side)
        elif form == 2:
            now = f"2026-11-{d.between(10, 30)} 12:{d.between(10, 59)}:07.{d.below(999):03}"
            yield f"[{now}] net < {said}\n".encode(), side
        else:
            yield d.told({"id": d.below(99), "method": "chat.send", "params": [d.word(), said]}, side)


def blog(d: Draw) -> Iterator[Line]:
    """A web page about mining: the lines stand in HTML and in a JSON string."""
    yield f"GET /{d.word()} HTTP/1.1\r\nHost: {d.word()}.example\r\n\r\n".encode(), FROM_CLIENT
    body = "".join(f"<p>{d.word()}</p><pre>{nearmisses.quoted(d)}</pre>" for _ in range(d.between(1, 4)))
    yield f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode(), FROM_SERVER


FAMILIES = (
    electrum, ethereum, node, printing, verto, game, queue, gateway, exchange, telemetry, editor, mqtt, redis,
    chat, blog, *nearmisses.FAMILIES, *strangers.FAMILIES,
)  # fmt: skip

# The rows of section 6, and who says what they hold.
SECTION_6 = {
    "Electrum protocol": (electrum,),
    "Ethereum JSON-RPC": (ethereum,),
    "LSP and DAP": (editor,),
    "generic JSON-RPC with login, submit, job": (printing, verto, game, queue, gateway),
    "Bitcoin P2P": (strangers.bitcoin_nodes, strangers.encrypted_nodes),
    "node RPC": (node, nearmisses.explorer),
    "MQTT, Redis, NATS, AMQP, CometD": (mqtt, redis, strangers.nats, strangers.amqp, strangers.cometd),
    "explorers and dashboards of pools": (strangers.dashboard, blog),
    "metrics called hashrate, shares": (telemetry, strangers.metrics),
    "exchanges": (exchange,),
    "Lightning": (strangers.lightning,),
    "errors that quote a mining method": (strangers.quoting_errors, nearmisses.probed),
    "a lone subscribe": (nearmisses.subscribe_without_work,),
    "people and logs that quote": (chat,),
}


def conversations(seed: int) -> Iterator[tuple[str, list[Line]]]:
    """(family, lines) without end.  Equal seeds give equal conversations."""
    d = Draw(seed)
    while True:
        family = d.pick(FAMILIES)
        d.begin()
        said = list(family(d))
        if family in (ethereum, node) and d.one_in(2):
            said = [(d.http(line, side), side) for line, side in said]
        yield family.__name__, said


def lines(seed: int, count: int) -> Iterator[Line]:
    """The first ``count`` lines of all conversations."""
    for _, said in conversations(seed):
        yield from said[:count]
        count -= len(said)
        if count <= 0:
            return

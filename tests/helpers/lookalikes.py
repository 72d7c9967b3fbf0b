"""A seed in, benign conversations out that look like mining: what the payload observer must not believe.

``conversations(seed)`` never ends; each is a family name and its lines in order, ``(bytes, from_client)``,
of one connection.  ``lines(seed, count)`` gives the bare lines.  The same seed gives the same bytes; names,
numbers, hashes, key order, blanks and ids are drawn anew every time: of 4 million lines 2.5 million are
distinct, the others are short replies such as ``{"id":1,"result":true}``.

Where they come from: section 6 of the dialect reference, the recordings ``electrum``, ``ethrpc``,
``rpcapp3333``, ``chat`` and ``mqtt`` in ``pcaps/``; ``nearmisses.py`` adds mining lines that lack one thing.
"""

from collections.abc import Iterator

import nearmisses
from draw import FROM_CLIENT, FROM_SERVER, Draw, Line

METHODS = {
    "blockchain.scripthash.subscribe": lambda d: ([d.hash()], d.some(d.hash(), None)),
    "blockchain.scripthash.get_history": lambda d: ([d.hash()], history(d)),
    "blockchain.scripthash.get_balance": lambda d: (
        [d.hash()],
        {"confirmed": d.below(10**9), "unconfirmed": 0},
    ),
    "blockchain.scripthash.listunspent": lambda d: ([d.hash()], history(d)),
    "blockchain.scripthash.unsubscribe": lambda d: ([d.hash()], True),
    "blockchain.address.subscribe": lambda d: ([d.wallet()], d.some(d.hash(), None)),
    "blockchain.transaction.get": lambda d: ([d.hash()], d.hex(d.between(180, 900) * 2)),
    "blockchain.transaction.broadcast": lambda d: ([d.hex(450)], d.hash()),
    "blockchain.transaction.get_merkle": lambda d: ([d.hash(), d.height()], merkle(d)),
    "blockchain.block.header": lambda d: ([d.height()], d.hex(160)),
    "blockchain.block.headers": lambda d: (
        [d.height(), 3],
        {"count": 3, "hex": d.hex(480), "max": 2016},
    ),
    "blockchain.headers.subscribe": lambda d: ([], {"hex": d.hex(160), "height": d.height()}),
    "blockchain.estimatefee": lambda d: ([d.between(1, 25)], d.below(1000) / 1e7),
    "blockchain.relayfee": lambda d: ([], 1e-05),
    "mempool.get_fee_histogram": lambda d: (
        [],
        [[d.below(90), d.below(90000)] for _ in range(4)],
    ),
    "server.ping": lambda d: ([], None),
    "server.banner": lambda d: ([], f"welcome to {d.word()}: this is not a mining pool"),
    "server.features": lambda d: (
        [],
        {"genesis_hash": d.hash(), "hosts": {}, "hash_function": "sha256"},
    ),
    "server.peers.subscribe": lambda d: (
        [],
        [[d.address(), f"{d.word()}.example", ["v1.4", "t50001", "s50002"]]],
    ),
    "server.donation_address": lambda d: ([], d.wallet()),
}
ETHEREUM = {
    "eth_chainId": lambda d: ([], "0x1"),
    "net_version": lambda d: ([], "1"),
    "eth_blockNumber": lambda d: ([], d.quantity()),
    "eth_getBalance": lambda d: (["0x" + d.hex(40), "latest"], d.quantity()),
    "eth_call": lambda d: ([{"to": "0x" + d.hex(40), "data": "0x" + d.hex(72)}, "latest"], "0x" + d.hash()),
    "eth_gasPrice": lambda d: ([], d.quantity()),
    "eth_getTransactionCount": lambda d: (["0x" + d.hex(40), "pending"], d.quantity()),
    "eth_sendRawTransaction": lambda d: (["0x" + d.hex(220)], "0x" + d.hash()),
    "eth_getTransactionReceipt": lambda d: (
        ["0x" + d.hash()],
        {"blockHash": "0x" + d.hash(), "status": "0x1"},
    ),
    "eth_getLogs": lambda d: ([{"topics": ["0x" + d.hash()]}], [{"data": "0x" + d.hash()}]),
    "eth_getBlockByNumber": lambda d: (["latest", False], block(d)),
    "eth_mining": lambda d: ([], d.some(True, False)),
    "eth_hashrate": lambda d: ([], d.some("0x0", d.quantity())),
    "eth_coinbase": lambda d: ([], "0x" + d.hex(40)),
    "eth_syncing": lambda d: ([], False),
    "eth_feeHistory": lambda d: (["0x4", "latest", []], {"baseFeePerGas": [d.quantity(), d.quantity()]}),
    "eth_subscribe": lambda d: ([d.some("newHeads", "logs", "newPendingTransactions")], "0x" + d.hex(32)),
    "eth_accounts": lambda d: ([], ["0x" + d.hex(40)]),
    "web3_clientVersion": lambda d: ([], "Geth/v1.14.11-stable/linux-amd64/go1.23"),
}
NODE = {
    "getblockchaininfo": lambda d: ([], {"chain": "main", "bestblockhash": d.hash(), "difficulty": 9.2e13}),
    "getmininginfo": lambda d: (
        [],
        {"blocks": d.height(), "networkhashps": 7e20, "pooledtx": d.below(9000)},
    ),
    "getmempoolinfo": lambda d: ([], {"loaded": True, "size": d.below(90000), "mempoolminfee": 1e-05}),
    "getnetworkhashps": lambda d: ([120], d.below(10**9) * 1e12),
    "getblock": lambda d: (
        [d.hash(), 1],
        {"hash": d.hash(), "merkleroot": d.hash(), "nonce": d.below(2**32)},
    ),
    "getblockcount": lambda d: ([], d.height()),
    "getbestblockhash": lambda d: ([], d.hash()),
    "getrawtransaction": lambda d: ([d.hash()], d.hex(480)),
    "estimatesmartfee": lambda d: ([6], {"feerate": d.below(900) / 1e7, "blocks": 6}),
    "get_info": lambda d: (None, {"height": d.height(), "top_block_hash": d.hash(), "status": "OK"}),
    "get_block_count": lambda d: (None, {"count": d.height(), "status": "OK"}),
    "get_last_block_header": lambda d: (
        None,
        {
            "block_header": {"hash": d.hash(), "nonce": d.below(2**32), "difficulty": 512000000000},
            "status": "OK",
        },
    ),
    "get_fee_estimate": lambda d: ({"grace_blocks": 10}, {"fee": d.below(90000), "status": "OK"}),
    "mining_status": lambda d: (None, {"active": False, "speed": 0, "threads_count": 0, "status": "OK"}),
}
TEMPLATES = (
    lambda d: (
        "getblocktemplate",
        [{"rules": ["segwit"]}],
        {"version": 536870912, "previousblockhash": d.hash(), "target": d.hash(), "bits": d.hex(8)},
    ),
    lambda d: (
        "get_block_template",
        {"wallet_address": d.monero(), "reserve_size": 8},
        {"blocktemplate_blob": d.hex(400), "blockhashing_blob": d.hex(152), "difficulty": d.below(10**11)},
    ),
)
ERRORS = (
    'unknown method "mining.subscribe"',
    "unsupported method: mining.authorize",
    'invalid request {"method":"mining.submit","params":["x","y"]}',
    "method 'eth_submitLogin' not found; this is not a pool",
    "excessive resource usage",
    "daemon error: DaemonError({'code': -26, 'message': 'mempool min fee not met'})",
)


def history(d: Draw) -> list[dict]:
    """An Electrum history of a few transactions."""
    return [{"tx_hash": d.hash(), "height": d.height(), "tx_pos": d.below(4)} for _ in range(d.below(5))]


def merkle(d: Draw) -> dict:
    """An Electrum proof: a list of hashes, as in mining.notify."""
    return {
        "merkle": [d.hash() for _ in range(d.between(1, 12))],
        "block_height": d.height(),
        "pos": d.below(900),
    }


def block(d: Draw) -> dict:
    """An Ethereum block with a nonce, a mix hash and a difficulty."""
    return {"number": d.quantity(), "hash": "0x" + d.hash(), "nonce": "0x" + d.hex(16),
            "miner": "0x" + d.hex(40), "mixHash": "0x" + d.hash(), "difficulty": d.quantity()}  # fmt: skip


def electrum(d: Draw) -> Iterator[Line]:
    """A wallet and its server; pushes, and errors that quote mining methods."""
    d.keep_jsonrpc()
    yield from d.call(
        "server.version", ["electrum/4.5.5", "1.4"], [f"{d.some('ElectrumX', 'Fulcrum')} 1.16.0", "1.4"]
    )
    for _ in range(d.between(2, 8)):
        method = d.pick(METHODS)
        yield from d.call(method, *METHODS[method](d))
        if d.one_in(3):
            header = {"hex": d.hex(160), "height": d.height()}
            yield d.push("blockchain.headers.subscribe", [header])
        if d.one_in(5):
            yield d.push("blockchain.scripthash.subscribe", [d.hash(), d.hash()])
        if d.one_in(6):
            yield from d.fail("blockchain.transaction.broadcast", [d.hex(450)], d.pick(ERRORS))


def ethereum(d: Draw) -> Iterator[Line]:
    """A wallet or a dapp, over HTTP or as WebSocket texts; at most one eth_getWork, as a scanner sends it."""
    d.keep_jsonrpc()
    for _ in range(d.between(2, 8)):
        method = d.pick(ETHEREUM)
        yield from d.call(method, *ETHEREUM[method](d))
        if method == "eth_subscribe":
            yield d.push("eth_subscription", {"subscription": "0x" + d.hex(32), "result": block(d)})
    if d.one_in(4):
        work = ["0x" + d.hash(), "0x" + d.hash(), "0x" + "0" * 8 + d.hex(56)]
        yield from (
            d.call("eth_getWork", [], work) if d.one_in(2) else d.fail("eth_getWork", [], "no mining work")
        )


def node(d: Draw) -> Iterator[Line]:
    """An explorer that asks bitcoind or monerod; at most one block template."""
    d.keep_jsonrpc()
    for _ in range(d.between(1, 6)):
        method = d.pick(NODE)
        yield from d.call(method, *NODE[method](d))
    if d.one_in(3):
        yield from d.call(*d.pick(TEMPLATES)(d))


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
    electrum, ethereum, node, printing, verto, game, queue, exchange, telemetry, editor, mqtt, redis, chat,
    blog, *nearmisses.FAMILIES,
)  # fmt: skip


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

"""A draw in, mining lines out that lack one thing, or that stand where they mean nothing.

``REAL_SERVER`` and ``REAL_CLIENT`` are whole lines of the plaintext dialects as their programs write them;
``spoiled`` drops a member, renames it, or gives it the wrong type.  What it touches is what the dialect
reference calls required (sections 1.3 and 3.1 to 3.8), so that no line is mining by itself; requests that
are whole get replies that are not.  ``spoiled_dialect`` does
so with what the speakers of all dialects say.  ``quoted`` is a whole line as people paste it into a chat.
"""

import json
from collections.abc import Iterator
from typing import Any

from draw import FROM_CLIENT, FROM_SERVER, Draw, Line
from speakers import SPEAKERS


def notify(d: Draw) -> dict[str, Any]:
    """mining.notify of Bitcoin's Stratum: 9 parameters."""
    branch = [d.hash() for _ in range(d.between(0, 9))]
    params = [d.hex(8), d.hash(), d.hex(110), d.hex(140), branch, "20000000", d.hex(8), d.hex(8), d.one_in(2)]
    return {"id": None, "method": "mining.notify", "params": params}


def job(d: Draw) -> dict[str, Any]:
    """A CryptoNote job."""
    return {"blob": "1010" + d.hex(148), "job_id": d.hex(8), "target": d.hex(8), "height": d.height(),
            "seed_hash": d.hash()}  # fmt: skip


def work(d: Draw) -> list[str]:
    """EthProxy's work: header, seed, boundary."""
    return ["0x" + d.hash(), "0x" + d.hash(), "0x00000001" + d.hex(56)]


REAL_SERVER = {
    "notify": notify,
    "set_difficulty": lambda d: {
        "id": None,
        "method": "mining.set_difficulty",
        "params": [d.between(1, 9000)],
    },
    "subscribed": lambda d: {
        "id": 1,
        "result": [[["mining.set_difficulty", d.hex(8)], ["mining.notify", d.hex(8)]], d.hex(8), 4],
        "error": None,
    },
    "job": lambda d: {"jsonrpc": "2.0", "method": "job", "params": job(d)},
    "logged in": lambda d: {
        "id": 1,
        "jsonrpc": "2.0",
        "error": None,
        "result": {"id": d.hex(15), "job": job(d), "status": "OK"},
    },
    "work": lambda d: {"id": 0, "jsonrpc": "2.0", "result": work(d)},
    "nicehash notify": lambda d: {
        "id": None,
        "method": "mining.notify",
        "params": [d.hex(8), d.hash(), d.hash(), True],
    },
}
REAL_CLIENT = {
    "subscribe": lambda d: {"id": 1, "method": "mining.subscribe", "params": ["cgminer/4.10.0"]},
    "authorize": lambda d: {
        "id": 2,
        "method": "mining.authorize",
        "params": [f"{d.wallet()}.{d.word()}", "x"],
    },
    "submit": lambda d: {
        "id": 4,
        "method": "mining.submit",
        "params": [d.wallet(), d.hex(8), d.hex(8), d.hex(8), d.hex(8)],
    },
    "login": lambda d: {
        "id": 1,
        "jsonrpc": "2.0",
        "method": "login",
        "params": {
            "login": d.monero(),
            "pass": "x",
            "agent": "XMRig/6.26.0 (Linux x86_64) libuv/1.44.2 gcc/12.2.0",
        },
    },
    "cryptonote submit": lambda d: {
        "id": 2,
        "jsonrpc": "2.0",
        "method": "submit",
        "params": {"id": d.hex(15), "job_id": d.hex(8), "nonce": d.hex(8), "result": d.hash()},
    },
    "submitLogin": lambda d: {
        "id": 1,
        "jsonrpc": "2.0",
        "method": "eth_submitLogin",
        "params": ["0x" + d.hex(40)],
    },
    "submitWork": lambda d: {
        "id": 4,
        "jsonrpc": "2.0",
        "method": "eth_submitWork",
        "params": ["0x" + d.hex(16), "0x" + d.hash(), "0x" + d.hash()],
    },
}
# Which members of result or params a line cannot do without.
NEEDED = {
    "notify": range(8),
    "set_difficulty": (0,),
    "job": ("blob", "job_id", "target"),
    "logged in": ("job",),
    "work": (0, 1, 2),
    "nicehash notify": (0, 1, 2),
    "submit": (1, 2, 3, 4),
    "cryptonote submit": ("job_id", "nonce", "result"),
    "submitWork": (0, 1, 2),
}
# Where a job id stands in a list: any text is one.
OPAQUE = {"notify": 0, "nicehash notify": 0, "submit": 1}
RENAMED = {
    "blob": "body",
    "job_id": "task",
    "target": "to",
    "job": "task",
    "nonce": "once",
    "result": "outcome",
}
OTHER_WORDS = (
    "notify",
    "Mining.Notify2",
    "minig.notify",
    "training.submit",
    "job.mining.notify",
    "eth_work",
    "jobs",
)


def spoil(d: Draw, holder: Any, key: Any, opaque: bool) -> None:
    """Drop, rename or retype one member of an object or a list; an ``opaque`` text may hold anything."""
    way = d.between(0, 2 if opaque else 3)
    value = holder[key]
    if way == 0 or (way == 1 and isinstance(holder, list)):
        del holder[key]
    elif way == 1:
        holder[RENAMED[key]] = holder.pop(key)
    elif way == 2:
        holder[key] = d.some({"a": 1}, None, True, [value])
    elif isinstance(value, str):
        holder[key] = d.some(7, "zz-" + value[:-1], {"hex": value})
    else:
        holder[key] = d.some("many", {}, "none")


def spoiled(d: Draw, name: str, line: dict[str, Any]) -> dict[str, Any]:
    """The line without, or with a wrong, thing that it needs."""
    inner = "params" if "params" in line else "result"
    how = d.between(0, 5)
    if how == 0 and "method" in line:
        line["method"] = d.some(*OTHER_WORDS, None, 7, [line["method"]])
    elif how == 1 and "method" in line:
        line[d.some("event", "topic", "cmd", "name")] = line.pop("method")
    elif how == 2:
        line[d.some("data", "args", "payload")] = line.pop(inner)
    elif name in NEEDED and how > 2:
        holder = line[inner]["job"] if name == "logged in" and d.one_in(2) else line[inner]
        needed = NEEDED["job"] if "blob" in holder else NEEDED[name]
        key = d.pick(needed)
        spoil(d, holder, key, key == "job_id" or key == OPAQUE.get(name))
    elif name == "subscribed":
        line["result"] = d.some(
            [[["notify", d.hex(8)]], d.hex(8), 4], [[], d.hex(8)], [d.hex(8), d.hex(8), "4"], True
        )
    else:
        line[inner] = d.some("", None, 7, [], {}, [[]])
    return line


def quoted(d: Draw) -> str:
    """A whole mining line of either side, as text."""
    kinds = REAL_CLIENT if d.one_in(2) else REAL_SERVER
    return json.dumps(kinds[d.pick(kinds)](d), separators=d.separators)


def spoiled_server(d: Draw) -> Iterator[Line]:
    """A server's lines, each lacking something, after harmless requests."""
    yield from d.call(d.some("hello", "status", "open"), [], d.some(True, "ok"))
    for _ in range(d.between(1, 6)):
        name = d.pick(REAL_SERVER)
        yield d.told(spoiled(d, name, REAL_SERVER[name](d)), FROM_SERVER)


def spoiled_client(d: Draw) -> Iterator[Line]:
    """A client's lines, each lacking something, and replies that could be to anything."""
    for _ in range(d.between(1, 6)):
        name = d.pick(REAL_CLIENT)
        line = spoiled(d, name, REAL_CLIENT[name](d))
        number = line["id"] = d.next_id()
        yield d.told(line, FROM_CLIENT)
        if not d.one_in(4):
            yield d.answer(
                number, d.some(True, None, {"status": "OK"}, {"status": "KEEPALIVED"}, False, "ok")
            )


def login_without_job(d: Draw) -> Iterator[Line]:
    """A whole CryptoNote login; what comes back is no job, ever."""
    line = REAL_CLIENT["login"](d)
    if d.one_in(2):
        line["params"]["login"] = d.word()
    yield d.told(line, FROM_CLIENT)
    session: dict[str, Any] = {"id": d.hex(15), "status": "OK"}
    if d.one_in(2):
        session["job"] = d.some(
            {}, None, [], "none", {"job_id": d.hex(8)}, {"job_id": d.hex(8), "target": d.hex(8)}
        )
    yield d.answer(1, session)
    for number in range(2, d.between(3, 6)):
        params = {"id": session["id"], "job_id": d.hex(8)}
        yield d.ask(d.some("keepalived", "keepalive", "getjob"), params, number)
        yield d.answer(number, d.some({"status": "KEEPALIVED"}, {"status": "OK"}, True))


def subscribe_without_work(d: Draw) -> Iterator[Line]:
    """A whole mining.subscribe at a server that is no pool: no reply, a page, or something else's result."""
    yield d.told(REAL_CLIENT["subscribe"](d), FROM_CLIENT)
    reply = d.between(0, 3)
    if reply == 0:
        yield b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", FROM_SERVER
    elif reply == 1:
        yield d.answer(1, d.some(True, "subscribed", d.hex(32), {"subscription": d.hex(8)}, []))
    elif reply == 2:
        yield d.told(spoiled(d, "notify", notify(d)), FROM_SERVER)


def probed(d: Draw) -> Iterator[Line]:
    """A scanner asks an Electrum or other server for mining; the error quotes the method."""
    method = d.some("mining.subscribe", "eth_submitLogin", "mining.configure")
    yield from d.fail(method, [], d.some(f'unknown method "{method}"', f"{method}: method not found"))


NAMES = ("method", "type", "identifier", "message")
HOLDERS = ("params", "result", "body")


def _spoken(d: Draw) -> list[tuple[str, Any]]:
    """What a miner and a pool of any dialect say until the first share, side and object."""
    speaker = d.pick(SPEAKERS)()
    said = [*speaker.open(), *speaker.job(0, speaker.hashes, True)[0], ("c", speaker.share(0))]
    plain = [message if isinstance(message, tuple) else (side, message) for side, message in said]
    return [(side, message) for side, message in plain if isinstance(message, dict)]


def spoiled_dialect(d: Draw) -> Iterator[Line]:
    """Lines of any dialect, each under another name, or with what it says in another member; any replies."""
    for side, line in _spoken(d):
        name = next((n for n in NAMES if n in line), None)
        holder = next((h for h in HOLDERS if h in line), None)
        if name is not None and (holder is None or d.one_in(2)):
            if d.one_in(2):
                line[name] = d.some(*OTHER_WORDS, None, 7, [line[name]])
            else:
                line[d.some("event", "topic", "cmd", "name")] = line.pop(name)
        elif holder is not None:
            line[d.some("data", "args", "payload")] = line.pop(holder)
        else:
            continue
        yield d.told(line, FROM_CLIENT if side == "c" else FROM_SERVER)
        if side == "c" and "id" in line:
            yield d.answer(line["id"], d.some(True, None, {"status": "OK"}, False, "ok", [True]))


def explorer(d: Draw) -> Iterator[Line]:
    """Who shows blocks asks a node for templates, as often as it likes."""
    for _ in range(d.between(1, 6)):
        params = d.some([], [{"rules": ["segwit"]}], {}, [{"capabilities": ["proposal"]}])
        parent = d.hash()
        easy = "00000000" + d.hex(56)
        template = {"previousblockhash": parent, "coinbasevalue": d.below(10**9), "target": easy,
                    "bits": d.hex(8), "height": d.height(), "longpollid": parent}  # fmt: skip
        blob = "1010" + d.hex(148)
        monero = {"blocktemplate_blob": blob, "difficulty": d.below(10**9), "prev_hash": parent,
                  "height": d.height(), "seed_hash": d.hash(), "status": "OK"}  # fmt: skip
        yield from d.call("getblocktemplate", params, d.some(template, monero))


FAMILIES = (
    spoiled_server, spoiled_client, spoiled_dialect, explorer, login_without_job, subscribe_without_work,
    probed,
)  # fmt: skip

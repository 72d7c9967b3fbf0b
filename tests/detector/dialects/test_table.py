"""Every row tests itself; no look-alike hits any row."""

# ruff: noqa: E501  # real lines are long
import json
from collections import Counter

import pytest

from detector.dialects import lines, shapes, table

TABLE = table.load()
HITS = [(f, line) for f in TABLE.forms for line in f.hits]
MISSES = [(f, line) for f in TABLE.forms for line in f.misses]

LOOKALIKES = {
    "electrum client": '{"jsonrpc":"2.0","method":"server.version","id":0,"params":["electrum/4.5.5","1.4"]}',
    "electrum subscribe": '{"jsonrpc":"2.0","method":"blockchain.scripthash.subscribe","id":3,"params":["4f0a1b859ef176bda79ee5685e8d47e7dedf41a708485ff49d898452e305d9ee"]}',
    "electrum headers": '{"jsonrpc":"2.0","result":{"hex":"5c2477263cdc175a96cfaa44d4b02df8","height":905000},"id":2}',
    "electrum push": '{"jsonrpc":"2.0","method":"blockchain.headers.subscribe","params":[{"hex":"5c24","height":905001}]}',
    "electrum version": '{"jsonrpc":"2.0","result":["ElectrumX 1.16.0","1.4"],"id":0}',
    "electrum error": '{"jsonrpc":"2.0","id":5,"error":{"code":-32601,"message":"unknown method \\"mining.subscribe\\""}}',
    "pool error": '{"id":1,"result":null,"error":[25,"send {\\"method\\":\\"mining.subscribe\\"} first",null]}',
    "eth wallet": '{"jsonrpc": "2.0", "method": "eth_getBalance", "params": ["0x17fa2dd80f7a7e06d7c1c400911d31690a8ff606","latest"], "id": 0}',
    "eth mining": '{"jsonrpc": "2.0", "method": "eth_mining", "params": [], "id": 4}',
    "eth block": '{"jsonrpc":"2.0","id":3,"result":{"number":"0x1312d00","hash":"0xe8743010a9e280919df181206a72ea7c173df4985a66e984c0a09cbdf16e05b1"}}',
    "eth subscribe": '{"id":1,"method":"eth_subscribe","params":["newHeads"]}',
    "eth logs": '{"id":3,"result":["0xb210f41d21779afb2252e9504eadde60fbfe5cddd355df4121c52662396752bd","0xf1bb12287f4f8da9d8f6d4811b27cfe9227e551cca6d76c165e37f430f5d663e"]}',
    "language server": '{"jsonrpc":"2.0","id":1,"method":"textDocument/completion","params":{"position":{"line":1}}}',
    "exchange": '{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}',
    "exchange reply": '{"result":null,"id":1}',
    "job queue": '{"jsonrpc": "2.0", "method": "job", "params": {"job_id": "83e566c5", "state": "running", "target": "printer-3"}}',
    "print submit": '{"id": 2, "jsonrpc": "2.0", "method": "submit", "params": {"id": "a2c0", "job_id": "cc538475", "document": "report.pdf"}}',
    "login reply": '{"id": 1, "jsonrpc": "2.0", "error": null, "result": {"id": "a8de207c803ebf66", "status": "OK", "session": "8864"}}',
    "mqtt": '{"method": "submit", "hashrate": 12.5, "accepted": 0, "pool": "none"}',
    "verto": '{"jsonrpc":"2.0","method":"login","params":{"passwd":"1234","sessid":"6b1f-22"},"id":1}',
    "log line": '{"level":"info","message":"{\\"id\\":1,\\"method\\":\\"mining.subscribe\\",\\"params\\":[]}"}',
    "chat": '{"method":"say","params":["mining.authorize","a","b"],"text":"\\"method\\":\\"mining.submit\\""}',
    "node rpc": '{"method":"getblockchaininfo","params":[],"id":1}',
    "redis-like": '{"cmd":"subscribe","channel":"mining.notify"}',
}  # fmt: skip
WEAK_LOOKALIKES = {
    "verto": '{"jsonrpc":"2.0","method":"login","params":{"login":"1008@fs","passwd":"1234","sessid":"6b1f"}}',
    "generic": '{"id": 1, "jsonrpc": "2.0", "method": "login", "params": {"login": "alice", "pass": "secret", "agent": "print-client/2.1"}}',
    "scanner": '{"jsonrpc":"2.0","method":"eth_getWork","params":[],"id":74}',
}  # fmt: skip


def row_of(text, request=None, dialect="mining"):
    said = lines.read(text.encode())
    name = TABLE.name(said)
    found = TABLE.replied(said, request) if name is None else TABLE.called(name, said, dialect)
    return None if found is None else found.row


def paired(form):
    return form.answers[0] if form.answers else None


@pytest.mark.parametrize(("form", "line"), HITS, ids=[f"{f.id}-{n}" for n, (f, _) in enumerate(HITS)])
def test_every_hit_is_that_row(form, line):
    assert row_of(line, paired(form), form.dialect) is form


@pytest.mark.parametrize(("form", "line"), MISSES, ids=[f"{f.id}-{n}" for n, (f, _) in enumerate(MISSES)])
def test_every_miss_is_not_that_row(form, line):
    assert row_of(line, paired(form), form.dialect) is not form


@pytest.mark.parametrize("form", TABLE.forms, ids=lambda f: f.id)
def test_every_row_carries_its_own_test_and_source(form):
    assert form.hits
    assert form.misses
    assert form.source
    assert form.dialect == "mining" or form.dialect in TABLE.dialects


def test_ids_are_unique():
    assert max(Counter(f.id for f in TABLE.forms).values()) == 1


@pytest.mark.parametrize(("form", "line"), HITS, ids=[f"{f.id}-{n}" for n, (f, _) in enumerate(HITS)])
def test_key_order_blanks_and_escapes_do_not_matter(form, line):
    said = json.loads(line)
    turned = json.dumps(dict(reversed(said.items())), indent=1).replace("\n", "\r ")
    escaped = turned.replace("i", "\\u0069") if "id" not in turned else turned
    assert row_of(turned, paired(form), form.dialect) is form
    assert row_of(escaped, paired(form), form.dialect) is form


@pytest.mark.parametrize("name", LOOKALIKES)
def test_no_lookalike_is_any_row(name):
    for request in (None, "login", "poll", "configure"):
        assert row_of(LOOKALIKES[name], request) is None


@pytest.mark.parametrize("name", WEAK_LOOKALIKES)
def test_a_generic_login_or_poll_is_weak(name):
    assert row_of(WEAK_LOOKALIKES[name]).weak


@pytest.mark.parametrize(("form", "line"), HITS, ids=[f"{f.id}-{n}" for n, (f, _) in enumerate(HITS)])
def test_a_mining_line_inside_a_text_is_no_row(form, line):
    assert row_of(json.dumps({"id": 1, "error": {"message": line}})) is None
    assert row_of(json.dumps({"method": "say", "params": [line]})) is None
    assert row_of(json.dumps({"result": line})) is None


def test_an_unknown_word_is_our_own_mistake():
    with pytest.raises(ValueError, match="unknown shape"):
        shapes.word("hexy")


@pytest.mark.parametrize(
    ("word", "yes", "no"),
    [
        ("hex8", ["6b02def0"], ["6b02def", "6b02def00", "0x02def0", 7, None, shapes.MISSING]),
        ("hex80+", ["a" * 80, "a" * 81], ["a" * 79, "g" * 80]),
        ("0xhex16", ["0x6140ce9b94efc3b2"], ["6140ce9b94efc3b2"]),
        ("int", [1, 2**70], [True, 1.0, "1"]),
        ("number", [1, 1.5], [True, "1", None]),
        ("text?", ["", None, shapes.MISSING], [1]),
        ("hex8|hex16", ["a" * 8, "a" * 16], ["a" * 12]),
        ("=OK", ["OK"], ["ok", "OK ", None]),
        ("subscriptions", [["mining.notify", "x"], [["mining.notify", "1"]]], [[], [["x"]], ["server.x"], [[]], "mining.notify"]),
        ("absent", [shapes.MISSING], [None, 1]),
        ("list_hex64", [[], ["a" * 64]], [["a" * 63], "a" * 64, [1]]),
    ],
)  # fmt: skip
def test_words_mean_what_they_say(word, yes, no):
    test = shapes.word(word)
    assert all(test(v) for v in yes)
    assert not any(test(v) for v in no)


def test_a_list_of_words_is_an_array_with_these_elements():
    test = shapes.elements(["text", "hex8", "hex8?"])
    assert test(["a", "00000000"])
    assert test(["a", "00000000", None])
    assert test(["a", "00000000", "00000000"])
    assert not test(["a", "00000000", "00000000", "x"])
    assert not test(["a"])
    assert not test(["a", 7])
    assert not test("a")
    assert not test(["a\x0000000000"])
    assert shapes.elements(["int", "..."])([1, 2, 3])

"""What is not read anew says the same: the observer beside itself with every line read."""

import gzip
import random
from itertools import islice

import lookalikes
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from payload_rows import batch
from speakers import SPEAKERS
from speakers.conversing import converse
from speakers.solo import OverHttp
from spoken import Talk

from detector import tables
from detector.dialects.table import Accept, Form, Refuse
from detector.observers.payload import PayloadObserver
from detector.observers.plans import UNUSUAL, Plan, Plans
from detector.observers.repeats import MAX_MISSED, texts
from detector.observers.telling import Step
from detector.tracks import Book, Track
from detector.transports.apart import FIRST_LOOKS, FREE, Apart
from detector.transports.unwrapping import PLAIN
from detector.transports.websocket import unmask

STEP = Step(bytes(16), ((bytes(16), 1), (bytes(16), 2), 6, 0), Track(0, 0, 0), Book())
KINDS = {kind.name: kind for kind in SPEAKERS}
FRAMED = ("coinhive", "coinhive (deepMiner)", "webminerpool", "webminerpool (loginid)", "cyber-ws")
"""Whose lines are in frames, and do not hold what is in no other."""
POSTED = [kind.name for kind in SPEAKERS if issubclass(kind, OverHttp)]
PACKED = ("eth-stratum2 (gzip)",)
TEXTS = ("nimiq", "nimiq (smart)")
"""Whose shares hold octets in base64."""
BINARY = [kind.name for kind in SPEAKERS if kind.dialect in {"sv2-plain", "alephium-node"}]
LINED = [kind for kind in SPEAKERS if kind.in_lines and not kind.name.startswith("btc-v1 (scrypt")]


def talked(kind, miner=1):
    talk = Talk(miner=miner, port=40000 + miner)
    converse(kind(), talk, shares=12)
    return talk.rows


def told(rows, cuts=(), *, plain=False):
    """What is seen of the rows in batches cut there, what is kept, what was counted; and how often a line was
    not read.  ``plain``: all are."""
    observer, read = PayloadObserver(), [0]
    if plain:
        observer._repeats.fit = lambda step: UNUSUAL
    line = observer._line

    def count(*given, body):
        read[0] += 1
        line(*given, body=body)

    observer._line = count
    ends = sorted({cut % (len(rows) + 1) for cut in cuts})
    seen = []
    for begin, end in zip([0, *ends], [*ends, len(rows)], strict=True):
        if begin < end:
            seen.append(observer.step(batch(rows[begin:end])))
    kept = [msgspec.msgpack.encode(observer.state(who)) for who in sorted({r["subscriber"] for r in rows})]
    return seen, kept, msgspec.structs.asdict(observer.stats), observer.stats.lines - read[0]


@pytest.mark.parametrize("name", KINDS)
def test_a_miner_whose_lines_are_not_all_read_is_seen_as_if_they_were(name):
    rows = talked(KINDS[name])
    *quick, taken = told(rows, [50, 60, 150])
    *slow, none = told(rows, [50, 60, 150], plain=True)
    assert quick == slow
    assert none == 0
    assert (taken > 0) == (KINDS[name].in_lines or name in (*FRAMED, *POSTED, *PACKED, *TEXTS, *BINARY))


ALTERED = st.tuples(
    st.integers(0), st.integers(0), st.sampled_from([*b'0123456789abcdefX"{}[],:.-\\ \n\r\xff\0\1\5\x80\x81'])
)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from([k for k in SPEAKERS if not k.name.startswith("btc-v1 (scrypt")]),
    altered=st.lists(ALTERED, max_size=12),
    moved=st.lists(st.tuples(st.integers(0), st.sampled_from(["drop", "twice", "swap", "late"])), max_size=6),
    cuts=st.lists(st.integers(0), max_size=3),
)
def test_whatever_comes_it_is_seen_as_if_every_line_were_read(kind, altered, moved, cuts):
    rows = talked(kind)
    begin = len(rows) // 3
    for number, place, octet in altered:
        at = begin + number % (len(rows) - begin)
        data = bytearray(rows[at]["data"])
        if data:
            data[place % len(data)] = octet
            rows[at] = {**rows[at], "data": bytes(data)}
    for number, how in moved:
        at = begin + number % (len(rows) - begin - 1)
        if how == "drop":
            del rows[at]
        elif how == "twice":
            rows.insert(at, rows[at])
        elif how == "swap":
            rows[at], rows[at + 1] = rows[at + 1], rows[at]
        else:
            rows[at] = {**rows[at], "t": rows[at]["t"] - 10**12}
    assert told(rows, cuts)[:3] == told(rows, cuts, plain=True)[:3]


def framed(line, key):
    """A line as a frame of a WebSocket, not longer than its length tells with 16 bits."""
    text = line.rstrip(b"\r\n")[:60_000]
    size = bytes([len(text)]) if len(text) < 126 else b"\x7e" + len(text).to_bytes(2, "big")
    return bytes([0x81, size[0] | (128 if key else 0)]) + size[1:] + key + unmask(text, key)


def strange(talk, lines, times, in_frames=False):
    """Somebody who does not mine says so, again and again."""
    for number in range(times):
        for line, from_client in lines:
            key = b"%04d" % number if from_client else b""
            talk.say("c" if from_client else "s", framed(line, key) if in_frames else line)


def conversations(seed, count):
    return [list(lines) for _, lines in islice(lookalikes.conversations(seed), count)]


def turns(streams):
    longest = max(map(len, streams))
    return [rows[at] for at in range(longest) for rows in streams if at < len(rows)]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 8), cuts=st.lists(st.integers(0), max_size=3),
       acked=st.booleans())  # fmt: skip
def test_who_looks_like_a_miner_is_seen_as_if_every_line_were_read(seed, count, cuts, acked):
    talks = [Talk(miner=number + 1, port=40000 + number, begun=acked) for number in range(count)]
    for talk, lines in zip(talks, conversations(seed, count), strict=True):
        strange(talk, lines, 4)
    rows = turns([talk.rows for talk in talks])
    assert told(rows, cuts)[:3] == told(rows, cuts, plain=True)[:3]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from([*LINED, *(KINDS[name] for name in FRAMED)]),
       cuts=st.lists(st.integers(0), max_size=3), ahead=st.booleans(), lost=st.booleans())  # fmt: skip
@example(seed=1, kind=KINDS["eth-proxy"], cuts=[], ahead=True, lost=False)
def test_who_mines_among_other_things_is_seen_as_if_every_line_were_read(seed, kind, cuts, ahead, lost):
    talk, said = Talk(), conversations(seed, 3)
    quiet = [(b'{"id": 7, "method": "server.version"}\n', True), (b'{"id": 7, "result": true}\n', False)]
    for lines in (said[0], quiet) if ahead else ():
        strange(talk, lines, 3)
    for number in range(3):
        converse(kind(), talk, shares=3)
        strange(talk, said[number], 3, in_frames=not kind.in_lines)
        if lost:
            talk.say("s", b"")
            talk.seq["s"] += 10
    assert told(talk.rows, cuts)[:3] == told(talk.rows, cuts, plain=True)[:3]


ELECTRUM = [(b'{"id": %d, "method": "blockchain.scripthash.subscribe", "params": ["%064x"]}\n', True),
            (b'{"jsonrpc": "2.0", "id": %d, "result": "%064x"}\n', False)]  # fmt: skip


@pytest.mark.parametrize("in_frames", [False, True])
def test_what_another_service_says_is_not_read_again_and_again(in_frames):
    talk = Talk()
    if in_frames:
        asks = b"GET / HTTP/1.1\r\nUser-Agent: A\r\nUpgrade: websocket\r\n\r\n"
        talk.say("c", asks)
        talk.say("s", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
    for number in range(50):
        strange(talk, [(line % (number, number), side) for line, side in ELECTRUM], 1, in_frames)
    quick = told(talk.rows, [9, 30])
    assert quick[:3] == told(talk.rows, [9, 30], plain=True)[:3]
    assert quick[3] > 90


@pytest.mark.parametrize("name", FRAMED)
@pytest.mark.parametrize("head", [b"User-Agent: A", b"Authorization: Basic YTpi\r\nUser-Agent: A"])
def test_a_browser_that_says_its_name_is_seen_as_if_every_frame_were_read(name, head):
    rows = talked(KINDS[name])
    more = b"\r\n" + head
    rows[0] = {**rows[0], "data": rows[0]["data"].replace(b"\r\n", more + b"\r\n", 1)}
    size = len(more)
    for number, row in enumerate(rows):
        way = "seq" if row["src"] == rows[0]["src"] else "ack"
        after = {way: (row[way] + size) & 0xFFFFFFFF}
        rows[number] = {**row, **(after if number else {})}
    quick = told(rows, [50, 60, 150])
    assert quick[:3] == told(rows, [50, 60, 150], plain=True)[:3]
    assert (quick[3] > 0) == head.startswith(b"User")
    assert all("A" in facts.agents for facts in quick[0][-1].sessions)


HEADS = st.lists(st.sampled_from([
    b"Date: Sun, 06 Nov 1994 08:49:%02d GMT", b"Last-Modified: Sun, 06 Nov 1994 08:49:%02d GMT",
    b"Date: %d", b"date: Sun, 06 Nov 1994 08:49:%02d GMT", b"X: Date: %d", b"Authorization: Basic %d",
    b"Content-Length: 7%d", b"content-length: %d", b"Content-Encoding: gzip%d",
    b"Transfer-Encoding: chunked%d", b"Origin: http://a%d", b"Authorization: Basic YTpi\r\nX: %d",
    b"X-Mining-Extensions: %d", b"User-Agent: Mozilla/%d", b"Y: %d\n\nZ: 1",
    b"Connection: keep-alive\r\nX-%d: 1", b"Upgrade: websocket\r\nX: %d", b"Content-Type: text/plain %d",
    b"Date: Sun, 06 Nov\n\n994 08:49:%02d GMT", b"Y: %d\n\r\nZ: 1",
]), max_size=2)  # fmt: skip
REPLACED = st.lists(st.tuples(st.sampled_from([
    (b"POST", b"PUT"), (b"POST", b"GET"), (b"POST", b"HEAD"), (b"application/json", b"text/plain"),
    (b"200 OK", b"204 No"), (b"200 OK", b"500 Oh"), (b"200 OK", b"100 Go"),
    (b"Content-Length", b"content-length"), (b"\r\n\r\n", b"\n\n"),
    (b"Content-Length: ", b"Content-Length: 0"), (b"Content-Length: ", b"Content-Length:  "),
    (b" /", b" /partial"), (b"User-Agent: ", b"User-Agent: Mozilla/"), (b"}", b"}{"), (b"}", b"} "),
    (b": ", b":"), (b"\r\n\r\n{", b"\r\n\r\n\n{"), (b"HTTP/1.1", b"HTTP/1.0"), (b"HTTP/1.1", b"HTTP/2"),
    (b"200 OK", b"304 Not"), (b"200 OK", b"101 Yes"), (b"\r\n\r\n{", b"\r1\r\n\r\n{"),
]), st.integers(0), st.booleans()), max_size=6)  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(name=st.sampled_from(POSTED), heads=HEADS, replaced=REPLACED, both=st.integers(1, 3),
       lost=st.booleans(), cuts=st.lists(st.integers(0), max_size=3),
       split=st.lists(st.integers(0), max_size=3), joined=st.lists(st.integers(0), max_size=3),
       shares=st.integers(4, 14))  # fmt: skip
def test_a_message_of_http_is_seen_as_if_it_were_read(
    name, heads, replaced, both, lost, cuts, split, joined, shares
):
    """With whatever head, in segments cut anywhere, several in one, some lost; on one or two connections."""
    talks = []
    for number in range(2):
        given, talk = Talk(), Talk(port=40000 + number)
        converse(KINDS[name](), given, jobs=4, shares=shares)
        said = [(row["src"] == given.rows[0]["src"], row["data"]) for row in given.rows]
        for at, (client, data) in enumerate(said):
            if (1 if client else 2) & both and at >= 20:
                more = b"".join(b"\r\n" + head % (at % 60) for head in heads)
                said[at] = client, data.replace(b"\r\n\r\n", more + b"\r\n\r\n", 1)
        for (was, instead), place, often in replaced:
            for at in range(20 + place % (len(said) - 20), len(said), 7 if often else len(said)):
                said[at] = said[at][0], said[at][1].replace(was, instead, 1)
        for place in joined:
            at = 20 + place % (len(said) - 22)
            said[at : at + 2] = [(said[at][0], said[at][1] + said[at + 1][1])]
        for at, (client, data) in enumerate(said):
            cut = next((place % len(data) for place in split if place % 11 == at % 11), 0) if data else 0
            talk.say("c" if client else "s", data[:cut] if cut else data)
            if cut:
                talk.say("c" if client else "s", data[cut:])
            talk.wait(1)
        talks.append(talk.rows)
    rows = turns(talks[: 1 + shares % 2])
    if lost:
        del rows[len(rows) * 2 // 3]
    assert told(rows, cuts)[:3] == told(rows, cuts, plain=True)[:3]


ENDS = (b"\n", b"", b"\r\n", b"\n\n", b"\r", b"\0", b" \n", b"}\n", b"]\n", b"\n{\"id\":7,\"result\":true}\n",
        b"\r{\"id\":7,\"result\":true}\n", b'\n{"id":7,')  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(odd=st.lists(st.tuples(st.integers(0), st.sampled_from(ENDS), st.booleans(), st.sampled_from(
           ["gzip", "plain", "twice", "long", "named", "cut", "more", "raw"])), max_size=8),
       cuts=st.lists(st.integers(0), max_size=3), joined=st.integers(0, 9))  # fmt: skip
def test_what_gzip_holds_is_seen_as_if_it_were_read(odd, cuts, joined):
    """Members that hold more or less than a line, are not all of a segment or are none."""
    rows = talked(KINDS[PACKED[0]])[joined:]
    talk = Talk()
    for number, row in enumerate(rows):
        side, data = "c" if row["dst_port"] == 3333 else "s", row["data"]
        for place, end, often, how in odd:
            at = 12 + place % (len(rows) - 12)
            if number != at and not (often and number > at and number % 5 == at % 5):
                continue
            packed = row["data"].startswith(b"\x1f")
            line = (gzip.decompress(row["data"]) if packed else row["data"])[:-1] + end
            data = gzip.compress(line, mtime=0)
            if how == "named":
                data = data[:3] + b"\x08" + data[4:10] + b"a\0" + data[10:]
            if how == "long":
                data = gzip.compress(line.replace(b'"id"', b'"x":"' + b"y" * 9000 + b'","id"'), mtime=0)
            other = {"plain": line, "twice": data * 2, "cut": data[:-9], "more": data + b"\n", "raw": b"\x1f"}
            data = other.get(how, data)
        talk.say(side, data)
        talk.wait(1)
    assert told(talk.rows, cuts)[:3] == told(talk.rows, cuts, plain=True)[:3]


@pytest.mark.parametrize("name", TEXTS)
def test_a_blank_before_an_object_in_a_frame_is_seen_as_if_it_were_read(name):
    talk = Talk()
    converse(KINDS[name](), talk, jobs=1)
    row = next(row for row in talk.rows[::-1] if row["dst_port"] == 3333)
    talk.say("c", framed(b" " + unmask(row["data"][8:], row["data"][4:8]), b"1234"))
    assert told(talk.rows)[:3] == told(talk.rows, plain=True)[:3]


def test_a_frame_is_no_line_and_a_line_no_frame():
    """The same text in both: where each is known, the other is not taken for it."""
    streams = []
    for number, in_frames in enumerate([False, True]):
        talk = Talk(miner=number + 1, port=40000 + number)
        if in_frames:
            talk.say("c", b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n")
            talk.say("s", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
        for times, form in ((9, in_frames), (3, not in_frames), (9, in_frames)):
            for say in range(times):
                strange(talk, [(line % (say, say), side) for line, side in ELECTRUM], 1, form)
        streams.append(talk.rows)
    for rows in (turns(streams), turns(streams[::-1])):
        quick = told(rows, [9])
        assert quick[:3] == told(rows, [9], plain=True)[:3]
        assert quick[3] > 20


def test_of_several_connections_in_turns_each_is_seen_as_if_it_were_alone():
    some = [talked(kind, number + 1) for number, kind in enumerate(random.Random(1).sample(SPEAKERS, 8))]
    rows = turns(some)
    assert told(rows, [700])[:3] == told(rows, [700], plain=True)[:3]


def test_forms_are_forgotten_before_they_are_too_many(monkeypatch):
    monkeypatch.setattr("detector.observers.repeats.MAX_PLANS", 4)
    repeats = PayloadObserver()._repeats
    plans = repeats._plans["kaspa", PLAIN, False] = Plans("kaspa")
    repeats.begin()
    for number in range(40):
        form, line = b"%d" % number, b'{"id":%d,"result":true}\n' % (number % 10)
        repeats.learn(STEP, plans, form, line, [6, 7])
        repeats.learn(STEP, plans, form, line, [6, 7])
        assert max(len(plans), len(repeats._seen)) <= 4
    assert plans


def test_one_batch_has_no_more_than_so_many_forms_looked_into(monkeypatch):
    monkeypatch.setattr("detector.observers.repeats.MAX_LEARNED", 3)
    repeats = PayloadObserver()._repeats
    plans = Plans("kaspa")
    repeats.begin()
    for number in range(2 * 20):
        repeats.learn(STEP, plans, b"%d" % (number // 2), b'{"id":1,"result":true}\n', [6, 7])
    assert len(plans) == 3


def test_a_flood_of_forms_that_never_come_again_is_soon_not_looked_at():
    talk = Talk()
    converse(KINDS["kaspa"](), talk, shares=6)
    begin = len(talk.rows)
    for number in range(3 * MAX_MISSED):
        worker = "".join(chr(ord("g") + int(digit)) for digit in f"{number:04d}")
        talk.c({"id": 7, "method": "mining.submit", "params": [worker, "7", "0x00000000000000aa"]})
    observer, fitted = PayloadObserver(), []
    observer.step(batch(talk.rows[:begin]))
    fit = observer._repeats.fit
    observer._repeats.fit = lambda step: fitted.append(step) or fit(step)
    observer.step(batch(talk.rows[begin:]))
    assert len(fitted) == MAX_MISSED
    assert told(talk.rows, [begin])[:3] == told(talk.rows, [begin], plain=True)[:3]


@pytest.mark.parametrize(("line", "form"), [
    (b'{"x":"%s"}' % (b"Q" * 600), b'\4{"x":\5}'), (b'{"x":"%s"}' % (b"- " * 600), b""),
])  # fmt: skip
def test_a_form_with_long_texts_is_no_longer_than_others(line, form):
    frame = framed(line, b"")
    assert texts(frame, b"    " + line, 0, len(frame)) == form


def test_what_is_always_read_is_soon_not_looked_at_as_what_may_repeat():
    talk = Talk()
    converse(KINDS["nimiq"](), talk, shares=3, jobs=2)
    begin = len(talk.rows)
    for _ in range(3 * MAX_MISSED):
        talk.say("c", framed(b'{"message":"share","x":"%s"}' % (b"Q" * 60), b"1234"))
    observer, fitted = PayloadObserver(), []
    observer.step(batch(talk.rows[:begin]))
    fit = observer._repeats.fit
    observer._repeats.fit = lambda step: fitted.append(step) or fit(step)
    observer.step(batch(talk.rows[begin:]))
    assert len(fitted) <= MAX_MISSED + 2  # two until it is known that it is always read


def test_of_a_flood_of_heads_that_never_come_again_few_are_taken_apart(monkeypatch):
    looks = []
    monkeypatch.setattr(Apart, "take", lambda self, *where: looks.append(where))
    observer, talk = PayloadObserver(), Talk()
    for number in range(4000):
        talk.say("c", b"POST /%d HTTP/1.1\r\n\r\n" % number)
    for _ in range(4):
        observer.step(batch(talk.rows))
    assert len(looks) == FIRST_LOOKS + 4 * 4000 // FREE


def test_what_does_not_have_to_be_read_is_always_looked_at(monkeypatch):
    monkeypatch.setattr("detector.transports.apart.FIRST_LOOKS", 64)
    rows = talked(KINDS[PACKED[0]])
    *quick, taken = told(rows, range(0, len(rows), 20))
    *slow, _ = told(rows, range(0, len(rows), 20), plain=True)
    assert quick == slow
    assert taken > len(rows) * 3 / 4


def test_a_plan_by_itself_leaves_a_line_to_be_read():
    assert Plan().take(None, 0, 0, 0, 0, b"", [], 0) is False


def test_no_row_depends_on_what_is_masked_but_of_messages_that_are_always_read():
    """All hex texts of one length are one form: no literal may be one, nor a word tell digits from hex."""
    words = [
        row.word for kind in (Accept, Refuse) for row in tables.rows("dialects", kind.__name__.lower(), kind)
    ]
    for form in tables.rows("dialects", "form", Form):
        if form.kind in {"submit", "answer"} or not form.method.startswith("mining."):
            for given in form.shape.values():
                words += [given] if isinstance(given, str) else given
    for word in (part.removesuffix("?") for given in words for part in given.split("|")):
        assert word != "decimal"
        if word[:1] in {"=", "^", "*"}:
            literal = word[1:].removeprefix("0x")
            assert not literal or set(literal) - set("0123456789abcdefABCDEF"), word

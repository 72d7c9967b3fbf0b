"""What is not read anew says the same: the observer beside itself with every line read."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from payload_rows import batch
from speakers import SPEAKERS
from speakers.conversing import converse
from spoken import Talk

from detector import tables
from detector.dialects.table import Accept, Form, Refuse
from detector.observers.payload import PayloadObserver
from detector.observers.repeats import MAX_MISSED, UNUSUAL, Plan, Plans
from detector.observers.telling import Step
from detector.tracks import Book, Track

STEP = Step(bytes(16), ((bytes(16), 1), (bytes(16), 2), 6, 0), Track(0, 0, 0), Book())
KINDS = {kind.name: kind for kind in SPEAKERS}


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
    assert (taken > 0) == KINDS[name].in_lines


ALTERED = st.tuples(
    st.integers(0), st.integers(0), st.sampled_from([*b'0123456789abcdefX"{}[],:.-\\ \n\r\xff'])
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


def test_of_several_connections_in_turns_each_is_seen_as_if_it_were_alone():
    some = [talked(kind, number + 1) for number, kind in enumerate(random.Random(1).sample(SPEAKERS, 8))]
    longest = max(map(len, some))
    turns = [rows[at] for at in range(longest) for rows in some if at < len(rows)]
    assert told(turns, [700])[:3] == told(turns, [700], plain=True)[:3]


def test_forms_are_forgotten_before_they_are_too_many(monkeypatch):
    monkeypatch.setattr("detector.observers.repeats.MAX_PLANS", 4)
    repeats = PayloadObserver()._repeats
    plans = repeats._plans["kaspa"] = Plans("kaspa")
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


def test_a_plan_by_itself_leaves_a_line_to_be_read():
    assert Plan().take(None, 0, 0, 0, 0, b"", [], 0) is False


def test_no_row_of_a_share_or_a_reply_depends_on_what_is_masked():
    """All hex texts of one length are one form: no literal may be one, nor a word tell digits from hex."""
    words = [
        row.word for kind in (Accept, Refuse) for row in tables.rows("dialects", kind.__name__.lower(), kind)
    ]
    for form in tables.rows("dialects", "form", Form):
        if form.kind in {"submit", "answer"} or not form.method:
            for given in form.shape.values():
                words += [given] if isinstance(given, str) else given
    for word in (part.removesuffix("?") for given in words for part in given.split("|")):
        assert word != "decimal"
        if word[:1] in {"=", "^", "*"}:
            literal = word[1:].removeprefix("0x")
            assert not literal or set(literal) - set("0123456789abcdefABCDEF"), word

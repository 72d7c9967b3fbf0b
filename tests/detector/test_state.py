"""An engine that is restored from records goes on as if it had never stopped."""

import hashlib
import os
import random
from copy import deepcopy
from functools import cache

import msgspec
import pytest
from crashes import HOUR, SECOND, Topics, captured, engine, kept, knowledge, lived, said, silence, visits
from flowrows import NOON, flows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors import wire
from detector.engine import Config, Engine
from detector.errors import DecodeError
from detector.incidents import State
from detector.judge import Config as JudgeConfig
from detector.observers.payload import Config as PayloadConfig
from detector.observers.shape import State as ShapeState
from detector.state import (
    MAX_STATE_BYTES,
    VERSION,
    EngineState,
    SubscriberState,
    decode,
    decode_whole,
    encode,
    encode_whole,
)  # fmt: skip
from detector.store import Limits
from detector.tracks import State as PayloadState

CAPTURES = (
    "pcaps/cpuminer-sha256d.pcap", "pcaps/cpuminer-realpool-sha256d-vardiff.pcap", "pcaps/xmrig-plain.pcap",
    "pcaps/xmrig-badlogin.pcap", "pcaps/bfgminer-sha256d.pcap", "pcaps/electrum.pcap",
    "tests/cases/cryptonote-in-tiny-segments/capture.pcap", "pcaps/cpuminer-scrypt-dense.pcap",
)  # fmt: skip
DAY = 24 * HOUR


def rows_of(message):
    """The message as one of one row each: a record may be cut behind any of them."""
    return [message._replace(rows=message.rows.slice(i, 1)) for i in range(message.rows.num_rows)] or [
        message
    ]


@cache
def month():
    """Captures one after another, exports for a morning, hours in which all falls silent, and a month."""
    heard = sorted((m for path in CAPTURES for m in captured(path)), key=lambda m: m.header.received_ns)
    start = heard[-1].header.received_ns
    seen = visits(start + 600 * SECOND, 5)
    quiet = seen[-1].header.received_ns + SECOND
    return [
        *heard, *silence(start, start + 600 * SECOND, 20 * SECOND), *seen,
        *silence(quiet, quiet + 12 * HOUR, HOUR // 4), *silence(quiet + 12 * HOUR, quiet + 3 * DAY, 3 * HOUR),
    ]  # fmt: skip


@cache
def whole_month():
    return lived(month())


def same_everywhere(died, topics, back):
    assert kept(died) == topics.records, "what was not said to have changed has not"
    assert kept(back) == topics.records, "what was restored is what was written"
    assert encode_whole(back.whole()) == topics.whole
    assert back.index.state() == died.index.state()
    assert not back.changed_subscribers()


def test_the_month_holds_all_that_is_to_survive():
    documents, alerts, gained, by_place, _ = whole_month()
    assert {d.state for d in documents} == {State.RESOLVED}
    assert {a.to for a in alerts} == {State.SUSPECTED, State.CONFIRMED, State.RESOLVED, State.QUIET}
    kinds = {e.kind for d in documents for e in d.evidence}
    assert {
        "share_verified",
        "listed_endpoint",
        "resolved_endpoint",
        "learned_endpoint",
        "persistence",
    } <= kinds
    assert {"shared_name", "tls_name"} & kinds
    assert gained
    assert by_place


@pytest.mark.parametrize("seed", range(8))
def test_crashes_between_any_messages_change_nothing(seed):
    cuts = set(random.Random(seed).sample(range(1, len(month())), 12))
    assert lived(month(), cuts, same_everywhere) == whole_month()


def test_a_crash_before_every_message_changes_nothing():
    assert lived(month(), range(1, len(month())), same_everywhere) == whole_month()


@pytest.mark.parametrize("path", CAPTURES)
def test_a_crash_behind_any_row_of_a_capture_changes_nothing(path):
    single = [part for m in captured(path) for part in rows_of(m)]
    rng = random.Random(path)
    cuts = range(1, len(single)) if len(single) < 150 else rng.sample(range(1, len(single)), 100)
    assert lived(single, set(cuts), same_everywhere) == lived(single)


def test_a_share_is_valued_by_the_job_that_was_seen_before_the_crash():
    single = [part for m in captured(CAPTURES[0]) for part in rows_of(m)]
    running, topics = engine(), Topics()
    waited = 0
    for message in single:
        running.step(message)
        topics.write(running)
        states = [decode(r) for r in topics.records.values()]
        waiting = [p for s in states for _, t in s.payload.tracks for p in t.session.pending if p.job]
        waited += bool(waiting)
        assert all(p.known is None or p.known.work is None for p in waiting), "a job is written once"
        running = topics.read()
    running.finish()
    (document,) = running.documents()
    assert waited > 1, "the engine died while shares waited"
    assert document.shares == lived(single)[0][0].shares
    assert document.shares.verified == document.shares.accepted > 0
    assert document.hashrate == lived(single)[0][0].hashrate


def test_a_half_line_is_kept():
    single = [
        part for m in captured("tests/cases/cryptonote-in-tiny-segments/capture.pcap") for part in rows_of(m)
    ]
    halves = []

    def check(died, topics, back):
        tracks = [t for r in topics.records.values() for _, t in decode(r).payload.tracks]
        halves.extend(side.lines.tail for t in tracks for side in t.sides if side.lines.tail)

    assert lived(single, range(1, len(single)), check) == lived(single)
    assert len(halves) > 10


def test_every_record_goes_away_after_its_ages():
    running, topics = engine(), Topics()
    for message in month():
        running.step(message)
        topics.write(running)
    assert topics.records
    end = month()[-1].header.received_ns
    for message in silence(end, end + 32 * DAY, 6 * HOUR):
        running.step(message)
        topics.write(running)
    assert topics.records == kept(running) == {}


@pytest.mark.parametrize(
    "part", ["payload", "shape", "links", "record", "resolved", "endpoints_told", "shape_told", "names_told"]
)
def test_each_part_alone_is_told_when_it_ages(part):
    empty = SubscriberState(
        payload=PayloadState(), shape=ShapeState(), links=[], record=None, resolved=[], endpoints_told=[],
        shape_told=[], names_told=[],
    )  # fmt: skip
    alone = [
        msgspec.structs.replace(empty, **{part: getattr(decode(r), part)}) for r in records() if r[0] == 83
    ]
    state = next(s for s in reversed(alone) if not s.is_empty())
    topics = Topics()
    topics.records[SUBSCRIBER] = encode(state)
    running = engine()
    running.restore(SUBSCRIBER, state)
    for message in silence(NOON, NOON + 40 * DAY, HOUR):
        running.step(message)
        topics.write(running)
        assert kept(running) == topics.records
    assert not topics.records


def test_those_that_a_bound_pushed_out_are_told():
    config = Config(connections=3, judge=JudgeConfig(limits=Limits(subscribers=2)))
    running, topics = Engine(config, knowledge=knowledge(), durable=True), Topics()
    for n in range(6):
        who = f"198.51.100.{n + 1}"
        running.step(said("flows", flows({"subscriber": who, "src": who}), NOON + (60 + n) * SECOND))
        topics.write(running)
        assert kept(running) == topics.records


def test_only_those_that_were_seen_or_that_time_moved_are_told():
    running = engine()
    topics = Topics()
    for message in month():
        before = dict(topics.records)
        running.step(message)
        changed = topics.write(running)
        seen = {s.tobytes() for s in wire.values(message.rows, "subscriber")}
        for subscriber in changed - seen:
            assert before.get(subscriber) != topics.records.get(subscriber)


def test_an_engine_that_is_not_durable_notes_nothing():
    running = engine(durable=False)
    for message in month()[:50]:
        running.step(message)
    assert not running._moved
    assert not running._found
    with pytest.raises(RuntimeError):
        running.changed_subscribers()


def test_engines_may_share_an_index():
    one = engine()
    other = Engine(Config(), knowledge=knowledge(), index=one.index)
    assert other.index is one.index
    assert len(other.index) == len(engine().index)


# -- bytes ---------------------------------------------------------------------------------------------


@cache
def records():
    """Records of all kinds, and of the whole, as they stand in the middle of things."""
    running, topics, out = engine(), Topics(), []
    for n, message in enumerate(month()):
        running.step(message)
        topics.write(running)
        if n % 40 == 0:
            out += [*topics.records.values(), topics.whole]
    return out


any_record = st.deferred(lambda: st.sampled_from(records()))


def restored(record):
    """Decode, restore, live on, tell: only DecodeError may come of it, and only of decoding."""
    try:
        if record[:1] == b"E":
            whole = decode_whole(record)
            running = engine()
            running.resume(whole)
        else:
            state = decode(record)
            running = engine()
            running.restore(SUBSCRIBER, state)
    except DecodeError:
        return
    for message in LATER:
        running.step(message)
    running.finish()
    msgspec.json.encode(running.documents())
    kept(running)
    decode_whole(encode_whole(running.whole()))


SUBSCRIBER = bytes(10) + b"\xff\xff" + bytes([198, 51, 100, 14])
LATER = [
    *captured(CAPTURES[0])[8:24],
    said("flows", flows({"subscriber": "198.51.100.14", "src": "198.51.100.14"}), NOON + 60 * SECOND),
    *silence(NOON + HOUR, NOON + 9 * HOUR, HOUR),
]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.binary(max_size=400)
    | st.builds(lambda b: bytes([b"SE"[len(b) % 2], VERSION]) + b, st.binary(max_size=400))
)
def test_any_bytes_decode_or_are_refused(data):
    restored(data)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_record_with_some_bytes_changed_does_no_harm(data):
    record = bytearray(data.draw(any_record))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(record) - 1))
        if data.draw(st.booleans()):
            record[at] = data.draw(st.integers(0, 255))
        else:
            del record[at : at + data.draw(st.integers(1, 4))]
            record = record or bytearray(b"S")
    restored(bytes(record))


NASTY = (
    0, -1, 1, 1 << 31, -(1 << 31), 1 << 62, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1,
    1e308, -1.0, 1e-300, float("nan"), float("inf"),
    "", "x", "ff" * 40, b"", bytes(16), None, True, [], [[]], {}, {"": []},
)  # fmt: skip


def leaves(tree, path=()):
    yield path
    if isinstance(tree, list):
        for n, one in enumerate(tree):
            yield from leaves(one, (*path, n))
    elif isinstance(tree, dict):
        for name, one in tree.items():
            yield from leaves(one, (*path, name))


@settings(max_examples=int(os.environ.get("STATE_EXAMPLES", "400")), deadline=None,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(st.data())
def test_a_record_with_some_value_replaced_does_no_harm(data):
    record = data.draw(any_record)
    tree = msgspec.msgpack.decode(record[2:], strict=False)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(leaves(tree))[1:] or [(0,)]))
        place = tree
        for step in path[:-1]:
            place = place[step]
        if isinstance(place, (list, dict)):
            place[path[-1]] = deepcopy(data.draw(st.sampled_from(NASTY)))
    restored(record[:2] + msgspec.msgpack.encode(tree))


def test_another_version_another_kind_and_too_many_bytes_are_refused():
    for record in (b"", b"S", b"S" + bytes([VERSION + 1]), b"S" + bytes([VERSION]) + bytes(9 << 20)):
        with pytest.raises(DecodeError):
            decode(record)
        with pytest.raises(DecodeError):
            decode_whole(record)
    with pytest.raises(DecodeError):
        decode_whole(next(r for r in records() if r[:1] == b"S"))


def test_a_state_beyond_the_bounds_is_cut_to_them():
    most = max((decode(r) for r in records() if r[:1] == b"S"), key=lambda s: len(s.payload.tracks))
    ends, track = most.payload.tracks[0]
    copied = [((*ends[:3], 1000 + n), msgspec.structs.replace(track, touched=n)) for n in range(50)]
    state = msgspec.structs.replace(most, payload=PayloadState(copied, [(e, (1, NOON)) for e, _ in copied]))
    small = Engine(Config(payload=PayloadConfig(max_connections=8, max_remembered=9)))
    small.restore(SUBSCRIBER, decode(encode(state)))
    got = small.state(SUBSCRIBER)
    assert [t.touched for _, t in got.payload.tracks] == list(range(42, 50)), "the newest stay"
    assert len(got.payload.opened) == 9


def test_a_record_that_no_message_could_carry_keeps_what_is_newest():
    state = decode(max((r for r in records() if r[:1] == b"S"), key=len))
    ends, track = state.payload.tracks[0]
    session = msgspec.structs.replace(track.session, login="x" * (1 << 20))
    many = [((*ends[:3], n), msgspec.structs.replace(track, session=session, touched=n)) for n in range(30)]
    got = decode(encode(msgspec.structs.replace(state, payload=PayloadState(many, state.payload.opened))))
    assert len(encode(got)) <= MAX_STATE_BYTES
    assert got.cut == 30 - len(got.payload.tracks) > 0
    assert got.payload.tracks[-1][1].touched == 29
    assert got.record == state.record


def test_numbers_beyond_64_bits_do_not_stop_the_writing():
    state = decode(next(r for r in records() if r[:1] == b"S" and decode(r).links))
    state.links[0][1].first_ns = -(1 << 80)
    assert decode(encode(state)).links[0][1].first_ns == -(1 << 63)


def fields(kind, seen):
    """The fields of a form and of all that it holds, as one text."""
    if isinstance(kind, msgspec.inspect.StructType):
        if kind.cls.__name__ not in seen:
            seen[kind.cls.__name__] = ""
            parts = [f"{f.encode_name}:{type(f.type).__name__}" for f in kind.fields]
            seen[kind.cls.__name__] = f"{'[' if kind.array_like else '{'}{' '.join(parts)}"
            for field in kind.fields:
                fields(field.type, seen)
        return
    for name in ("item_type", "key_type", "value_type"):
        if hasattr(kind, name):
            fields(getattr(kind, name), seen)
    for name in ("item_types", "types"):
        for one in getattr(kind, name, ()):
            fields(one, seen)


FORM = "d73472216ebbbe81"


def test_the_form_changes_with_its_version_only():
    seen = {}
    for kind in (SubscriberState, EngineState):
        fields(msgspec.inspect.type_info(kind), seen)
    told = "; ".join(f"{name} {parts}" for name, parts in sorted(seen.items()))
    assert (VERSION, hashlib.sha256(told.encode()).hexdigest()[:16]) == (5, FORM), told

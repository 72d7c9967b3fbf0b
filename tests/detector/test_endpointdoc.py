"""Endpoints as the bus carries them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.streams import ENDPOINTS
from detector import endpointdoc
from detector.endpoints import Entry, Period, packed
from detector.errors import DecodeError, Reason

LATEST = (1 << 63) - 1
TEXT = st.text(st.characters(categories=("L", "N", "P")), max_size=40)
TIMES = st.lists(st.integers(0, LATEST), min_size=3, max_size=3).map(sorted)
ADDRESS = st.binary(min_size=16, max_size=16) | st.integers(0, 2**32 - 1).map(
    lambda n: bytes(10) + b"\xff\xff" + n.to_bytes(4, "big")
)
PERIOD = st.builds(lambda n, t: Period(n, *t[:2]), st.none() | TEXT, TIMES)


@st.composite
def entries(draw):
    first, last, expires = draw(TIMES)
    port = draw(st.integers(0, 65535))
    return Entry(
        address=draw(ADDRESS), port=port, protocol=draw(st.integers(0, 255)),
        origin=draw(st.sampled_from(["listed", "resolved", "learned", "refuted"])),
        name=draw(st.none() | TEXT), operator=draw(st.none() | TEXT),
        coins=tuple(draw(st.lists(st.sampled_from(["XMR", "RVN", "BTC"]), unique=True))),
        tls=draw(st.sampled_from(["yes", "no", "unknown"])), kind="pool", weak=draw(st.booleans()),
        ports=tuple(draw(st.lists(st.integers(1, 65535), min_size=0 if port else 1, max_size=4))),
        only=tuple(draw(st.lists(ADDRESS, max_size=4))), first_ns=first, last_ns=last,
        expires_ns=draw(st.sampled_from([expires, None])), why=draw(TEXT),
        generation=draw(st.integers(1, 2**31)), history=tuple(draw(st.lists(PERIOD, max_size=3))),
    )  # fmt: skip


ENTRY = Entry(
    address=packed("51.15.2.3"), port=3333, protocol=6, origin="learned", coins=("XMR",),
    only=(packed("198.51.100.7"),), first_ns=1, last_ns=1_795_000_000_123_456_789,
    expires_ns=1_795_172_800_123_456_789, why="it accepted shares", history=(Period("a.example", 0, 1),),
)  # fmt: skip
LONG_AGO = "1970-01-01T00:00:00.000000000Z"
DOCUMENT = json.loads(endpointdoc.encode(ENTRY))


@given(entries())
def test_an_entry_goes_round(entry):
    assert endpointdoc.decode(endpointdoc.encode(entry)) == entry


def changed(**fields):
    return json.dumps(DOCUMENT | fields).encode()


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists).map(
        lambda v: json.dumps(v).encode()
    )
    | st.dictionaries(
        st.sampled_from([c.name for c in ENDPOINTS]),
        st.none() | st.integers() | st.floats() | st.text() | st.lists(st.text() | st.integers()),
        max_size=3,
    ).map(lambda d: changed(**d))
    | st.tuples(st.integers(0, 400), st.binary(max_size=9)).map(
        lambda t: changed()[: t[0]] + t[1] + changed()[t[0] + len(t[1]) :]
    )
)
def test_any_bytes_decode_or_are_refused(data):
    try:
        entry = endpointdoc.decode(data)
    except DecodeError:
        return
    assert endpointdoc.decode(endpointdoc.encode(entry)) == entry


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.FORMAT),
        (b"{", Reason.FORMAT),
        (b"[" * 60_000, Reason.SCHEMA),
        (b'{"address":' + b"[" * 60_000, Reason.SCHEMA),
        (b" " * 1_000_000, Reason.SIZE),
        (b"null", Reason.SCHEMA),
        (b"{}", Reason.SCHEMA),
        (b'{"\xff": 1}', Reason.FORMAT),
        (changed(why="x" * 1_000_000), Reason.SIZE),
        (changed(why="x" * 501), Reason.SCHEMA),
        (changed(why="\x1b[2J"), Reason.SCHEMA),
        (changed(name="a\nb"), Reason.SCHEMA),
        (changed(address="not one"), Reason.SCHEMA),
        (changed(address="1.2.3.4/8"), Reason.SCHEMA),
        (changed(address="fe80::1%eth0"), Reason.SCHEMA),
        (changed(only=["1.2.3"]), Reason.SCHEMA),
        (changed(only=["1.2.3.4"] * 129), Reason.SCHEMA),
        (changed(port=70_000), Reason.SCHEMA),
        (changed(port=-1), Reason.SCHEMA),
        (changed(port=0), Reason.SCHEMA),
        (changed(port=float("nan")), Reason.FORMAT),
        (changed(ports=[3333] * 10_000), Reason.SCHEMA),
        (changed(ports=[0]), Reason.SCHEMA),
        (changed(origin="rumoured"), Reason.SCHEMA),
        (changed(weak=True), Reason.SCHEMA),
        (changed(generation=0), Reason.SCHEMA),
        (changed(generation=10**30), Reason.SCHEMA),
        (changed(unheard=1), Reason.SCHEMA),
        (changed(last="9999-01-01T00:00:00.000000000Z"), Reason.SCHEMA),
        (changed(first="1969-12-31T23:59:59.999999999Z"), Reason.SCHEMA),
        (changed(first="2026-02-30T00:00:00.000000000Z"), Reason.SCHEMA),
        (changed(first="2026-11-22T24:00:00.000000000Z"), Reason.SCHEMA),
        (changed(first="2026-11-22T16:00:00Z"), Reason.SCHEMA),
        (changed(expires="1970-01-01T00:00:00.000000002Z"), Reason.SCHEMA),
        (changed(first=5), Reason.SCHEMA),
        (changed(history=[{"name": None, "first": DOCUMENT["last"], "last": LONG_AGO}]), Reason.SCHEMA),
    ],
    ids=range(36),
)  # fmt: skip
def test_what_is_out_of_bounds_is_refused_with_its_reason(data, reason):
    with pytest.raises(DecodeError) as caught:
        endpointdoc.decode(data)
    assert caught.value.reason == reason
    assert len(str(caught.value)) < 300


def test_the_document_has_the_columns_of_the_schema_in_their_order():
    assert list(DOCUMENT) == [c.name for c in ENDPOINTS]
    assert endpointdoc.EndpointDocument.__struct_fields__ == tuple(DOCUMENT)
    for column in ENDPOINTS:
        if not column.nullable:
            with pytest.raises(DecodeError):
                endpointdoc.decode(changed(**{column.name: None}))


def test_times_keep_their_nanoseconds_and_addresses_are_text():
    assert DOCUMENT["last"] == "2026-11-18T11:06:40.123456789Z"
    assert (DOCUMENT["address"], DOCUMENT["only"]) == ("51.15.2.3", ["198.51.100.7"])


def test_a_key_is_origin_address_port_protocol():
    assert endpointdoc.key(ENTRY) == b"learned/51.15.2.3/3333/6"


def test_what_is_longer_than_peers_accept_is_cut():
    long = Entry(
        address=bytes(16), port=1, protocol=6, origin="resolved", name="n" * 999, operator="o" * 999,
        only=tuple(i.to_bytes(16, "big") for i in range(999)), first_ns=0, last_ns=0, expires_ns=None,
        why="w" * 9999, history=tuple(Period("é" * 999, i, i) for i in range(99)),
    )  # fmt: skip
    entry = endpointdoc.decode(endpointdoc.encode(long))
    assert (len(entry.why), len(entry.only), entry.history[-1].last_ns) == (500, 128, 98)

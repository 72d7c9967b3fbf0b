"""DNS answers against scapy's reading of the same bytes, and what is refused."""

import struct
from ipaddress import ip_address

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRR, DNSRROPT, dns_compress

from collectors.errors import DecodeError, Reason
from collectors.packet import answers, looking, names, namesets

HEAD = struct.Struct(">HHHHHH")
ASKED = b"\x04pool\x07Example\x03org\x00"
QUESTION = ASKED + b"\0\1\0\1"


def record(owner, kind, data, ttl=60, cls=1):
    return owner + struct.pack(">HHIH", kind, cls, ttl, len(data)) + data


def message(*found, question=QUESTION, flags=0x8180, counts=(1, None, 0, 0), tail=b""):
    counts = [len(found) if n is None else n for n in counts]
    return HEAD.pack(7, flags, *counts) + question + b"".join(found) + tail


A = record(b"\xc0\x0c", 1, b"\5\6\7\x08")
LABELS = st.text("abcXYZ019-_", min_size=1, max_size=12)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join) | st.sampled_from(["a.b", "A.B", "c.b"])
IPV4 = st.ip_addresses(v=4).map(str)
IPV6 = st.ip_addresses(v=6).map(str)
TTLS = st.integers(0, 2**31 - 1)
RECORDS = st.one_of(
    st.builds(lambda n, t, a: DNSRR(rrname=n, type="A", ttl=t, rdata=a), NAMES, TTLS, IPV4),
    st.builds(lambda n, t, a: DNSRR(rrname=n, type="AAAA", ttl=t, rdata=a), NAMES, TTLS, IPV6),
    st.builds(lambda n, t, a: DNSRR(rrname=n, type="CNAME", ttl=t, rdata=a), NAMES, TTLS, NAMES),
    st.builds(lambda n, t, a: DNSRR(rrname=n, type="TXT", ttl=t, rdata=a), NAMES, TTLS, NAMES),
)


def attempted(read, *given, **options):
    """What ``read`` answers, and the reason of its refusal; one of them is None."""
    try:
        return read(*given, **options), None
    except DecodeError as error:
        return None, error.reason


def plain_reading(data):
    """What scapy reads, followed from the question on; None for aliases in a circle."""
    read = DNS(data)
    asked = read.qd[0].qname.decode().lower().removesuffix(".")
    rows = [
        (r.rrname.decode().lower().removesuffix("."), r.type, r.ttl, r.rdata)
        for r in read.an
        if r.rclass == 1
    ]
    chain, life = [asked], {asked: 2**31}
    while True:
        step = [(r[3], r[2]) for r in rows if r[1] == 5 and r[0] == chain[-1]][:1]
        if not step:
            break
        target = step[0][0].decode().lower().removesuffix(".")
        if target in chain:
            return None
        life[target] = min(life[chain[-1]], step[0][1])
        chain.append(target)
    found = [
        (packed(a), min(ttl, life[n]), chain.index(n))
        for n, kind, ttl, a in rows
        if kind in (1, 28) and n in chain
    ]
    return chain, found


def packed(address):
    """16 bytes; scapy gives text."""
    made = ip_address(address)
    return made.packed if made.version == 6 else bytes(10) + b"\xff\xff" + made.packed


def told(answer):
    return list(answer.chain), [tuple(a[:3]) for a in answer.addresses]


@given(NAMES, st.lists(RECORDS, max_size=12), st.booleans(), st.booleans())
def test_agrees_with_scapy(asked, found, compressed, edns):
    made = DNS(qr=1, qd=DNSQR(qname=asked), an=found, ar=[DNSRROPT()] if edns else [])
    data = bytes(dns_compress(made) if compressed else made)
    expected = plain_reading(data)
    got, reason = attempted(answers.read, data)
    assert reason is (Reason.CORRUPT if expected is None else None)
    assert expected is None or told(got) == expected


def test_a_chain_of_aliases_is_followed_in_any_order_and_lives_as_long_as_its_shortest():
    alias = record(b"\xc0\x0c", 5, b"\3cdn\xc0\x11", ttl=30)
    address = record(b"\3cdn\xc0\x11", 1, b"\5\6\7\x08", ttl=600)
    other = record(b"\5other\0", 1, b"\1\1\1\1")
    for found in ((alias, address, other), (other, address, alias)):
        got = answers.read(message(*found))
        assert got.chain == ("pool.example.org", "cdn.example.org")
        assert got.addresses == (answers.Address(bytes(10) + b"\xff\xff\5\6\7\x08", 30, 1),)


def test_names_are_lower_case_and_odd_octets_are_escaped():
    odd = b"\x06A.\\\x00\xffz\0"
    got = answers.read(message(question=odd + b"\0\1\0\1"))
    assert got.chain == ("a\\046\\092\\000\\255z",)
    assert answers.read(message(question=b"\0\0\1\0\1")).chain == ("",)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.SHORT),
        (message(A)[:-1], Reason.SHORT),
        (message(A)[:20], Reason.SHORT),
        (message(A, counts=(1, 2, 0, 0)), Reason.SHORT),
        (message(A, counts=(1, 1, 1, 0)), Reason.SHORT),
        (message(A, counts=(1, 65535, 65535, 65535)), Reason.SHORT),
        (message(A, counts=(1, 0, 0, 0)), Reason.LENGTH),
        (message(A, tail=b"x"), Reason.LENGTH),
        (message(A, counts=(2, 1, 0, 0)), Reason.FORMAT),
        (message(A, flags=0x0100), Reason.FORMAT),  # a query
        (message(A, flags=0xA980), Reason.FORMAT),  # an answer to an update
        (message(A, flags=0x8380), Reason.TRUNCATED),
        (message(record(b"\xc0\x0c", 1, b"abc")), Reason.LENGTH),
        (message(record(b"\xc0\x0c", 28, b"abcd")), Reason.LENGTH),
        (message(record(b"\xc0\x0c", 5, b"\xc0\x0cx")), Reason.LENGTH),
        (message(record(b"\xc0\x0c", 5, ASKED)), Reason.CORRUPT),  # its own alias
        (message(question=b"\xc0\x0c\0\1\0\1"), Reason.CORRUPT),  # a pointer to itself
        (message(question=b"\xc0\x0e\xc0\x0c\0\1\0\1"), Reason.CORRUPT),  # forward, and back
        (message(question=b"\1a\xc0\x0c\0\1\0\1"), Reason.CORRUPT),  # to the labels before it
        (message(question=b"\xc0\x00\0\1\0\1"), Reason.CORRUPT),  # into the header
        (message(question=b"\x41" + b"a" * 65 + b"\0\0\1\0\1"), Reason.CORRUPT),
        (message(question=(b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1"), Reason.CORRUPT),
        (message(*[A] * 65), Reason.SIZE),
        (message(*[record(b"\1a\0", 5, b"\1b\0")] * 17), Reason.SIZE),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_reason(data, reason):
    with pytest.raises(DecodeError) as caught:
        answers.read(data)
    assert caught.value.reason is reason
    assert reason in names.REFUSALS


def test_pointers_may_be_followed_so_often_and_no_more():
    """A chain of pointers, each to the one before it, in the data of a record of another kind."""
    at = len(message()) + 11
    for n, good in ((answers.MAX_HOPS - 2, True), (answers.MAX_HOPS, False)):
        places = [12, *range(at, at + 2 * n, 2)]
        pointers = [struct.pack(">H", 0xC000 | p) for p in places]
        data = message(record(b"\0", 16, b"".join(pointers[:-1])), record(pointers[-1], 1, b"abcd"))
        if good:
            assert answers.read(data).addresses
        else:
            with pytest.raises(DecodeError):
                answers.read(data)


def test_an_error_and_a_message_without_a_question_tell_of_no_name():
    assert answers.read(message(A, flags=0x8183)) is None
    assert answers.read(message(question=b"", counts=(0, 0, 0, 0))) is None


PIECES = st.lists(
    st.sampled_from(
        [
            b"\xc0\x0c",
            b"\xc0",
            b"\xff",
            b"\3cdn",
            b"\4pool",
            b"\0",
            b"\0\1\0\1",
            b"\0\5\0\1",
            ASKED,
            A,
            b"\0\0\0\x3c\0\4",
        ]
    )
    | st.binary(max_size=6),
    max_size=14,
).map(b"".join)
ANY = st.one_of(
    st.binary(max_size=300),
    PIECES.map(lambda rest: message(question=QUESTION + rest, counts=(1, 2, 0, 0))),
    st.builds(
        lambda rest, n: HEAD.pack(1, 0x8180, 1, n, 0, 0) + rest, PIECES, st.integers(0, 3)
    ),
)  # fmt: skip


def unpacked(data, at):
    text = np.zeros(256, np.uint8)
    end, size = looking.unpack(np.frombuffer(bytearray(data), np.uint8), 0, at, len(data), text)
    return end, bytes(text[:size])


@given(ANY)
@example(message(question=b"\xc0\x0c"))
@example(message(question=(b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0\0\1\0\1"))
def test_any_bytes_are_read_or_refused_and_the_kernel_unpacks_the_same_names(data):
    got, reason = attempted(answers.read, data)
    assert reason in {None, *names.REFUSALS}
    assert got is None or all(len(a.address) == 16 for a in got.addresses)
    for at in range(12, len(data)):
        try:
            name, after = answers.unpack(data, at)
        except DecodeError:
            assert unpacked(data, at)[0] == -1
            continue
        end, text = unpacked(data, at)
        assert end == after
        if "\\" not in name:
            assert text.decode() == name


FILTERS = st.builds(
    names.NameFilter,
    st.lists(st.sampled_from(["pool.example.org", "a.b", "c.b", "pool", "cdn"]), max_size=2),
    st.lists(st.sampled_from(["example.org", "b", "org", "ample.org", ""]), max_size=2),
)


@given(ANY | st.builds(lambda q, f: bytes(dns_compress(DNS(qr=1, qd=DNSQR(qname=q), an=f))), NAMES,
                       st.lists(RECORDS, max_size=4)), FILTERS)  # fmt: skip
def test_the_kernel_lets_through_every_answer_that_names_something_wanted(data, wanted):
    answer, _ = attempted(answers.read, data)
    compiled = namesets.compile_wanted(wanted.exact, wanted.suffixes, (), 1)
    array = np.frombuffer(bytearray(data), np.uint8)
    got = looking.look_answer(array, 0, array.size, compiled, np.zeros(256, np.uint8))
    if answer is not None and any(wanted.match(name) for name in answer.chain):
        assert got == 1

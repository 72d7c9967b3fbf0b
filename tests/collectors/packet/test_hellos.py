"""TLS client hellos: what they tell, whole and in part, and what is refused."""

import numpy as np
import pytest
from hellomaker import PLAIN, attempted, extension, hello, pairs, server_name, vector
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import DecodeError, Reason
from collectors.packet import hellos, looking, names, namesets


def test_name_and_first_protocol_are_told():
    got = hellos.read(PLAIN)
    assert (got.server_name, got.alpn) == ("pool.example.org", "stratum")
    assert hellos.read(hello())[:3] == (
        None,
        None,
        got.ja4[:3] + "i010000_" + got.ja4[11:23] + "_" + "0" * 12,
    )
    assert (
        hellos.read(hello(server_name(b"p\xf6\\l"), extension(16, vector(2, b"\2h\xff")))).server_name
        == "p\\246\\092l"
    )


def test_ja4_is_that_of_its_authors():
    """The example of FoxIO's technical details, a Chrome, by its lists."""
    ciphers = (0x1301, 0x1302, 0x1303, 0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8, 0xC013, 0xC014, 0x009C,
               0x009D, 0x002F, 0x0035)  # fmt: skip
    signatures = (0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601)
    given = {
        0x001B: b"", 0x0000: vector(2, b"\0" + vector(2, b"x.org")), 0x0033: b"", 0x0010: vector(2, b"\2h2"),
        0x4469: b"", 0x0017: b"", 0x002D: b"", 0x000D: vector(2, pairs(signatures)), 0x0005: b"", 0x0023: b"",
        0x0012: b"", 0x002B: vector(1, pairs((0x2A2A, 0x0304, 0x0303))), 0xFF01: b"", 0x000B: b"",
        0x000A: b"", 0x0015: b"",
    }  # fmt: skip
    grease = extension(0x3A3A)
    made = hello(
        grease, *(extension(k, d) for k, d in given.items()), extension(0xDADA), ciphers=(0x6A6A, *ciphers)
    )
    assert hellos.read(made).ja4 == "t13d1516h2_8daaf6152771_e5627efa2ab1"


def listed(text):
    return tuple(int(part, 16) for part in text.split(","))


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (
            "q13d0310h3_1301,1302,1303_000a,000d,001b,002b,002d,0033,0039,4469"
            "_0403,0804,0401,0503,0805,0501,0806,0601,0201",
            "q13d0310h3_55b375c5d22e_cd85d2d88918",
        ),
        (
            "t13d1517h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9"
            "_0005,000a,000b,000d,0012,0017,001b,0023,002b,002d,0033,44cd,ca34,fe0d,ff01"
            "_0904,0905,0906,0403,0804,0401,0503,0805,0501,0806,0601",
            "t13d1517h2_8daaf6152771_cb7bf5808d99",
        ),
        (
            "t13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9"
            "_0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01",
            "t13d1516h2_8daaf6152771_6d807ffa2a79",
        ),
    ],
    ids=["quic", "grease-everywhere", "no-signatures"],
)
def test_ja4_of_published_lists(raw, told):
    """Raw and hashed values of FoxIO's captures and page; with values of RFC 8701 wherever one may be."""
    first, ciphers, extensions, *signatures = raw.split("_")
    protocols = vector(1, b"\x3a\x3a") + vector(1, first[8:10].encode()) + b"\x02zz"
    known = {
        0x000D: vector(2, pairs((0x8A8A, *listed(signatures[0])))) if signatures else b"",
        0x002B: vector(1, pairs((0x7A7A, 0x0303, 0x0304))),
    }
    made = hello(
        extension(0xBABA),
        *(extension(k, known.get(k, b"")) for k in reversed(listed(extensions))),
        server_name(b"x.org"),
        extension(16, vector(2, protocols)),
        extension(0x0A0A, b"\0"),
        ciphers=(0xEAEA, *reversed(listed(ciphers))),
    )
    assert hellos.read_message(made[5:], transport=first[0]).ja4 == told


def test_ja4_without_anything_to_hash():
    """Only the server's name and protocols: the list of extensions is empty, not the hash of nothing."""
    made = hello(server_name(b"a.b"), extension(16, vector(2, b"\2\x1a\x1a")), ciphers=())
    got = hellos.read(made)
    assert got.ja4 == "t12d000200_000000000000_000000000000"
    assert got.alpn is None


@pytest.mark.parametrize(
    ("alpn", "ends"),
    [
        (b"0\1\xab\xcd", "3d"),
        (b"0\xab\xcd1", "01"),
        (b"http/1.1", "h1"),
        (b"h2", "h2"),
        (b"h", "hh"),
        (b"\xab", "ab"),
        (b"\xab0\xcd", "ad"),
        (b"0\xab", "3b"),
        (b"", "00"),
    ],
)
def test_ja4_of_odd_protocols(alpn, ends):
    assert hellos.read(hello(extension(16, vector(2, vector(1, alpn))))).ja4[8:10] == ends


@pytest.mark.parametrize(
    ("version", "told"), [(0x0301, "10"), (0x0300, "s3"), (0x0304, "13"), (0x0399, "00")]
)
def test_ja4_of_versions(version, told):
    assert hellos.read(hello(version=version)).ja4[1:3] == told


@given(st.integers(1, 400))
def test_a_hello_in_several_records_is_the_same(size):
    made = hello(server_name(b"a.b"), extension(21, bytes(200)), record=size)
    assert hellos.read(made) == hellos.read(hello(server_name(b"a.b"), extension(21, bytes(200))))


@given(st.integers(0, len(PLAIN) - 1))
def test_a_part_is_waited_for_and_of_a_lost_rest_what_is_there_is_told(size):
    assert hellos.read(PLAIN[:size]) is None
    got = hellos.read(PLAIN[:size], rest_is_lost=True)
    assert got.ja4 is None
    named = size >= PLAIN.index(b"org.") + 4
    assert got.server_name == ("pool.example.org" if named else None)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x17\3\1\0\5\1\0\0\1x", Reason.FORMAT),
        (b"\x16\2\1\0\5\1\0\0\1x", Reason.FORMAT),
        (b"\x16\3\1\0\5\2\0\0\1x", Reason.FORMAT),
        (b"\x16\3\1\0\0\1", Reason.LENGTH),
        (b"\x16\3\1\xff\xff\1", Reason.LENGTH),
        (b"\x16\3\1\0\5\1\1\0\0x", Reason.SIZE),
        (b"\x16\3\1\0\5\1\0\0\1x", Reason.SHORT),
        (hello(extension(0, b"\0")), Reason.LENGTH),
        (hello(extension(16, vector(2, b"\5h2"))), Reason.LENGTH),
        (hello(extension(13, vector(2, b"\1\2\3"))), Reason.LENGTH),
        (hello(extension(43, vector(1, b"\1\2\3"))), Reason.LENGTH),
        (b"\x16\3\1" + vector(2, b"\1" + vector(3, bytes(34) + b"\0\0\0\1\0\0\1x")), Reason.SHORT),
        (b"\x16\3\1" + vector(2, b"\1" + vector(3, bytes(34) + b"\0\0\0\1\0\0\1")), Reason.SHORT),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_reason(data, reason):
    with pytest.raises(DecodeError) as caught:
        hellos.read(data)
    assert caught.value.reason is reason
    assert reason in names.REFUSALS


def looked(data, wanted, end=None):
    compiled = namesets.compile_wanted(wanted.exact, wanted.suffixes, (), 1)
    array = np.frombuffer(bytearray(data), np.uint8)
    return looking.look_hello(array, 0, end or array.size, compiled, np.zeros(256, np.uint8))


CHANGES = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4)
NAMED = st.sampled_from([b"pool.example.org", b"Pool.Example.Org.", b"x", b"org", b"", b"a" * 255])
EXTENSIONS = st.lists(
    st.one_of(
        NAMED.map(server_name),
        st.builds(extension, st.sampled_from([0, 10, 13, 16, 21, 43, 0x0A0A]), st.binary(max_size=40)),
    ),
    max_size=6,
)


@given(EXTENSIONS, CHANGES, st.none() | st.integers(1, 99), st.integers(0, 500), st.binary(max_size=20))
def test_any_bytes_are_read_or_refused_and_the_kernel_lets_every_wanted_name_through(
    extensions, changes, record, size, after
):
    data = bytearray(hello(*extensions, record=record) + after)
    for at, byte in changes:
        data[at % len(data)] = byte
    part = bytes(data[: max(6, size)])
    for lost in (False, True):
        got, reason = attempted(hellos.read, part, rest_is_lost=lost)
        assert reason in {None, *names.REFUSALS}
        if got is None or part[0] != 22:
            continue
        for wanted in (names.NameFilter(["pool.example.org", "x"]), names.NameFilter((), ["org"])):
            code, need = looked(part, wanted)
            if got.server_name and wanted.match(got.server_name):
                assert code == 1 if not (changes or record) else code
                assert (0 < need <= len(part)) <= (got.ja4 is not None)


@given(st.binary(max_size=200).map(lambda b: b"\x16\3\1" + b) | st.binary(min_size=6, max_size=200))
def test_any_bytes_at_all(data):
    for lost in (False, True):
        assert attempted(hellos.read, data, rest_is_lost=lost)[1] in {None, *names.REFUSALS}
    looked(data, names.NameFilter((), [""]))

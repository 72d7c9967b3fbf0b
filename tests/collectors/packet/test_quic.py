"""QUIC's first packets: the keys of the RFCs, frames in any order, and what is refused."""

from itertools import pairwise

import pytest
from hellomaker import attempted, extension, hello, server_name, vector
from hypothesis import given
from hypothesis import strategies as st
from quicmaker import ID, MESSAGE, V2, crypto, seal

from collectors.errors import DecodeError, Reason
from collectors.packet import hellos, names, quic


def test_keys_are_those_of_the_rfcs():
    """RFC 9001 appendix A.1 and RFC 9369 appendix A.1."""
    assert [part.hex() for part in quic.client_keys(1, ID)] == [
        "1f369613dd76d5467730efcbe3b1a22d", "fa044b2f42a3fd3b46fb255c", "9f50449e04a0e810283a1e9933adedd2",
    ]  # fmt: skip
    assert [part.hex() for part in quic.client_keys(V2, ID)] == [
        "8b1a0bc121284290a29e0971b5cd045d", "91f73e2351d8fa91660e909f", "45b95e15235d6f45a6b19cbcb0294ba9",
    ]  # fmt: skip


@pytest.mark.parametrize("version", [1, V2])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_what_was_sealed_is_opened(version, width):
    used, pieces = quic.crypto(seal(crypto(0, MESSAGE), version, packet=7, token=b"t" * 60, width=width))
    assert (used, pieces) == (ID, [quic.Piece(0, MESSAGE)])


def test_the_fingerprint_says_quic_and_its_ciphers_are_chromes():
    """FoxIO's page gives q13d0312h3_55b375c5d22e_06cda9e17597 for a Chrome over QUIC."""
    made = hello(
        server_name(b"x.org"), extension(16, vector(2, b"\2h3")), extension(43, vector(1, b"\3\4")),
        *(extension(k) for k in range(200, 209)), ciphers=(0x1301, 0x1302, 0x1303),
    )  # fmt: skip
    got = hellos.read_message(made[5:])
    assert got.ja4.startswith("q13d0312h3_55b375c5d22e_")
    assert "t" + got.ja4[1:] == hellos.read(made).ja4


@given(st.lists(st.integers(1, len(MESSAGE) - 1), max_size=6), st.randoms(use_true_random=False))
def test_frames_in_any_order_over_two_packets_are_all_there(cuts, random):
    ends = sorted({0, *cuts, len(MESSAGE)})
    parts = [(a, MESSAGE[a:b]) for a, b in pairwise(ends)]
    random.shuffle(parts)
    half = len(parts) // 2
    frames = [b"\1".join(crypto(a, d) for a, d in some) for some in (parts[:half], parts[half:])]
    got = []
    for k, some in enumerate(frames):
        got += quic.crypto(seal(b"\2\0\0\0\0" + some, packet=k))[1]
    assert sorted(got) == sorted(quic.Piece(a, d) for a, d in parts)


def test_packets_in_one_datagram_and_one_of_another_kind_after_them():
    two = seal(crypto(0, b"ab"), pad=0) + seal(crypto(2, b"cd"), packet=1, pad=0) + b"\xe0" + bytes(40)
    assert [p.data for p in quic.crypto(two)[1]] == [b"ab", b"cd"]


def test_keys_hold_on_after_the_server_chose_another_id():
    later = seal(crypto(0, b"x"), connection_id=b"y" * 8, keys_of=ID)
    assert quic.crypto(later, ID) == (ID, [quic.Piece(0, b"x")])
    with pytest.raises(DecodeError, match="keys"):
        quic.crypto(later)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.FORMAT),
        (bytes(1200), Reason.FORMAT),
        (seal(crypto(0, b"x"))[:-1], Reason.LENGTH),
        (seal(crypto(0, b"x"))[:-1] + b"\0", Reason.CORRUPT),
        (b"\xc0\0\0\0\1\x15" + bytes(1200), Reason.LENGTH),
        (b"\xc0\0\0\0\1\x08" + bytes(8) + b"\0\x40", Reason.SHORT),
        (seal(b"\x08\0\0\0"), Reason.FORMAT),
        (seal(crypto(16384 - 5, b"123456")), Reason.SIZE),
        (seal(b"\1" * 600), Reason.SIZE),
        (seal(b"\2\0\0\x7f\xff"), Reason.SIZE),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_reason(data, reason):
    with pytest.raises(DecodeError) as caught:
        quic.crypto(data)
    assert caught.value.reason is reason
    assert reason in names.REFUSALS


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda b: b"\xc0\0\0\0\1\x08" + b))
def test_any_bytes_are_read_or_refused(data):
    assert attempted(quic.crypto, data)[1] in {None, *names.REFUSALS}


@given(st.binary(max_size=80), st.binary(max_size=120))
def test_any_frames_are_read_or_refused(frames, message):
    assert attempted(quic.crypto, seal(frames, pad=0))[1] in {None, *names.REFUSALS}
    assert attempted(hellos.read_message, message)[1] in {None, *names.REFUSALS}
    assert attempted(hellos.read_message, message, rest_is_lost=True)[1] in {None, *names.REFUSALS}

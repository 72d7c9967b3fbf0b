"""What a TLS server shows: its hello and its certificate, whole, in part, and beside another reader."""

import numpy as np
import pytest
from certmaker import certificate, chain, records, server_hello
from cryptography import x509
from cryptography.x509.oid import NameOID
from hellomaker import attempted, extension, vector
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import DecodeError, Reason
from collectors.packet import certificates, flights, looking, names, namesets

DER = certificate(others=("*.example.org", "pool.example.org", "xn--mnz-hoa.example"))
NAMES = ("pool.example.org", "*.example.org", "xn--mnz-hoa.example")
WHOLE = records(
    server_hello(extension(16, vector(2, b"\x02h2"))), chain(DER, certificate("ca.example")), b"\x0e\0\0\0"
)


def test_subject_and_alternative_names_are_told():
    assert certificates.names(DER) == NAMES
    assert flights.read(WHOLE) == flights.Flight(0x0303, 0xC02F, "h2", NAMES)


LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-ABC", min_size=1, max_size=20)
HOST = st.lists(LABEL, min_size=1, max_size=4).map(".".join) | LABEL.map(lambda x: "*." + x + ".org")


@given(HOST | st.none(), st.lists(HOST, max_size=5), st.integers(0, 300))
def test_agrees_with_another_reader(common, others, padding):
    der = certificate(common, others, padding)
    other = x509.load_der_x509_certificate(der)
    told = [a.value for a in other.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    for found in other.extensions:
        told += found.value.get_values_for_type(x509.DNSName)
    assert list(certificates.names(der)) == list(dict.fromkeys(name.lower() for name in told))


@given(st.integers(1, 3000))
def test_a_flight_in_records_of_any_size_is_the_same(size):
    assert flights.read(records(server_hello(), chain(DER), size=size)) == flights.Flight(
        0x0303, 0xC02F, None, NAMES
    )


@given(st.integers(0, len(WHOLE)))
def test_a_part_is_waited_for_until_the_servers_own_certificate_is_there(size):
    got = flights.read(WHOLE[:size])
    there = size >= WHOLE.index(DER) + len(DER)
    assert (got is not None) == there
    late = flights.read(WHOLE[:size], rest_is_lost=True)
    assert late is None or late.names == (NAMES if there else ())


@pytest.mark.parametrize(
    "data",
    [
        records(server_hello(extension(43, b"\3\4"))) + b"\x14\3\3\0\1\1",  # TLS 1.3
        records(server_hello()) + b"\x14\3\3\0\1\1",  # a session that goes on
        records(server_hello(), b"\x04" + vector(3, bytes(9))),  # with a new ticket
        records(server_hello(), chain()),  # anonymous
    ],
)  # fmt: skip
def test_where_no_certificate_is_shown_nothing_is_waited_for(data):
    assert flights.read(data).names == ()
    assert looked(data, names.NameFilter((), [""]))[0] != looking.SURE


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x17\3\3\0\1\2", Reason.FORMAT),
        (b"\x16\3\3\0\0\2", Reason.LENGTH),
        (records(b"\1" + vector(3, bytes(40))), Reason.FORMAT),
        (b"\x16\3\3\0\4\2\xff\xff\xff", Reason.SIZE),
        (records(server_hello(), b"\x0b\0\0\6\0\0\4\0\0\1"), Reason.LENGTH),
        (records(server_hello(), b"\x0b\0\0\6\0\0\3\0\0\1"), Reason.LENGTH),
        (records(server_hello(), chain(b"\x30\1")), Reason.SHORT),
        (records(server_hello(), chain(b"\x31\0")), Reason.FORMAT),
        (records(server_hello(), chain(b"\x30\x80\0\0")), Reason.FORMAT),
        (records(server_hello(), chain(b"\x30\2\x30\0")), Reason.FORMAT),
        (records(server_hello(), chain(b"\x30\0")), Reason.FORMAT),
        (records(server_hello(), chain(b"\x30\4\x3f\x81\1\0")), Reason.FORMAT),
        (records(server_hello(), chain(certificate(others=[f"{k}.x.y" for k in range(300)]))), Reason.SIZE),
        (records(server_hello(extension(16, b"\0\5\4"))), Reason.SHORT),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_reason(data, reason):
    with pytest.raises(DecodeError) as caught:
        flights.read(data)
    assert caught.value.reason is reason
    assert reason in names.REFUSALS


def looked(data, wanted):
    compiled = namesets.compile_wanted(wanted.exact, wanted.suffixes, (), 1)
    array = np.frombuffer(bytearray(data), np.uint8)
    return looking.look_flight(array, 0, array.size, compiled, np.zeros(256, np.uint8))


CHANGES = st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), max_size=4)
WANTED = [names.NameFilter(["pool.example.org"]), names.NameFilter((), ["org"]), names.NameFilter(["x.y"])]


@given(CHANGES, st.none() | st.integers(1, 900), st.integers(6, 1500), st.sampled_from(WANTED))
def test_any_bytes_are_read_or_refused_and_the_kernel_lets_every_wanted_name_through(
    changes, size, cut, wanted
):
    data = bytearray(records(server_hello(), chain(DER), size=size))
    for at, byte in changes:
        data[at % len(data)] = byte
    part = bytes(data[:cut])
    for lost in (False, True):
        got, reason = attempted(flights.read, part, rest_is_lost=lost)
        assert reason in {None, *names.REFUSALS}
        if got is not None and any(map(wanted.match, got.names)) and part[:2] == b"\x16\3" and part[5] == 2:
            assert looked(part, wanted)[0] != looking.NOT
    if not changes and size is None and cut >= len(data):
        code, need = looked(part, wanted)
        assert code == (looking.SURE if wanted is not WANTED[2] else looking.NOT)
        assert data[:need].endswith(DER)


@given(st.binary(max_size=120))
def test_any_bytes_at_all(data):
    for read in (flights.read, certificates.names):
        assert attempted(read, data)[1] in {None, *names.REFUSALS}
        assert attempted(read, b"\x30" + vector(1, data))[1] in {None, *names.REFUSALS}
    looked(b"\x16\3\3" + data + bytes(3), WANTED[1])

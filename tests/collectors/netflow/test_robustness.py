"""Any bytes decode or are refused; and the compiled pass reads what the plain one reads."""

import struct
from ipaddress import IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.errors import DecodeError
from collectors.netflow import ipfix, records, v5, v9
from collectors.netflow.datagrams import Datagram
from collectors.netflow.messages import Message

DECODERS = {5: v5.decode, 9: v9.decode, 10: ipfix.decode}


def head(version):
    return st.binary(max_size=1500).map(lambda b: struct.pack(">H", version) + b)


@pytest.mark.parametrize("version", DECODERS)
@given(data=st.data())
def test_any_bytes_decode_or_are_refused(version, data):
    given_ = data.draw(st.binary(max_size=1600) | head(version))
    try:
        got = DECODERS[version](given_)
    except DecodeError:
        return
    assert isinstance(got, Message)


ELEMENTS = st.sampled_from(
    [1, 2, 4, 5, 6, 7, 8, 10, 11, 12, 14, 16, 21, 22, 27, 28, 48, 58, 61, 82, 136, 150, 152,
     154, 160, 161, 210]
)  # fmt: skip
WIDTHS = st.sampled_from([0, 1, 2, 3, 4, 4, 4, 8, 16, 65535])
FIELDS = st.lists(st.tuples(ELEMENTS, WIDTHS), max_size=10).map(lambda f: ((8, 4), (12, 4), *f))


@st.composite
def exports(draw, make):
    """A few datagrams of templates and data, some of their octets spoiled."""
    version = draw(st.sampled_from([9, 10]))
    payloads = []
    for i in range(draw(st.integers(1, 4))):
        sets = [
            make.template(draw(st.sampled_from([256, 257])), draw(FIELDS), version, draw(st.integers(0, 2)))
            if draw(st.booleans())
            else make.data_set(draw(st.sampled_from([256, 257])), draw(st.binary(max_size=200)))
            for _ in range(draw(st.integers(0, 4)))
        ]
        made = bytearray((make.v9 if version == 9 else make.ipfix)(*sets, sequence=i))
        for at, octet in draw(
            st.lists(st.tuples(st.integers(0, len(made) - 1), st.integers(0, 255)), max_size=3)
        ):
            made[at] = octet
        payloads.append(bytes(made))
    return payloads


def plainly(payloads, exporter):
    """(records, refused) of the plain path: how many, whatever they hold."""
    state, found = records.State(), []
    for one in payloads:
        try:
            found += records.records(one, state, exporter)
        except DecodeError:
            continue
    return found


@settings(max_examples=300)
@given(data=st.data())
def test_the_kernel_finds_the_records_that_the_plain_path_finds(make, data):
    payloads = data.draw(exports(make))
    got = make.replay([make.gathered(*payloads)])
    counted = sum(n for k, n in got.moved.items() if k[0] == "records_total")
    assert counted == len(plainly(payloads, make.EXPORTER))


def sixteen(row, *names):
    found = bytes(16)
    for name in names:
        if name in row:
            given_ = ip_address(row[name])
            if given_.version == 6 and int(given_):
                return given_.packed
            if given_.version == 4:
                found = IPv6Address(f"::ffff:{given_}").packed
    return found


# Columns, and the names whose first that a record has is theirs.
TWINS = {
    "bytes": ("octetDeltaCount", "octetTotalCount", "initiatorOctets"),
    "packets": ("packetDeltaCount", "packetTotalCount", "initiatorPackets"),
    "src_port": ("sourceTransportPort",),
    "dst_port": ("destinationTransportPort",),
    "protocol": ("protocolIdentifier",),
    "input_interface": ("ingressInterface", "ingressPhysicalInterface"),
    "output_interface": ("egressInterface", "egressPhysicalInterface"),
    "src_as": ("bgpSourceAsNumber",),
    "dst_as": ("bgpDestinationAsNumber",),
    "tcp_flags": ("tcpControlBits",),
    "tos": ("ipClassOfService",),
    "vlan": ("vlanId", "dot1qVlanId"),
    "direction": ("flowDirection",),
    "end_reason": ("flowEndReason",),
    "reverse_bytes": ("reverseOctetDeltaCount", "reverseOctetTotalCount", "responderOctets"),
    "reverse_packets": ("reversePacketDeltaCount", "reversePacketTotalCount", "responderPackets"),
    "template": ("templateId",),
    "domain": ("observationDomainId",),
    "source": ("exportProtocolVersion",),
}
NEVER_NULL = {"bytes", "packets", "src_port", "dst_port", "protocol"}


def twin(row):
    """What anyone would write first: the columns of a record, from its names."""
    made = {"src": sixteen(row, "sourceIPv4Address", "sourceIPv6Address"),
            "dst": sixteen(row, "destinationIPv4Address", "destinationIPv6Address")}  # fmt: skip
    for column, names in TWINS.items():
        found = [row[n] for n in names if n in row]
        first = found[0] if found else None
        made[column] = first[0] if isinstance(first, list) else first
        if column in NEVER_NULL and made[column] is None:
            made[column] = 0
    return made


def is_flow(row):
    return {"sourceIPv4Address", "sourceIPv6Address"} & row.keys() and {
        "destinationIPv4Address",
        "destinationIPv6Address",
    } & row.keys()


def all_captures(captures):
    return [p for p in sorted(captures.rglob("*.pcap")) if "sflow" not in str(p)]


def test_rows_are_what_the_plain_path_says_of_every_capture(captures, make):
    compared = 0
    for path in all_captures(captures):
        datagrams = make.datagrams(path)
        state, wanted = records.State(), []
        for one in datagrams:
            try:
                wanted += [twin(r) for r in records.records(one.payload, state, one.exporter) if is_flow(r)]
            except DecodeError:
                continue
        rows = make.replay([datagrams]).rows
        got = [{k: row[k] for k in wanted[0]} for row in rows] if wanted else []
        key = lambda row: str(sorted((k, str(v)) for k, v in row.items()))  # noqa: E731
        assert sorted(got, key=key) == sorted(wanted, key=key), path.name
        compared += len(got)
    assert compared > 4000


@given(data=st.data())
def test_spoiled_datagrams_of_real_exporters_are_read_or_refused(captures, make, data):
    path = data.draw(st.sampled_from([p for p in all_captures(captures) if p.stat().st_size < 8000]))
    spoiled = []
    for one in make.datagrams(path):
        made = bytearray(one.payload)
        spots = st.tuples(st.integers(0, len(made) - 1), st.integers(0, 255))
        for at, octet in data.draw(st.lists(spots, max_size=4)):
            made[at] = octet
        short = data.draw(st.just(len(made)) | st.integers(0, len(made)))
        spoiled.append(Datagram(bytes(made[:short]), one.exporter, one.port, one.t_ns))
    got = make.replay([spoiled])
    counted = sum(n for k, n in got.moved.items() if k[0] == "records_total")
    state, found = records.State(), 0
    for one in spoiled:
        try:
            found += len(records.records(one.payload, state, one.exporter))
        except DecodeError:
            continue
    assert counted == found

"""The socket, over loopback; and exports picked out of packets."""

import socket
from itertools import islice

import numpy as np
import pytest

from collectors.errors import InputError
from collectors.netflow import capture
from collectors.netflow.datagrams import block
from collectors.netflow.udp import Receiver


def test_datagrams_come_with_their_exporter_and_time():
    with Receiver("127.0.0.1", 0, buffer_bytes=1 << 20, now_ns=lambda: 77) as receiver:
        assert receiver.granted_bytes > 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("127.0.0.1", 0))
            for payload in (b"one", b"two"):
                sender.sendto(payload, ("127.0.0.1", receiver.port))
            port = sender.getsockname()[1]
        got = receiver.receive(5)
        while len(got) < 2:
            got += receiver.receive(5)
    assert [d.payload for d in got] == [b"one", b"two"]
    assert {(d.exporter, d.port, d.t_ns) for d in got} == {(bytes(10) + b"\xff\xff\x7f\0\0\1", port, 77)}


def test_what_the_kernel_dropped_is_told():
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    lost = []
    with sender, Receiver("127.0.0.1", 0, buffer_bytes=4096, lost=lost.append) as receiver:
        for _ in range(200):
            sender.sendto(bytes(1000), ("127.0.0.1", receiver.port))
        got = len(receiver.receive(5))
        sender.sendto(b"last", ("127.0.0.1", receiver.port))
        got += len(receiver.receive(5))
    assert got + receiver.dropped == 201
    assert receiver.dropped == sum(lost) > 0


def test_lists_go_on_while_nothing_comes_and_end_when_told():
    left = iter([False, False, True])
    with Receiver("::", 0) as receiver:
        assert list(receiver.lists(lambda: next(left), wait_s=0)) == [[], []]


def test_a_port_that_is_taken_is_an_input_error():
    with Receiver("127.0.0.1", 0) as first, pytest.raises(InputError, match=str(first.port)):
        Receiver("127.0.0.1", first.port).__enter__()
    with pytest.raises(InputError):
        first.receive()


def test_exports_are_known_by_their_first_octets(captures, make):
    seen = 0
    for path in sorted(captures.rglob("*.pcap")):
        for payload, *_ in islice(make.udp_payloads(path), 20):
            expected = "sflow" not in str(path) and "invalid" not in str(path)
            if expected and len(payload) >= 24:
                assert capture.is_export(payload), path.name
                seen += 1
            if "sflow" in str(path):
                # One of them is cut short after eight octets.
                assert capture.is_export(payload) == (len(payload) > 8)
    assert seen > 90
    for other in (b"", b"\0\5" * 40, b"GET / HTTP/1.1\r\n\r\n" * 3, bytes(100), b"\0\x0a" + bytes(60)):
        assert not capture.is_export(other)


def test_payloads_on_the_ports_of_exports_make_a_block(captures, make):
    path = captures / "logstash-codec-netflow/netflow-9-multiple-netflow-exporters.pcap"
    packets = list(make.udp_payloads(path))
    made = block(make.datagrams(path))
    src = np.frombuffer(b"".join(p[1] for p in packets), np.uint8).reshape(-1, 16)
    ports = np.array([p[3] for p in packets], np.uint16)
    got = capture.block(made.data, made.at, made.size, src, ports, made.t_ns, frozenset(ports.tolist()))
    assert [got.addresses[i] for i in got.exporter] == [p[1] for p in packets]
    assert np.array_equal(got.at, made.at)
    assert not len(capture.block(made.data, made.at, made.size, src, ports, made.t_ns, frozenset({1})))

"""The socket, over loopback; and exports picked out of packets."""

import socket
import time

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from collectors.errors import InputError
from collectors.netflow import batches, capture
from collectors.netflow.certificates import Certificates
from collectors.netflow.datagrams import block
from collectors.netflow.listening import Tcp, Tls
from collectors.netflow.ports import Ports
from collectors.netflow.receiving import Metrics, Receiving

SECOND = 10**9


def receiving(share, lost=lambda _: None, apart=False):
    metrics = Metrics(CollectorRegistry())
    return Receiving(share, Tcp(), Certificates(Tls()), frozenset(), metrics, lost, apart=apart)


def taken(receiver, wanted):
    """Datagrams until there are so many, or nothing comes any more: (octets, exporter, port, time)."""
    found = []
    ends = time.monotonic() + 20
    while len(found) < wanted and time.monotonic() < ends:
        for got in receiver.turn(0.1):
            for i in range(len(got)):
                at, size = int(got.at[i]), int(got.size[i])
                payload = got.data[at : at + size].tobytes()
                who = got.addresses[int(got.exporter[i])]
                found.append((payload, who, int(got.port[i]), int(got.t_ns[i])))
    return found


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_datagrams_come_with_their_exporter_and_time(monkeypatch, compiled, apart):
    if compiled and not batches.available():
        pytest.skip("no recvmmsg here")
    monkeypatch.setattr(batches, "available", lambda: compiled)
    began = time.time_ns()
    with (
        Ports("127.0.0.1", (0,), buffer_bytes=1 << 20) as ports,
        receiving(ports.share(0), apart=apart) as receiver,
    ):
        assert ports.granted_bytes > 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("127.0.0.1", 0))
            for payload in (b"one", b"two"):
                sender.sendto(payload, ("127.0.0.1", ports.ports[0]))
            port = sender.getsockname()[1]
        got = taken(receiver, 2)
    assert [d[0] for d in got] == [b"one", b"two"]
    assert {d[1:3] for d in got} == {(bytes(10) + b"\xff\xff\x7f\0\0\1", port)}
    assert all(began - SECOND < d[3] < time.time_ns() + SECOND for d in got)


@pytest.mark.parametrize("apart", [False, True])
def test_what_the_kernel_dropped_is_told(apart):
    lost = []
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        Ports("127.0.0.1", (0,), buffer_bytes=4096) as ports,
        receiving(ports.share(0), lost.append, apart=apart) as receiver,
    ):
        for _ in range(200):
            sender.sendto(bytes(1000), ("127.0.0.1", ports.ports[0]))
        got, ends = 0, time.monotonic() + 20
        while got + sum(lost) < 200 and time.monotonic() < ends:
            got += sum(len(block) for block in receiver.turn(0.1))
    assert got + sum(lost) == 200
    assert sum(lost) > 0


def test_what_waits_to_be_read_is_shown_and_that_there_was_too_much():
    registry = CollectorRegistry()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        Ports("127.0.0.1", (0,)) as ports,
        Receiving(
            ports.share(0), Tcp(), Certificates(Tls()), (), Metrics(registry), lambda _: None,
            apart=True, most_waiting_bytes=999,
        ) as receiver,
    ):  # fmt: skip
        assert not list(receiver.turn(0.0))
        sender.sendto(bytes(1000), ("127.0.0.1", ports.ports[0]))
        ends = time.monotonic() + 20
        while not receiver._drain.waiting and time.monotonic() < ends:
            time.sleep(0.001)
        (block,) = receiver.turn(0.0)
        shown = registry.get_sample_value("poolwatch_collector_netflow_waiting_bytes")
        while receiver._drain.waiting and time.monotonic() < ends:
            time.sleep(0.001)
        assert not list(receiver.turn(0.0))
    assert len(block) == 1
    assert shown == 1000
    assert registry.get_sample_value("poolwatch_collector_netflow_waiting_bytes") == 0
    assert registry.get_sample_value("poolwatch_collector_netflow_waiting_full_total") == 1


def test_turns_go_on_while_nothing_comes():
    with Ports("::", (0,)) as ports, receiving(ports.share(0)) as receiver:
        assert [list(receiver.turn(0.0)) for _ in range(2)] == [[], []]


def test_a_port_that_is_taken_is_an_input_error():
    with Ports("127.0.0.1", (0,)) as first, pytest.raises(InputError, match=str(first.ports[0])):
        Ports("127.0.0.1", (first.ports[0],)).__enter__()


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

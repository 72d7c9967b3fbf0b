"""Sockets that share a port: who gets whose datagrams, and what a heavy exporter does to the others."""

import socket
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from collectors.errors import InputError
from collectors.netflow import batches, ports, steering, udp
from collectors.netflow.certificates import Certificates
from collectors.netflow.listening import Tcp, Tls
from collectors.netflow.ports import Ports
from collectors.netflow.receiving import Metrics, Receiving

FOUR = [f"127.{n % 3}.{n % 11}.{n + 1}" for n in range(40)]


def can_steer():
    with Ports("127.0.0.1", (0,), each=2) as made:
        return made.steered


needs_steering = pytest.mark.skipif(not can_steer(), reason="this kernel cannot steer")


def send(source, port, payload=b"x", times=1, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        for _ in range(times):
            sender.sendto(payload, ("::1" if family == socket.AF_INET6 else "127.0.0.1", port))


def received(one):
    receiver = udp.OneByOne()
    receiver.take(one, 1000)
    return receiver.datagrams()


@given(st.ip_addresses(), st.integers(1, 512))
def test_every_address_has_a_socket_and_it_is_always_the_same(address, sockets):
    octets = udp.address_of(str(address))
    assert 0 <= steering.member(octets, sockets) < sockets
    for workers in (1, 2, 3, 8):
        # So it is the same worker for UDP, with several sockets each, and for TCP.
        assert steering.member(octets, sockets * workers) % workers == steering.member(octets, workers)


@pytest.mark.parametrize("block", ["10.0.0.0", "192.0.2.0", "172.16.0.0"])
@pytest.mark.parametrize("step", [1, 4, 256])
def test_routers_that_are_numbered_in_a_row_are_spread(block, step):
    first = int(ip_address(block))
    found = [steering.member(udp.address_of(str(ip_address(first + n * step))), 8) for n in range(256)]
    assert max(found.count(n) for n in range(8)) < 64


@needs_steering
@pytest.mark.parametrize("address", ["127.0.0.1", "::"])
def test_an_exporter_reaches_one_socket_whatever_port_it_sends_from(address):
    with Ports(address, (0,), workers=2, each=3) as made:
        sources = [(source, socket.AF_INET) for source in FOUR]
        if address == "::":
            sources.append(("::1", socket.AF_INET6))
        used = set()
        for source, family in sources:
            for _ in range(3):
                send(source, made.ports[0], family=family)
            number = steering.member(udp.address_of(source), 6)
            mine = made.share(number % 2).udp[number // 2]
            got = received(mine)
            assert [d.exporter for d in got] == [udp.address_of(source)] * 3
            assert len({d.port for d in got}) > 1
            used.add(number)
        assert len(used) >= 5


@needs_steering
def test_shares_are_all_sockets_and_each_once():
    with Ports("127.0.0.1", (0, 0), workers=3, each=2) as made:
        shares = [made.share(n) for n in range(3)]
        numbers = [fd for share in shares for fd in share.numbers()[0]]
        assert len(set(numbers)) == len(numbers) == 2 * 3 * 2
        assert len(set(made.ports)) == 2
        assert made.granted_bytes > 0


def test_a_port_that_somebody_has_is_not_shared_with_him():
    with Ports("127.0.0.1", (0,), each=2) as made:
        with pytest.raises(InputError, match=str(made.ports[0])):
            Ports("127.0.0.1", made.ports, each=2).__enter__()
        send("127.0.0.1", made.ports[0])
        assert sum(len(received(one)) for one in made.share(0).udp) == 1
    with Ports("127.0.0.1", made.ports, each=2):
        pass


def test_a_tcp_port_that_somebody_has_is_an_input_error():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"TCP 127.0.0.1 port {port}"):
            Ports("127.0.0.1", (), tcp=port).__enter__()


def test_where_the_kernel_cannot_steer_there_is_one_worker_with_one_socket(monkeypatch):
    monkeypatch.setattr(ports, "_can_steer", lambda: False)
    with Ports("127.0.0.1", (0,), workers=4, each=8) as made:
        assert (made.steered, made.workers, len(made.share(0).udp)) == (False, 1, 1)
        send("127.0.0.1", made.ports[0])
        assert len(received(made.share(0).udp[0])) == 1


def receiving(share, lost):
    certificates = Certificates(Tls())
    return Receiving(share, Tcp(), certificates, frozenset(), Metrics(CollectorRegistry()), lost.append)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_heavy_exporter_loses_its_own_and_another_nothing(monkeypatch, compiled):
    if not can_steer():
        pytest.skip("this kernel cannot steer")
    monkeypatch.setattr(batches, "available", lambda: compiled)
    heavy, light = (
        "127.0.0.1",
        next(s for s in FOUR if len({steering.member(udp.address_of(a), 8) for a in (s, "127.0.0.1")}) == 2),
    )
    lost = []
    with (
        Ports("127.0.0.1", (0,), each=8, buffer_bytes=64 << 10) as made,
        receiving(made.share(0), lost) as receiver,
    ):
        # Nobody reads while it comes: then there is more than can be read.
        send(heavy, made.ports[0], bytes(1000), times=3000)
        send(light, made.ports[0], bytes(1000), times=20)
        got = {udp.address_of(heavy): 0, udp.address_of(light): 0}
        first = []
        for _ in range(50):
            for block in receiver.turn(0.0):
                first.append({block.addresses[e] for e in block.exporter})
                for e in block.exporter:
                    got[block.addresses[e]] += 1
    assert got[udp.address_of(light)] == 20
    assert got[udp.address_of(heavy)] < 3000
    assert got[udp.address_of(heavy)] + sum(lost) == 3000
    assert udp.address_of(light) in first[0]


def test_sockets_are_read_in_turn_with_the_same_quota():
    if not can_steer():
        pytest.skip("this kernel cannot steer")
    heavy, light = (
        "127.0.0.1",
        next(s for s in FOUR if len({steering.member(udp.address_of(a), 8) for a in (s, "127.0.0.1")}) == 2),
    )
    with (
        Ports("127.0.0.1", (0,), each=8, buffer_bytes=8 << 20) as made,
        receiving(made.share(0), []) as receiver,
    ):
        send(heavy, made.ports[0], b"heavy", times=2000)
        send(light, made.ports[0], b"light", times=5)
        block = next(receiver.turn(0.0))
        names = [block.addresses[e] for e in block.exporter]
        assert names.count(udp.address_of(light)) == 5
        assert names.index(udp.address_of(light)) <= 128

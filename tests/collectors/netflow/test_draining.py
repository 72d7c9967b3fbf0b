"""The thread that empties sockets: nothing is lost between it and its reader, nor memory filled."""

import socket
import time

import pytest

from collectors.netflow import batches, udp
from collectors.netflow.draining import Drain


def send(one, numbers):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for n in numbers:
            sender.sendto(n.to_bytes(4, "big") + bytes(1000), one.getsockname())


def numbers(blocks):
    return [int.from_bytes(b.data[a : a + 4].tobytes(), "big") for b in blocks for a in b.at.tolist()]


def until(done):
    ends = time.monotonic() + 20
    while not done() and time.monotonic() < ends:
        time.sleep(0.001)
    assert done()


@pytest.mark.parametrize("kind", [batches.Batch, udp.OneByOne])
def test_what_comes_is_received_while_nobody_asks_for_it(kind):
    if kind is batches.Batch and not batches.available():
        pytest.skip("no recvmmsg here")
    with udp.opened("127.0.0.1", 0, 256 << 10) as one, Drain([one], kind(256), 0.0, 64 << 20) as drain:
        drain.start()
        # Many times what the socket has room for.
        for first in range(0, 3000, 50):
            send(one, range(first, first + 50))
            until(lambda: _empty(one))
        found = []
        until(lambda: found.extend(numbers(drain.taken())) or len(found) + drain.lost() >= 3000)
    assert found == list(range(3000))
    assert drain.lost() == 0


def _empty(one):
    try:
        one.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    return False


def test_what_there_is_no_memory_for_is_left_in_the_socket_and_counted():
    with udp.opened("127.0.0.1", 0, 1 << 20) as one, Drain([one], udp.OneByOne(4), 0.0, 1) as drain:
        drain.start()
        send(one, [0])
        until(lambda: _empty(one))
        send(one, range(1, 5))
        time.sleep(0.05)
        assert not _empty(one)
        assert drain.waiting > 1
        assert drain.full == 1
        found = []
        until(lambda: found.extend(numbers(drain.taken())) or len(found) == 5)
    assert found == list(range(5))


def test_a_broken_socket_is_an_error_where_it_is_read():
    class Broken(udp.OneByOne):
        def take(self, one, quota):
            raise OSError("broken")

    with udp.opened("127.0.0.1", 0, 1 << 20) as one, Drain([one], Broken(4), 0.0, 1 << 20) as drain:
        drain.start()
        send(one, [1])
        with pytest.raises(OSError, match="broken"):
            until(drain.taken)


def test_what_the_kernel_dropped_is_told():
    with udp.opened("127.0.0.1", 0, 4096) as one, Drain([one], udp.OneByOne(64), 0.0, 1 << 20) as drain:
        send(one, range(300))
        drain.start()
        found = []
        until(lambda: found.extend(numbers(drain.taken())) or len(found) + drain.lost() == 300)
        assert drain.lost() > 0

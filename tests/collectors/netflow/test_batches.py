"""Many datagrams in one call: the same as one by one, from sockets of either family."""

import socket
import time

import numpy as np
import pytest

from collectors.netflow import batches, udp
from collectors.netflow.datagrams import Block, joined
from collectors.reading import PADDING

pytestmark = pytest.mark.skipif(not batches.available(), reason="no recvmmsg here")


def datagrams(block):
    return [
        (block.data[a : a + n].tobytes(), block.addresses[e], int(p))
        for a, n, e, p in zip(block.at, block.size, block.exporter, block.port, strict=True)
    ]


def sent(to, payloads, source="127.0.0.1", family=socket.AF_INET):
    """Send; what a receiver should say of it."""
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        for payload in payloads:
            sender.sendto(payload, ("::1" if family == socket.AF_INET6 else "127.0.0.1", to))
        port = sender.getsockname()[1]
    return [(payload, udp.address_of(source), port) for payload in payloads]


def received(receiver, one, count):
    """A block of so many, or of what comes in five seconds."""
    ends = time.monotonic() + 5
    while receiver.count < count and time.monotonic() < ends:
        receiver.take(one, 7)
    return receiver.block()


PAYLOADS = (b"", b"x", bytes(2047), bytes(range(256)) * 8, b"y" * 2049, b"z" * 9000, b"w" * 65507)


@pytest.mark.parametrize("where", ["127.0.0.1", "::"])
@pytest.mark.parametrize("kind", [batches.Batch, udp.OneByOne])
def test_both_receivers_give_the_same_datagrams_of_the_same_exporters(where, kind):
    with udp.opened(where, 0, 1 << 20) as one:
        port = one.getsockname()[1]
        expected = sent(port, PAYLOADS) + sent(port, [b"a", b"b"], "127.0.0.2") + sent(port, [b"again"])
        if where == "::":
            expected += sent(port, [b"six", b"teen"], "::1", socket.AF_INET6)
        before = time.time_ns()
        block = received(kind(64), one, len(expected))
    assert isinstance(block, Block)
    assert datagrams(block) == expected
    assert len(block.addresses) == len({address for _, address, _ in expected})
    assert len(block.data) >= int(block.at[-1] + block.size[-1]) + PADDING
    assert all(abs(t - before) < 60e9 for t in block.t_ns.tolist())
    assert np.all(np.diff(block.t_ns) >= 0)


def test_a_datagram_is_stamped_when_it_came_and_not_when_it_was_read():
    """The kernel begins to stamp a moment after the first socket of the machine asks for it, and what came
    before bears the time of its reading: so it is asked again, for a while."""
    receiver, late_ns = batches.Batch(4), 0
    with udp.opened("127.0.0.1", 0, 1 << 20) as one:
        for _ in range(10):
            sent(one.getsockname()[1], [b"x"])
            came = time.time_ns()
            time.sleep(0.2)
            block = received(receiver, one, 1)
            late_ns = int(block.t_ns[0]) - came
            if abs(late_ns) < 150e6:
                return
    pytest.fail(f"stamped {late_ns} ns after it came")


def test_slots_are_used_again_and_a_block_keeps_what_it_had():
    receiver = batches.Batch(4)
    kept = []
    with udp.opened("127.0.0.1", 0, 1 << 20) as one:
        for number in range(5):
            expected = sent(
                one.getsockname()[1], [bytes([number]) * 100, b"t" * 3000], f"127.0.0.{number + 1}"
            )
            kept.append((received(receiver, one, 2), expected))
    for block, expected in kept:
        assert datagrams(block) == expected


def test_no_more_is_taken_than_there_is_room_for():
    receiver = batches.Batch(4)
    with udp.opened("127.0.0.1", 0, 1 << 20) as one:
        expected = sent(one.getsockname()[1], [bytes([n]) for n in range(6)])
        assert [receiver.take(one, 3)[0] for _ in range(3)] == [3, 1, 0]
        first = datagrams(receiver.block())
        assert receiver.take(one, 9) == (2, None)
        assert first + datagrams(receiver.block()) == expected
        assert receiver.take(one, 9) == (0, None)


def test_what_is_longer_than_its_slot_is_refused_and_counted():
    receiver = batches.Batch(8, longest=100)
    with udp.opened("127.0.0.1", 0, 1 << 20) as one:
        expected = sent(one.getsockname()[1], [b"a" * 100, b"b" * 101, b"c"])
        block = received(receiver, one, 3)
    assert datagrams(block) == [expected[0], expected[2]]
    assert receiver.truncated == 1


def test_a_thousand_exporters_have_a_number_each():
    receiver = batches.Batch(1000)
    with udp.opened("127.0.0.1", 0, 8 << 20) as one:
        expected = []
        for number in range(1000):
            expected += sent(
                one.getsockname()[1], [b"x"], f"127.{number % 7}.{number // 256}.{number % 256 or 1}"
            )
        block = received(receiver, one, 1000)
    assert datagrams(block) == expected
    assert len(block.addresses) == len({address for _, address, _ in expected})


def test_the_kernel_s_count_of_drops_comes_with_a_datagram_and_without():
    with udp.opened("127.0.0.1", 0, 4096) as one:
        port = one.getsockname()[1]
        sent(port, [bytes(1000)] * 200)
        receiver, drops = batches.Batch(256), udp.Drops()
        got, told = receiver.take(one, 256)
        assert told is None
        lost = drops.grew(udp.drops(one))
        sent(port, [b"last"])
        more, told = receiver.take(one, 256)
        assert got + more + lost == 201
        assert told == lost > 0
        assert drops.grew(told) == 0


def test_drops_are_counted_over_the_wrap_and_not_backwards():
    drops = udp.Drops()
    assert [drops.grew(n) for n in (None, 5, 3, 2**31 + 4, 2**32 - 1, 2)] == [
        0,
        5,
        0,
        2**31 - 1,
        2**31 - 5,
        3,
    ]
    assert drops.count == 2**32 + 2


def test_a_socket_that_is_broken_is_an_error():
    one = udp.opened("127.0.0.1", 0, 4096)
    one.close()
    with pytest.raises(OSError, match="file descriptor"):
        batches.Batch(4).take(one, 4)


def test_blocks_that_are_held_lie_in_one_memory_which_begins_anew_when_none_is():
    receiver = batches.Batch(4)
    with udp.opened("127.0.0.1", 0, 1 << 20) as one:
        port = one.getsockname()[1]
        first = received(receiver, one, len(sent(port, [b"a", b"bb"])))
        second = received(receiver, one, len(sent(port, [b"ccc"], "127.0.0.2")))
        whole = datagrams(first) + datagrams(second)
        both = joined([first, second])
        assert both.data is first.data is second.data
        assert datagrams(both) == whole
        assert first.addresses == both.addresses[:1]
        place = int(second.at[0])
        del first, second
        third = received(receiver, one, len(sent(port, [b"d"], "127.0.0.3")))
        assert int(third.at[0]) > place
        assert datagrams(both) == whole
        assert datagrams(joined([both, third])) == whole + datagrams(third)
        del both, third
        last = received(receiver, one, len(sent(port, [b"e"])))
        assert (int(last.at[0]), len(last.addresses)) == (0, 1)


def test_blocks_of_several_memories_are_kept_and_joined(monkeypatch):
    monkeypatch.setattr(batches, "STORE_BYTES", 1000)
    receiver, kept, expected = batches.Batch(4), [], []
    with udp.opened("127.0.0.1", 0, 1 << 20) as one:
        for number in range(30):
            # Exporters more than one memory has numbers for, and a datagram that none has room for.
            size = 3000 if number == 7 else 100
            for at in range(4):
                payload = bytes([number, at]) * size
                expected += sent(one.getsockname()[1], [payload], f"127.0.{number}.{at + 1}")
            kept.append(received(receiver, one, 4))
    assert len({id(block.data) for block in kept}) > 3
    assert [d for block in kept for d in datagrams(block)] == expected
    assert datagrams(joined(kept)) == expected

"""The embedded bus."""

from collectors import wire
from collectors.bus import MemoryBus

HEADER = wire.Header(
    version=1, collector="t", number=0, rows=0, t_first_ns=0, t_last_ns=0, received_ns=0, home=""
)
ROWS = wire.empty("flows")


def test_messages_come_out_in_the_order_they_went_in():
    bus = MemoryBus()
    for partition in (3, 1, 2):
        bus.publish("flows", partition, ROWS, HEADER)
    assert [m.partition for m in bus.poll(2)] == [3, 1]
    assert [m.partition for m in bus.poll()] == [2]
    assert bus.poll() == []


def test_a_full_bus_lets_the_consumer_catch_up_before_it_refuses():
    taken = []
    bus = MemoryBus(2)
    for _ in range(3):
        bus.publish("flows", 0, ROWS, HEADER)
    assert bus.refused == 1
    bus.spill = lambda: taken.extend(bus.poll())
    bus.publish("flows", 0, ROWS, HEADER)
    assert (len(taken), len(bus.poll()), bus.refused) == (2, 1, 1)

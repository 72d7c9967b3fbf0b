"""The loop of a member of the group, with a bus that is a few lists."""

import gc
import logging

import pytest
from crashes import captured
from prometheus_client import CollectorRegistry

from collectors import wire
from collectors.kafka.reader import Fetched
from detector import app
from detector.config import Config
from detector.detect import Detecting, Metrics
from detector.endpoints import Endpoints
from detector.errors import InputError
from detector.exporters.kafka import Records
from detector.following import Caps, Following
from detector.indexes import Indexes
from detector.intake import INPUTS
from detector.learner import Config as LearnerConfig
from detector.paging import Beside
from detector.resolutions import Config as ResolutionConfig
from detector.writing import Writer

CAPTURE = "pcaps/cpuminer-sha256d.pcap"
CAPS = Caps.of(ResolutionConfig(), LearnerConfig())


class Future:
    def __init__(self, offset, exception=None):
        self.is_done, self.exception = True, exception
        self.value = type("Metadata", (), {"offset": offset})()


class Bus:
    """Reader of the group, of states and of endpoints, and where records go."""

    def __init__(self):
        self.fetched, self.given, self.sought, self.committed = [], None, {}, {}
        self.state, self.endpoints, self.sent = [], [], []
        self.corrupt, self.closed, self.broken, self.membership = 0, 0, False, True
        self.registry = CollectorRegistry()
        self.now_s = 1000.0
        detector = app.Detector(Config(), self.registry)
        self.detector = detector
        records = Records(self.send, 4)
        self.writer = Writer(self.write, records.pending, lambda *_: None, self.commit, 1.0)
        self.indexes = Indexes(Endpoints, lambda index: Following(index, lambda _: True, CAPS))
        self.turned = 0
        also, metrics = Beside(None, None), Metrics(self.registry)
        self.member = Detecting(
            detector, metrics, records, self.writer, self.indexes, also, self.turn, lambda: self.now_s
        )
        self.member.begin(self, self, self, 4)

    def turn(self):
        self.turned += 1

    # As its readers

    def whole(self, partitions, turned):
        if list(partitions) == [0, 1, 2, 3] and not self.turned:
            yield from self.endpoints
            return
        yield from [f for f in self.state if f.partition in partitions]

    def more(self):
        return []

    def ends(self, partitions=None):
        if partitions is None:
            return {(s, p): 100 for s in INPUTS for p in range(4)}
        return {p: sum(f.partition == p for f in self.state) for p in partitions}

    def poll(self, wait_s, most):
        out, self.fetched = self.fetched, []
        return out

    def assigned(self):
        given, self.given = self.given, None
        return given

    def seek(self, partition, offsets):
        self.sought[partition] = dict(offsets)

    def hold(self, stream, partition, held):
        pass

    def is_member(self):
        return self.membership

    def commit(self, offsets):
        self.committed |= offsets

    def close(self):
        self.closed += 1
        self.member.leave()

    # As its writers

    def send(self, stream, partition, name, value, headers):
        self.sent.append((stream, partition, name, value))
        return Future(0)

    def write(self, partition, record):
        if self.broken:
            return Future(0, RuntimeError("no leader"))
        at = sum(f.partition == partition for f in self.state)
        self.state.append(Fetched("state", partition, at, 0, record.key, record.value, []))
        return Future(at)

    # What happens

    def put(self, stream, partition, offset, rows, header):
        value = wire.encode(rows) if rows.num_rows else b""
        self.fetched.append(Fetched(stream, partition, offset, 0, None, value, wire.to_headers(header)))

    def capture(self, partition, first=0):
        numbers = dict.fromkeys(INPUTS, first)
        for message in captured(CAPTURE):
            self.put(message.stream, partition, numbers[message.stream], message.rows, message.header)
            numbers[message.stream] += 1

    def give(self, *partitions):
        self.given = set(partitions)
        self.member.turn()

    def go(self, turns=3):
        for _ in range(turns):
            self.now_s += 1.5
            self.member.turn()

    def figure(self, name, **labels):
        return self.registry.get_sample_value(f"poolwatch_detector_{name}", labels)


@pytest.fixture
def bus():
    return Bus()


def test_what_is_judged_is_told_written_and_then_committed(bus):
    bus.give(0, 2)
    assert bus.member.is_ready
    bus.capture(2)
    bus.go()
    assert {stream for stream, *_ in bus.sent} == {"alerts", "incidents"}
    assert {partition for _, partition, *_ in bus.sent} == {2}
    assert {f.partition for f in bus.state} == {2}
    assert bus.committed["payloads", 2] == sum(m.stream == "payloads" for m in captured(CAPTURE))
    assert bus.figure("state_records_total") == len(bus.state)


def test_partitions_that_come_back_untouched_are_gone_on_with(bus):
    bus.give(0)
    bus.capture(0)
    bus.go()
    part = bus.member._parts[0]
    bus.member.leave()
    assert not bus.member.is_ready
    assert bus.figure("partitions") == 0
    bus.give(0, 1)
    assert bus.member._parts[0] is part
    assert bus.sought[0] == dict(zip(INPUTS, part.offsets, strict=True))
    assert bus.figure("state_restored_total") in (0, None)


def test_partitions_that_another_wrote_to_are_restored(bus):
    bus.give(0)
    bus.capture(0)
    bus.go()
    part = bus.member._parts[0]
    offsets = part.offsets
    bus.member.leave()
    bus.state.append(bus.state[-1]._replace(offset=len(bus.state)))
    bus.give(0)
    assert bus.member._parts[0] is not part
    assert bus.member._parts[0].offsets == offsets
    bus.member._measure()
    assert bus.figure("state_restored_total") == 1
    assert len(bus.detector.totals.runs) == 1


def test_partitions_whose_state_cannot_be_written_are_given_up_and_forgotten(bus, caplog):
    bus.give(0)
    bus.capture(0)
    bus.member.turn()
    bus.broken = True
    with caplog.at_level(logging.WARNING, "poolwatch"):
        bus.member.leave()
    assert "state not written" in caplog.text
    assert bus.detector.totals.runs == []
    assert bus.writer.is_idle
    bus.broken = False
    bus.give(0)
    assert bus.sought[0] == dict.fromkeys(INPUTS, 0)
    bus.capture(0)
    bus.go()
    assert bus.committed["payloads", 0] > 0


def test_after_a_halt_nothing_is_written_until_the_group_says_that_we_are_in_it(bus):
    bus.give(0)
    bus.go(1)
    bus.capture(0)
    bus.membership = False
    bus.now_s += 60
    bus.go(3)
    assert bus.state == []
    bus.member.leave()
    assert bus.state == []
    bus.give(0)
    bus.capture(0)
    bus.membership = True
    bus.now_s += 60
    bus.go(12)
    assert {f.partition for f in bus.state} == {0}


def test_partitions_that_were_lost_leave_no_figures_and_no_offsets(bus):
    bus.give(0)
    bus.capture(0)
    bus.go()
    bus.member._measure()
    assert bus.figure("bus_lag_messages", stream="flows", partition="0") > 0
    bus.member.lose()
    assert bus.figure("bus_lag_messages", stream="flows", partition="0") is None
    assert bus.detector.totals.runs == []
    bus.committed.clear()
    bus.member.stop()
    assert bus.committed == {}
    assert bus.closed == 1


def test_a_stop_without_partitions_and_one_with_them_leave_the_group(bus):
    bus.member.stop()
    assert bus.closed == 1
    other = Bus()
    other.give(1)
    other.capture(1)
    other.member.turn()
    other.member.stop()
    assert other.closed == 1
    assert other.committed["payloads", 1] > 0


def test_a_stop_that_cannot_write_leaves_the_group_and_says_so(bus):
    bus.give(0)
    bus.capture(0)
    bus.member.turn()
    bus.broken = True
    with pytest.raises(InputError, match="no leader"):
        bus.member.stop()
    assert bus.closed == 1


def test_messages_that_were_removed_before_they_were_judged_are_counted(bus, caplog):
    bus.give(0)
    bus.capture(0)
    bus.go()
    at = bus.committed["payloads", 0]
    message = next(m for m in captured(CAPTURE) if m.stream == "payloads")
    with caplog.at_level(logging.WARNING, "poolwatch"):
        bus.put("payloads", 0, at + 50, message.rows, message.header)
        bus.go(1)
    assert bus.figure("bus_messages_missed_total", stream="payloads") == 50
    assert "missed" in caplog.text
    bus.put("payloads", 0, 0, message.rows, message.header)
    bus.go(1)
    assert bus.figure("bus_messages_missed_total", stream="payloads") == 50


def test_a_run_with_a_name_that_is_too_long_is_refused_in_endpoints(bus):
    bus.member._follow(Fetched("endpoints", 0, 0, 0, b"k", b"{}", [("run", b"x" * 300)]))
    assert bus.figure("bus_messages_refused_total", stream="endpoints", reason="header") == 1
    bus.member._follow(Fetched("endpoints", 0, 1, 0, b"k", None, []))


def test_an_exception_in_a_step_ends_it_with_nothing_written_of_it(bus, monkeypatch):
    bus.give(0)
    bus.capture(0)
    part = bus.member._parts[0]
    monkeypatch.setattr(type(part), "step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bus.member.turn()
    assert bus.state == []
    assert all(offset == 0 for offset in bus.committed.values())
    assert not bus.detector.guard.locked()


def test_the_collector_of_garbage_is_on_after_restoring(bus):
    bus.give(0)
    bus.capture(0)
    bus.go()
    bus.member.leave()
    other = Bus()
    other.state = bus.state
    other.give(0)
    assert gc.isenabled()
    assert other.member._parts[0].counts.restored == 1


def test_the_loop_tells_that_it_goes_on_while_it_restores(bus):
    before = bus.turned
    bus.give(0, 1, 2, 3)
    assert bus.turned >= before + 4

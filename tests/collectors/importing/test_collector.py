"""Values in, batches of ``flows`` out, with headers, clocks and counters."""

import json

from flowmessages import delimited, message
from prometheus_client import CollectorRegistry

from collectors import subscribers, wire
from collectors.importing.collector import Collector, Config
from collectors.importing.metrics import Metrics

SECOND = 10**9
NOW = 1_795_348_800 * SECOND
FLOW = {
    "src_addr": "198.51.100.7", "dst_addr": "51.15.2.3", "src_port": 40_000, "dst_port": 3333, "proto": 6,
    "bytes": 100, "packets": 2, "sampler_address": "192.0.2.1", "time_received_ns": NOW,
    "time_flow_start_ns": NOW - 90 * SECOND, "time_flow_end_ns": NOW - 30 * SECOND,
}  # fmt: skip


class Bed:
    def __init__(self, **settings):
        self.registry = CollectorRegistry()
        self.sent = []
        self.collector = Collector(
            Config(topic="flow-messages", **settings), subscribers.home(), 4,
            lambda *sent: self.sent.append(sent), Metrics(self.registry),
        )  # fmt: skip

    def feed(self, *values, at=NOW):
        self.collector.feed(list(values), [NOW] * len(values), at)

    def moved(self):
        prefix = "poolwatch_collector_import_"
        return {
            s.name.removeprefix(prefix) + "".join(f" {v}" for v in s.labels.values()): s.value
            for family in self.registry.collect()
            for s in family.samples
            if s.value and s.name.endswith("_total")
        }

    def rows(self):
        return [(part, rows) for _, part, rows, _ in self.sent if rows.num_rows]


def test_a_flow_goes_to_its_subscribers_partition_and_the_others_are_told_the_time():
    bed = Bed()
    bed.feed(delimited(message(**FLOW)))
    ((_, rows),) = bed.rows()
    assert wire.values(rows, "subscriber")[0][12:].tobytes() == bytes((198, 51, 100, 7))
    assert wire.values(rows, "source").tolist() == [20]
    assert wire.texts(rows, "collector") == ["import"]
    assert sorted(part for _, part, _, _ in bed.sent) == [0, 1, 2, 3]
    for _, _, _, header in bed.sent:
        (clock,) = header.clocks
        assert (clock.source, clock.newest_ns, clock.delay_ns) == ("import", NOW - 30 * SECOND, 150 * SECOND)
        assert (header.received_ns, header.collector) == (NOW, "import")


def test_poison_is_counted_and_the_rest_goes_on():
    bed = Bed()
    good = delimited(message(**FLOW))
    bed.feed(good, b"", b"x" * 10_000_000, b'{"no": "protobuf"}', None, good, b"text of no kind")
    bed.feed(delimited(message(**FLOW | {"src_addr": "203.0.113.1"})))
    bed.collector.finish()
    moved = bed.moved()
    assert moved == {
        "messages_total": 8, "bytes_total": moved["bytes_total"], "records_total": 3, "rows_total": 2,
        "not_home_total": 1, "batches_total": 8, "refused_total short": 2, "refused_total size": 1,
        "refused_total length": 2,
    }  # fmt: skip


def test_pmacct_is_read_alike():
    bed = Bed(form="pmacct")
    record = {"ip_src": "51.15.2.3", "ip_dst": "198.51.100.7", "bytes": 9, "peer_ip_src": "192.0.2.1"}
    record |= {"timestamp_start": NOW // SECOND - 1, "timestamp_end": NOW // SECOND}
    bed.feed(json.dumps(record).encode(), b"{")
    ((_, rows),) = bed.rows()
    assert wire.values(rows, "bytes").tolist() == [9]
    assert wire.values(rows, "t_first").tolist() == [NOW - SECOND]
    assert bed.moved()["refused_total format"] == 1


def test_few_values_wait_for_more_and_not_for_long():
    bed = Bed()
    bed.feed(at=NOW)
    bed.sent.clear()
    value = delimited(message(**FLOW))
    bed.feed(value, at=NOW + SECOND // 10)
    bed.feed(value, at=NOW + SECOND // 5)
    assert not bed.sent
    bed.feed(at=NOW + SECOND * 3 // 10)
    ((_, rows),) = bed.rows()
    assert rows.num_rows == 2
    assert len(bed.sent) == 1, "the time was told this second"


def test_a_record_that_is_too_long_to_be_true_holds_the_clock_back_for_a_while_and_no_more():
    bed = Bed(longest_record_s=600)

    def delay_s(at):
        bed.sent.clear()
        bed.feed(delimited(message(**FLOW)), at=at)
        bed.collector.flush(everywhere=True)
        return {h.clocks[0].delay_ns // SECOND for *_, h in bed.sent}

    assert delay_s(NOW) == {150}
    bed.feed(delimited(message(**FLOW | {"time_flow_start_ns": 1})), at=NOW + SECOND)
    assert delay_s(NOW + 2 * SECOND) == {660}
    assert delay_s(NOW + 700 * SECOND) == {660}
    assert delay_s(NOW + 1400 * SECOND) == {150}


def test_a_stamp_from_the_future_does_not_move_the_clock():
    bed = Bed()
    bed.feed(delimited(message(**FLOW | {"time_flow_end_ns": NOW * 2})))
    assert {h.clocks[0].newest_ns for *_, h in bed.sent} == {NOW}


def test_who_is_home_may_change():
    bed = Bed()
    bed.collector.rehome(subscribers.home(("51.15.2.0/24",)))
    bed.feed(delimited(message(**FLOW)))
    ((_, rows),) = bed.rows()
    assert wire.values(rows, "subscriber")[0][12:].tobytes() == bytes((51, 15, 2, 3))

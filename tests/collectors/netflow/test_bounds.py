"""What hostile or careless exporters may cost: sizes of tables, not of processes; and whom it never harms."""

import struct
from ipaddress import ip_address

import numpy as np

from collectors.netflow.datagrams import Block
from collectors.netflow.domains import DOMAIN
from collectors.reading import PADDING

PLAIN = ((8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 4), (2, 4), (22, 4), (21, 4))
HOUR = 3600
START = 1_700_000_000


def plain(first=1000):
    return ip_address("10.0.0.1").packed + ip_address("192.0.2.9").packed + struct.pack(
        ">HHBIIII", 1, 3333, 6, 1000, 10, first, first
    )  # fmt: skip


def sizes(collector):
    """How much the tables of a collector hold."""
    tables, known = collector._tables, collector._known
    return {
        "exporters": len(tables.exporters), "identities": len(tables.identities), "names": len(tables.names),
        "domains": len(tables.domains), "slots": len(tables.slots), "programs": len(tables.ops),
        "index": len(tables.index.keys), "templates": len(known._templates), "held": known.holding.bytes,
        "sets": known._sets_bytes, "octets": known._templates._octets, "told": len(collector._teller._names),
    }  # fmt: skip


def spray(make, payload, count, first=0, t=START + 1, every_ns=1000):
    """One datagram each from ``count`` addresses, as one block."""
    data = np.frombuffer(bytearray(payload + bytes(PADDING)), np.uint8)
    addresses = [bytes(10) + b"\xff\xff" + (0x0B000000 + first + i).to_bytes(4, "big") for i in range(count)]
    n = np.arange(count)
    return Block(
        data,
        np.zeros(count, np.int64),
        np.full(count, len(payload)),
        n,
        t * make.SECOND + n * every_ns,
        addresses,
    )


def seen(make, *payloads, t=START + 1):
    return make.gathered(*payloads, t=t * make.SECOND)


def test_a_million_forged_addresses_cost_no_more_than_the_tables_and_harm_nobody_who_was_there(make):
    told, data = make.v9(make.template(256, PLAIN)), make.v9(make.data_set(256, plain()), sequence=1)
    forged = make.v9(make.template(256, PLAIN), domain=3)
    lists = [seen(make, told, data)]
    lists += [spray(make, forged, 50_000, n, START + 2 + n // 50_000) for n in range(0, 1_000_000, 50_000)]
    lists.append(seen(make, make.v9(make.data_set(256, plain()), sequence=2), t=START + 30))
    got = make.replay(lists, home=("10.0.0.0/8",), most_exporters=256)
    assert len(got.rows) == 2
    assert got.moved["strangers_total", "no_room"] == 1_000_000 - 255
    held = sizes(got.collector)
    assert held["exporters"] == held["identities"] == 256
    assert held["names"] <= 256
    assert held["templates"] <= 256
    assert held["domains"] <= 512
    assert held["index"] <= 4096
    series = [
        k for k in got.moved if len(k) > 1 and k[0] in ("exporter_heard_timestamp_seconds", "sampling_rate")
    ]
    assert len(series) <= 512
    lost = [k for k in got.moved if k[0] == "lost_total"]
    assert not lost


def test_listed_exporters_are_never_pushed_out_and_strangers_get_no_room(make):
    told = make.v9(make.template(256, PLAIN))
    forged = make.v9(make.template(256, PLAIN), make.template(257, PLAIN))
    lists = [
        seen(make, told),
        *(spray(make, forged, 2000, 2000 * h, START + 10 + h * HOUR) for h in range(0, 24, 2)),
    ]
    data = make.v9(make.data_set(256, plain()), sequence=1)
    lists.append(seen(make, data, t=START + 23 * HOUR))
    got = make.replay(lists, exporters=("192.0.2.1", "192.0.2.2"), most_exporters=1)
    assert len(got.rows) == 1, "silent for most of a day, and still known"
    assert sizes(got.collector)["exporters"] == 1
    assert got.moved["strangers_total", "not_listed"] == 12 * 2000


def test_forgers_that_never_told_of_a_flow_give_way_to_a_newcomer(make):
    forged = make.v9(make.template(256, PLAIN))
    newcomer = make.v9(make.template(256, PLAIN), make.data_set(256, plain()))
    early, late = seen(make, newcomer, t=START + 2), seen(make, newcomer, t=START + 90)
    lists = [spray(make, forged, 100), early, late]
    got = make.replay(lists, most_exporters=100)
    assert len(got.rows) == 1
    assert got.moved["strangers_total", "no_room"] == 1


def test_domains_of_one_exporter_are_bounded_and_the_silent_ones_give_way(make):
    flood = [
        seen(make, *(make.v9(domain=n, sequence=n) for n in range(i, i + 500))) for i in range(0, 5000, 500)
    ]
    other = make.gathered(
        make.v9(make.template(256, PLAIN), make.data_set(256, plain())), exporter=make.sixteen("192.0.2.7"),
        t=(START + 2) * make.SECOND,
    )  # fmt: skip
    late = seen(make, make.v9(make.template(256, PLAIN), make.data_set(256, plain()), domain=9999),
                t=START + 2 * HOUR)  # fmt: skip
    got = make.replay([*flood, other, late], most_domains=300, most_domains_of_exporter=100)
    assert len(got.rows) == 2
    assert sizes(got.collector)["names"] <= 101
    assert got.moved["strangers_total", "no_room"] == 5000 - 100


def test_forged_domains_give_way_to_a_real_one_and_not_those_that_send_data(make):
    real = [make.v9(make.template(256, PLAIN), make.data_set(256, plain()), domain=n) for n in range(3)]
    forged = [[make.v9(domain=100 + n, sequence=n) for n in range(i, i + 100)] for i in range(0, 1000, 100)]
    flood = [seen(make, *some, t=START + 2 + i) for i, some in enumerate(forged)]
    newcomer = make.v9(make.template(256, PLAIN), make.data_set(256, plain()), domain=50)
    again = [make.v9(make.data_set(256, plain()), domain=n, sequence=1) for n in (0, 1, 2, 50)]
    got = make.replay(
        [seen(make, *real), *flood, seen(make, newcomer, t=START + 30), seen(make, *again, t=START + 600)],
        most_domains_of_exporter=20,
    )
    assert len(got.rows) == 3 + 1 + 4
    assert sizes(got.collector)["names"] <= 20


def test_ports_of_one_address_are_bounded_and_the_silent_ones_give_way(make):
    told = make.v9(make.template(256, PLAIN), make.data_set(256, plain()))
    data = make.v9(make.data_set(256, plain()), sequence=1)

    def of(port, payload, second):
        return [d._replace(port=port) for d in seen(make, payload, t=START + second)]

    flood = [of(2000 + n, make.v9(), 2 + n // 100) for n in range(3000)]
    other = make.gathered(told, exporter=make.sixteen("192.0.2.9"), t=(START + 40) * make.SECOND)
    got = make.replay(
        [of(1000, told, 1), *flood, other, of(1001, told, 55), of(1000, data, 60), of(1001, data, 61)],
        port_is_identity=True, most_ports_of_address=8, most_exporters=16,
    )  # fmt: skip
    assert len(got.rows) == 5
    assert sizes(got.collector)["exporters"] <= 9
    tables = got.collector._tables
    assert {len(numbers) for numbers in tables._ports.values()} == {8, 1}
    assert set(tables.identities) == set(tables.exporters.values()) == set(tables._spoke)


def test_a_flood_of_templates_from_one_exporter_pays_for_itself(make):
    good = make.gathered(
        make.v9(make.template(256, PLAIN), make.data_set(256, plain())), exporter=make.sixteen("192.0.2.7")
    )
    wide = [
        seen(make, *(make.v9(make.template(256 + (n % 60_000), ((96, 4),) * 500), domain=n % 7)
                     for n in range(i, i + 50)))
        for i in range(0, 2000, 50)
    ]  # fmt: skip
    again = make.gathered(
        make.v9(make.data_set(256, plain()), sequence=1), exporter=make.sixteen("192.0.2.7"),
        t=(START + 9) * make.SECOND,
    )  # fmt: skip
    got = make.replay(
        [good, *wide, again], most_template_bytes=200_000, most_template_bytes_of_exporter=100_000
    )
    assert len(got.rows) == 2
    held = sizes(got.collector)
    assert held["octets"] <= 100_000 + 100
    assert held["templates"] <= 51
    assert held["slots"] <= 2048, "slots that are left are used again"
    assert held["programs"] <= 2048
    assert held["sets"] <= (1 << 20) + 2048


def test_a_flood_of_templates_from_many_exporters_spares_those_that_data_use(make):
    good = make.gathered(
        *(make.v9(make.template(n, PLAIN), make.data_set(n, plain()), sequence=n - 256) for n in (256, 257)),
        exporter=make.sixteen("192.0.2.7"),
    )
    forged = make.v9(*(make.template(n, PLAIN) for n in range(256, 276)))
    again = make.gathered(
        make.v9(make.data_set(256, plain()), make.data_set(257, plain()), sequence=2),
        exporter=make.sixteen("192.0.2.7"), t=(START + 9) * make.SECOND,
    )  # fmt: skip
    got = make.replay([good, spray(make, forged, 2000), again], most_templates=500)
    assert len(got.rows) == 4
    assert sizes(got.collector)["templates"] <= 500
    assert got.moved["template_events_total", "evicted"] > 0


def test_a_flood_of_data_without_a_template_is_held_within_bounds(make):
    good = make.gathered(
        make.v9(make.template(256, PLAIN), make.data_set(256, plain())), exporter=make.sixteen("192.0.2.7")
    )
    flood = tuple(make.v9(make.data_set(300 + k, bytes(1200))) for k in range(50))
    lists = [good]
    lists += [
        make.gathered(*flood, exporter=make.sixteen(f"192.0.2.{10 + n}"), t=(START + 2 + i) * make.SECOND)
        for i in range(20)
        for n in range(10)
    ]
    lists.append(make.gathered(
        make.v9(make.data_set(256, plain()), sequence=1), exporter=make.sixteen("192.0.2.7"),
        t=(START + 60) * make.SECOND,
    ))  # fmt: skip
    got = make.replay(lists, held_bytes=1 << 20)
    assert len(got.rows) == 2
    assert sizes(got.collector)["held"] <= 1 << 20
    assert got.moved["held_total",] + got.moved["dropped_total", "bytes"] == 20 * 10 * 50
    told = sum(n for k, n in got.moved.items() if k[0] == "domain_dropped_total")
    assert told == got.moved["dropped_total", "bytes"]


def test_a_day_in_one_replay_leaves_nothing_behind(make):
    lists = []
    for hour in range(25):
        t = START + hour * HOUR
        lists.append(seen(make, make.v9(make.template(256, PLAIN), make.data_set(256, plain())), t=t))
        lists.append(spray(make, make.v9(make.template(256, PLAIN)), 300, 300 * hour, t + 1))
        lists.append(spray(make, make.v9(make.data_set(999, bytes(60))), 300, 300 * hour, t + 2))
    got = make.replay(lists, most_exporters=400)
    held = sizes(got.collector)
    assert len(got.rows) == 25
    assert held["exporters"] <= 400
    assert held["templates"] <= 400
    assert held["told"] == held["names"] <= 400
    assert held["domains"] <= 512
    assert held["slots"] <= 1024
    assert held["index"] <= 8192
    assert held["held"] <= 400 * (64 + 8 * DOMAIN + 400)
    series = [k for k in got.moved if k[0] == "exporter_heard_timestamp_seconds"]
    assert len(series) <= 400

"""Whose template it is, how long it is kept, and how it outlives a restart."""

import json
import struct
from base64 import b64encode
from ipaddress import ip_address
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from collectors import subscribers
from collectors.errors import DecodeError, Reason
from collectors.netflow import collector as netflow
from collectors.netflow.metrics import Metrics
from collectors.netflow.templates import Bounds, Field, Key, Template, Templates
from collectors.netflow.templatesfile import TemplatesFile

FIELDS = ((8, 4), (12, 4), (7, 2), (1, 4), (2, 4))
FLOW = ip_address("10.0.0.1").packed + ip_address("192.0.2.9").packed + struct.pack(">HII", 7, 1000, 10)
HOUR = 3600


def started(**config):
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    rows = []
    made = netflow.Collector(
        netflow.Config(**config), subscribers.home(("0.0.0.0/0",)), 1,
        lambda _s, _p, batch, _h: rows.extend(r for r in batch.to_pylist() if not r["copy"]), metrics,
    )  # fmt: skip
    return SimpleNamespace(collector=made, metrics=metrics, registry=registry, rows=rows)


def events(made):
    found = {}
    for event in ("read", "refused", "written", "failed"):
        value = made.registry.get_sample_value(
            "poolwatch_collector_netflow_templates_file_total", {"event": event}
        )
        if value:
            found[event] = int(value)
    return found


def test_the_port_is_no_part_of_who_an_exporter_is_unless_configured(make):
    told, data = make.v9(make.template(256, FIELDS)), make.v9(make.data_set(256, FLOW), sequence=1)
    two = make.gathered(told, data)
    two[1] = two[1]._replace(port=50000)
    assert len(make.replay([two]).rows) == 1
    apart = make.replay([two], port_is_identity=True)
    assert not apart.rows
    assert apart.moved["exporters",] == 2
    same = make.replay([make.gathered(told, data)], port_is_identity=True, exporters=("192.0.2.1",))
    assert len(same.rows) == 1
    assert ("exporter_heard_timestamp_seconds", "192.0.2.1 port 40000") in same.moved
    again = make.replay([make.gathered(data)], port_is_identity=True, saved=same.collector.saved())
    assert len(again.rows) == 1


def test_a_template_that_data_use_does_not_age_and_one_that_nobody_speaks_of_does(make):
    def at(hours, *payloads):
        return make.gathered(*payloads, t=(1_700_000_000 + hours * HOUR) * make.SECOND)

    told, data = make.v9(make.template(256, FIELDS)), make.v9(make.data_set(256, FLOW))
    lists = [at(0, told), *(at(h, data) for h in range(1, 40)), at(70, b"\0\5"), at(71, data)]
    got = make.replay(lists)
    assert len(got.rows) == 39
    assert got.moved["template_events_total", "aged"] == 1
    assert got.moved["held_total",] == 1
    assert got.moved["held_bytes",] > 0


def test_the_age_of_what_waits_is_shown_and_what_is_dropped_is_told_by_domain(make):
    data = make.v9(make.data_set(256, FLOW))
    early = make.gathered(data, t=1_700_000_000 * make.SECOND)
    late = make.gathered(b"\0\5", t=1_700_000_100 * make.SECOND)
    assert make.replay([early, late]).moved["held_oldest_seconds",] == 100
    gone = make.gathered(b"\0\5", t=1_700_003_000 * make.SECOND)
    moved = make.replay([early, late, gone]).moved
    assert moved["domain_dropped_total", "192.0.2.1", "7"] == moved["dropped_total", "age"] == 1
    assert ("held_oldest_seconds",) not in moved


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(256, 270), st.integers(1, 60)), max_size=80))
def test_the_table_keeps_its_bounds_whoever_speaks(heard):
    bounds = Bounds(most=20, most_of_exporter=8, most_octets=1200, most_octets_of_exporter=500)
    kept = Templates(bounds)
    for t, (exporter, number, fields) in enumerate(heard):
        raw = struct.pack(">HH", number, fields) + bytes(4 * fields)
        told = Template(9, number, (Field(1, 4),) * fields, raw=raw)
        kept.hear(Key(bytes([exporter]) * 16, 9, 0, number), told, t)
        of = [sum(len(k.template.raw) for key, k in kept if key.exporter[0] == e) for e in range(4)]
        assert len(kept) == sum(1 for _ in kept) <= bounds.most
        assert sum(of) <= bounds.most_octets
        assert max(of) <= bounds.most_octets_of_exporter


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(256, 290), st.booleans(), st.integers(0, 900)),
                max_size=100))  # fmt: skip
def test_what_data_used_of_late_never_gives_way(heard):
    bounds = Bounds(most=12, most_of_exporter=5)
    kept, used, now = Templates(bounds), {}, 0
    for exporter, number, with_data, passed_s in heard:
        now += passed_s * 10**9
        key = Key(bytes([exporter]) * 16, 9, 0, number)
        kept.hear(key, Template(9, number, (Field(1, 4),), raw=struct.pack(">HHHH", number, 1, 1, 4)), now)
        if with_data and kept.find(key):
            kept.touch(key, now)
            used[key] = now
        for each, t in used.items():
            assert kept.find(each) is not None or now - t > bounds.keep_ns
        used = {each: t for each, t in used.items() if now - t <= bounds.keep_ns}


def test_a_newcomer_is_refused_while_data_use_all_and_let_in_when_some_have_aged():
    kept = Templates(Bounds(most_of_exporter=4))
    keys = [Key(bytes(16), 9, 0, n) for n in range(256, 266)]
    for key in keys[:4]:
        kept.hear(key, Template(9, key.id, (Field(1, 4),), raw=b"x"), 1)
        kept.touch(key, 1)
    assert kept.hear(keys[5], Template(9, 261, (Field(1, 4),), raw=b"x"), 10**9) == (False, [])
    assert kept.refused == 1
    late = 1 + 1801 * 10**9
    assert kept.hear(keys[5], Template(9, 261, (Field(1, 4),), raw=b"x"), late) == (True, [keys[0]])


def test_a_file_brings_templates_and_rates_over_a_restart(make, tmp_path):
    file = str(tmp_path / "templates.json")
    options = make.template(401, ((1, 4), (34, 4)), scopes=1), make.data_set(401, struct.pack(">II", 0, 50))
    before = started()
    with TemplatesFile(file, before.collector, before.metrics):
        before.collector.feed(make.gathered(make.v9(make.template(256, FIELDS), *options)))
        before.collector.finish()
    assert events(before) == {"written": 1}
    after = started()
    with TemplatesFile(file, after.collector, after.metrics):
        after.collector.feed(make.gathered(make.v9(make.data_set(256, FLOW))))
        after.collector.finish()
    assert [row["sampling_rate"] for row in after.rows] == [50]
    assert events(after) == {"read": 1, "written": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["templates.json"]


def test_the_file_is_written_when_something_changed_and_it_is_time(make, tmp_path):
    file, now = tmp_path / "templates.json", [0.0]
    made = started()
    kept = TemplatesFile(str(file), made.collector, made.metrics, 60, lambda: now[0])
    with kept:
        now[0] = 100
        kept.turn()
        assert not file.exists(), "nothing was learned"
        made.collector.feed(make.gathered(make.v9(make.template(256, FIELDS))))
        made.collector.finish()
        kept.turn()
        assert events(made) == {"written": 1}
        now[0] = 140
        made.collector.feed(make.gathered(make.v9(make.template(257, FIELDS))))
        made.collector.finish()
        kept.turn()
        assert len(json.loads(file.read_bytes())["templates"]) == 1, "a minute has not gone by"
        now[0] = 161
        kept.turn()
        assert len(json.loads(file.read_bytes())["templates"]) == 2
        now[0] = 161 + 3601
        kept.turn()
        assert events(made) == {"written": 3}, "times go on, though nothing changed"


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[]", b"{}", b'{"version":2,"templates":[],"domains":[]}', b"[" * 100_000,
     b'{"version":1,"templates":[{"exporter":"AA==","version":9,"domain":0,"options":false,"raw":"","t_ns":0}],'
     b'"domains":[]}'],
    ids=["empty", "octets", "list", "object", "version", "deep", "exporter"],
)  # fmt: skip
def test_a_broken_or_foreign_file_is_refused_and_the_start_goes_on(content, make, tmp_path, caplog):
    file = tmp_path / "templates.json"
    file.write_bytes(content)
    made = started()
    with TemplatesFile(str(file), made.collector, made.metrics):
        assert events(made) == {"refused": 1}
        assert "templates file refused" in caplog.text
        made.collector.feed(make.gathered(make.v9(make.template(256, FIELDS))))
        made.collector.finish()
    assert len(json.loads(file.read_bytes())["templates"]) == 1, "it is written anew"


def test_a_file_that_cannot_be_read_or_written_stops_nobody(tmp_path):
    made = started()
    with TemplatesFile(str(tmp_path / "none" / "templates.json"), made.collector, made.metrics):
        pass
    assert events(made) == {"failed": 1}
    folder = tmp_path / "templates.json"
    folder.mkdir()
    made = started()
    with TemplatesFile(str(folder), made.collector, made.metrics):
        pass
    assert events(made) == {"refused": 1, "failed": 1}


def test_workers_write_a_file_each_and_read_them_all(make, tmp_path):
    for worker, exporter in ((0, "192.0.2.1"), (1, "192.0.2.2")):
        made = started()
        with TemplatesFile(str(tmp_path / f"templates.json-{worker}"), made.collector, made.metrics):
            told = make.gathered(make.v9(make.template(256, FIELDS)), exporter=make.sixteen(exporter))
            made.collector.feed(told)
            made.collector.finish()
    (tmp_path / "templates.json-old").write_bytes(b"not ours")
    for path in ("templates.json-1", "templates.json-7", "templates.json"):
        made = started()
        with TemplatesFile(str(tmp_path / path), made.collector, made.metrics):
            assert events(made)["read"] >= 2
            assert "refused" not in events(made)
            for exporter in ("192.0.2.1", "192.0.2.2"):
                data = make.gathered(make.v9(make.data_set(256, FLOW)), exporter=make.sixteen(exporter))
                made.collector.feed(data)
            made.collector.finish()
        assert len(made.rows) == 2, path


@given(st.binary(max_size=300))
def test_any_bytes_are_restored_or_refused(saved):
    made = started()
    with pytest.raises(DecodeError) as error:
        made.collector.restore(saved)
    assert error.value.reason in (Reason.CORRUPT, Reason.FORMAT, Reason.VERSION)


@given(
    version=st.integers(0, 20),
    raw=st.binary(max_size=60),
    exporter=st.binary(min_size=15, max_size=19),
    samplers=st.dictionaries(st.integers(0, 2**63), st.integers(0, 2**63), max_size=3),
    boot=st.integers(),
)
def test_any_saved_state_is_restored_or_refused_whole(version, raw, exporter, samplers, boot):
    named = b64encode(exporter).decode()
    state = {
        "version": 1,
        "templates": [{"exporter": named, "version": version, "domain": 1, "options": False, "t_ns": 5,
                       "raw": b64encode(raw).decode()}],
        "domains": [{"exporter": named, "version": version, "domain": 1, "rate": 5, "samplers": samplers,
                     "boot_ms": boot}],
    }  # fmt: skip
    made = started()
    try:
        made.collector.restore(json.dumps(state).encode())
    except DecodeError:
        assert json.loads(made.collector.saved())["templates"] == []
    made.collector.finish()

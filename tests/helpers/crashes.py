"""An engine that dies and comes back: what it wrote goes into dicts, as compacted topics hold it."""

from functools import cache
from pathlib import Path

import msgspec
from flowrows import HOUR, SECOND, flows, names
from prometheus_client import CollectorRegistry

from collectors import wire
from collectors.bus import Message
from collectors.packet import pcapfile
from collectors.packet.collector import Collector, Config, Metrics
from collectors.subscribers import home
from collectors.wire import Clock, Header
from detector.endpoints import LEARNED, REFUTED, Entry
from detector.engine import Config as EngineConfig
from detector.engine import Engine, Knowledge
from detector.learner import Config as LearnerConfig
from detector.observers.names import Config as NameConfig
from detector.pools import Pools, read
from detector.state import decode, decode_whole, encode, encode_whole

ROOT = Path(__file__).parent.parent.parent
TABLE = """operator,domain,match,ports,coins,tls_ports,kind,status,fp_risk,source,basis
LabPool,203.0.113.15,exact,3354,LTC,,pool,active,low,lab,own
FlowPool,51.15.2.3,exact,3333,XMR,,pool,active,low,lab,own
NamePool,pool.supportxmr.com,exact,3333,XMR,443,pool,active,low,lab,own
"""
CONFIG = EngineConfig(
    learner=LearnerConfig(routable=("203.0.113.0/24",)), names=NameConfig(resolvers=("192.0.2.53",))
)


@cache
def knowledge():
    return Knowledge(pools=Pools(read(TABLE.splitlines(), "crashes")))


def engine(durable=True):
    return Engine(CONFIG, knowledge=knowledge(), durable=durable)


# -- messages ------------------------------------------------------------------------------------------


@cache
def captured(path):
    """The messages that one capture becomes."""
    out = []
    config = Config(id=path)
    collector = Collector(config, home(), 1, lambda *m: out.append(Message(*m)), Metrics(CollectorRegistry()))
    with (ROOT / path).open("rb") as file:
        for block in pcapfile.blocks(file):
            collector.feed(block)
    collector.finish()
    return tuple(out)


def said(stream, rows, at_ns, number=0):
    """A message of a collector that is on time."""
    clock = Clock("tap1", at_ns, 5 * SECOND)
    header = Header(
        version=1, collector="tap1", number=number, rows=rows.num_rows, t_first_ns=at_ns, t_last_ns=at_ns,
        received_ns=at_ns, home="home", clocks=(clock,),
    )  # fmt: skip
    return Message(stream, 0, rows, header)


def silence(from_ns, until_ns, every_ns):
    """Time goes by."""
    return [said("flows", wire.empty("flows"), at) for at in range(from_ns, until_ns, every_ns)]


def visits(start_ns, hours):
    """Export rows of three subscribers at listed, resolved and learned endpoints, twice from two exporters;
    names, and an answer that makes an endpoint."""
    resolved = "51.15.2.9"
    out = [said("names", names({"t": start_ns, "kind": 0, "address": resolved}), start_ns)]
    for hour in range(hours):
        at = start_ns + hour * HOUR
        row = {"t_first": at, "t_last": at + 600 * SECOND, "source": 9, "exporter": "192.0.2.1",
               "t_received": at + 660 * SECOND}  # fmt: skip
        one = row | {"packets": 60, "bytes": 6000}
        two = one | {"exporter": "192.0.2.2", "sampling_rate": 10, "packets": 6, "bytes": 600}
        other = one | {"subscriber": "198.51.100.80", "src": "198.51.100.80", "dst": resolved}
        third = one | {"subscriber": "198.51.101.9", "src": "198.51.101.9", "dst": "203.0.113.11"}
        fleeting = one | {"subscriber": "198.51.100.90", "src": "198.51.100.90"}
        later = at + 660 * SECOND
        out.append(said("flows", flows(one, two, other, third, *([fleeting] if hour == 0 else [])), later))
        out.append(said("flows", flows(two, two | {"exporter": "192.0.2.3"}), later + SECOND))
        name = {"t": later, "kind": 1, "port": 3333, "protocol": 6}
        out.append(said("names", names(name, name, name | {"subscriber": "198.51.100.80"}), later + SECOND))
    return out


# -- crashes -------------------------------------------------------------------------------------------


class Topics:
    """State records, the whole's, and endpoints, each the latest of its key."""

    def __init__(self):
        self.records, self.whole, self.endpoints = {}, None, {}

    def write(self, engine):
        """One checkpoint.  The subscribers whose records were written."""
        changed = engine.changed_subscribers()
        for subscriber in changed:
            state = engine.state(subscriber)
            if state is None:
                self.records.pop(subscriber, None)
            else:
                self.records[subscriber] = encode(state)
        self.whole = encode_whole(engine.whole())
        for entry in engine.endpoint_changes():
            key = entry.address, entry.port, entry.protocol
            if entry.origin == REFUTED:
                self.endpoints.pop((key, LEARNED), None)
            self.endpoints.pop((key, entry.origin), None)
            self.endpoints[key, entry.origin] = msgspec.json.encode(entry)
        return changed

    def read(self):
        """A fresh engine, restored."""
        made = engine()
        made.index.restore([msgspec.json.decode(e, type=Entry) for e in self.endpoints.values()])
        for subscriber, record in self.records.items():
            made.restore(subscriber, decode(record))
        made.resume(decode_whole(self.whole))
        return made


def kept(engine):
    """The records of all of whom anything is kept, found without asking what changed."""
    tables = (
        engine.payload._books, engine.shape._books, engine.meter._of, engine.judge.store.records,
        engine.judge.store._resolved_of, engine.endpoints.told._of, engine.shape.told._of,
        engine.names.told._of,
    )  # fmt: skip
    states = {s: engine.state(s) for s in {s for table in tables for s in table}}
    return {s: encode(state) for s, state in states.items() if state is not None}


class Life:
    """What a run told: alerts and minutes."""

    def __init__(self):
        self.alerts, self.gained, self.by_place, self.minutes = [], {}, {}, []

    def hear(self, told):
        self.alerts += told.transitions
        for minute in told.minutes:
            self.minutes.append((minute.number, dict(minute.bytes)))
            for total, more in ((self.gained, minute.gained), (self.by_place, minute.gained_by_place)):
                for key, value in more.items():
                    total[key] = total.get(key, 0) + value

    def all(self, engine):
        documents = sorted(engine.documents(), key=lambda d: (d.subscriber, d.id))
        alerts = sorted(self.alerts, key=lambda a: (a.id, a.at))
        return documents, alerts, self.gained, self.by_place, self.minutes


def lived(messages, cuts=(), check=lambda *_: None):
    """Documents, alerts and minutes of an engine that died before the messages ``cuts`` and came back.
    ``check`` is given (the engine that died, its topics, the one that came back)."""
    topics, life, running = Topics(), Life(), engine()
    for n, message in enumerate(messages):
        if n in cuts:
            topics.write(running)
            died, running = running, topics.read()
            check(died, topics, running)
        life.hear(running.step(message))
        running.judge.changed(everything=True)
    life.hear(running.finish())
    return life.all(running)

"""Composition root of ``poolwatch detect``: configuration in, a member of the group of detectors out."""

import argparse
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Final

import msgspec

from collectors.kafka import clients, topics
from collectors.kafka.reader import GroupReader, TopicReader
from collectors.kafka.sender import Sender
from collectors.streams import STREAMS
from detector import app, campaigncli
from detector.config import Config
from detector.detect import Detecting, Metrics
from detector.document import Incident, Transition
from detector.endpoints import Endpoints
from detector.errors import ConfigError
from detector.exporters.campaigns import Linking
from detector.exporters.kafka import Records
from detector.following import Caps, Fits, Following
from detector.indexes import LIVE, Indexes
from detector.intake import INPUTS
from detector.paging import Beside, sinks
from detector.parts import Record
from detector.writing import Writer

OUTPUTS: Final = ("alerts", "incidents", "endpoints", "state")
# A partition's share of a fetch; a larger message comes all the same (KIP-74).
FETCH_BYTES: Final = 2 << 20
FETCH_ALL_BYTES: Final = 32 << 20
# How long a cycle may take before the group gives our partitions to others.
CYCLE_MS: Final = 120_000


def serve(
    config: Config,
    options: argparse.Namespace,
    say: Callable[[str], None],
    on_stop: Callable[[Callable[[], None]], None],
) -> int:
    """Judge what is on the bus until told to stop; the exit status.

    Raises ConfigError where the bus is not Kafka or its topics do not fit, InputError where it is not there.
    """
    if config.bus != "kafka":
        raise ConfigError('detect reads Kafka: set bus = "kafka" (with the embedded bus, use poolwatch run)')
    if options.listen:
        http = msgspec.structs.replace(config.http, listen=options.listen)
        config = msgspec.structs.replace(config, http=http)
    stop = threading.Event()
    on_stop(stop.set)
    service = app.Service(config)
    service.reloads.listen()
    sender = Sender(
        config.kafka, service.registry, streams=OUTPUTS, role="detector_output", stopped=stop.is_set
    )
    with clients.admin(config.kafka, "poolwatch-detector") as admin:
        partitions = topics.check(admin, config.kafka)
    with ExitStack() as stack:
        stack.enter_context(sender)
        stack.enter_context(service)
        member = build(service, sender, partitions, say)
        open_readers(member, config, stack, partitions)
        others = Others(config, stack, partitions, service.campaigns)
        say(f"detecting; metrics on http://{config.http.listen}/metrics; Ctrl-C ends it")
        while not stop.is_set():
            member.turn()
            others.turn()
            sender.alive()
            service.reloads.turn()
        service.is_ready = False
        service.notify.stopping()
        member.stop()
    say(f"stopped; {sender.told()}")
    return 0


class Others:
    """Incidents of all detectors, ours too, as the topic tells them: one wallet is spread over partitions."""

    def __init__(self, config: Config, stack: ExitStack, partitions: int, campaigns: Linking) -> None:
        """Begins with what the topic holds; nothing waits for it."""
        kafka = config.kafka
        consumer = clients.consumer(kafka, "poolwatch-incidents", fetch_max_bytes=FETCH_BYTES)
        self._reader = TopicReader(consumer, "incidents", topics.topic(kafka, "incidents"))
        stack.callback(self._reader.close)
        self._reader.begin(range(partitions))
        self._campaigns = campaigns

    def turn(self) -> None:
        """Take what has come; a document that cannot be read is counted."""
        for fetched in filter(campaigncli.is_live, self._reader.more()):
            document = campaigncli.read(fetched.value or b"")
            if document is None:
                self._campaigns.unreadable()
            else:
                self._campaigns.incident(document)


class Lines:
    """Tells each transition on a terminal, for whoever started the detector by hand."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def alert(self, made: Transition) -> None:
        """Say one transition."""
        self._say(f"{made.at} {made.to}: {made.summary}")

    def incident(self, document: Incident) -> None:
        """Documents are not shown."""


def build(service: app.Service, sender: Sender, partitions: int, say: Callable[[str], None]) -> Detecting:
    """A member that has opened nothing."""
    detector = service.detector
    records = Records(sender.send_json, partitions)
    member: Detecting

    def commit(offsets: Mapping[tuple[str, int], int]) -> None:
        member.commit(offsets)

    def send(partition: int, record: Record) -> clients.Future:
        return sender.send_json("state", partition, record.key, record.value)

    def wait(futures: list, timeout_s: float) -> None:
        sender.wait(futures, timeout_s)

    writer = Writer(send, records.pending, wait, commit, detector.config.kafka.state_write_ms / 1000)
    lines = Lines(say) if sys.stderr.isatty() else None
    also = Beside(sinks(service.files, lines), service.paging)

    def turned() -> None:
        service.loop_turned = time.monotonic()
        service.is_ready = member.is_ready

    indexes = Indexes(detector.endpoints, _following(detector))
    detector.totals.shared_index = indexes.of(LIVE)
    member = Detecting(detector, Metrics(service.registry), records, writer, indexes, also, turned)
    return member


def _following(detector: app.Detector) -> Callable[[Endpoints], Following]:
    """What joins an index to the bus.  What it asks of an entry is made once: that takes 15 ms."""
    config, known = detector.config.detector, detector.knowledge
    fits = Fits(known.shared, known.is_home, detector.pools.pool_ports, config.resolutions, config.learner)
    detector.relisted.append(lambda: fits.relist(detector.pools.pool_ports))
    return partial(Following, fits=fits, caps=Caps.of(config.resolutions, config.learner))


def open_readers(member: Detecting, config: Config, stack: ExitStack, partitions: int) -> None:
    """Open what the member reads with, and read all endpoints that are known."""
    kafka = config.kafka
    name = {stream: topics.topic(kafka, stream) for stream in STREAMS}
    whole = {}
    for stream in ("state", "endpoints"):
        consumer = clients.consumer(kafka, f"poolwatch-{stream}", fetch_max_bytes=FETCH_ALL_BYTES)
        whole[stream] = TopicReader(consumer, stream, name[stream])
        stack.callback(whole[stream].close)
    group = clients.consumer(
        kafka, "poolwatch-detector", group_id=kafka.group, max_poll_interval_ms=CYCLE_MS,
        max_partition_fetch_bytes=FETCH_BYTES, fetch_max_bytes=FETCH_ALL_BYTES,
    )  # fmt: skip
    reader = GroupReader(group, {s: name[s] for s in INPUTS}, member.leave, member.lose)
    stack.callback(reader.abandon)
    member.begin(reader, whole["state"], whole["endpoints"], partitions)

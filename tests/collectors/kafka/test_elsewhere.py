"""What sends to a topic of others', before a producer that answers when it is told to."""

import pytest
from prometheus_client import CollectorRegistry

from collectors.errors import ConfigError
from collectors.kafka import clients, packing, topics
from collectors.kafka.config import LEAST_IN_FLIGHT, Config
from collectors.kafka.elsewhere import Elsewhere
from collectors.kafka.sender import Metrics


class Producer:
    def __init__(self):
        self.sent = []

    def send(self, topic, **given):
        self.sent.append((topic, given, clients.Future()))
        return self.sent[-1][2]


@pytest.fixture
def made():
    registry = CollectorRegistry()
    metrics = Metrics(registry, ("flows",))
    out = Elsewhere(Config(), "flow-messages", "goflow2", metrics, in_flight_bytes=LEAST_IN_FLIGHT)
    out._producer = Producer()

    def value(name, **labels):
        return registry.get_sample_value(f"poolwatch_collector_bus_{name}", {"stream": "goflow2", **labels})

    return out, out._producer, value


def test_its_series_are_there_before_its_first_event_and_its_messages_are_counted_as_what_they_are(made):
    out, producer, value = made
    assert value("messages_total") == value("refused_total") == 0
    out.send_laid(2, memoryview(b"three records"), 3, 12, blocking=False)
    ((topic, given, future),) = producer.sent
    assert (topic, given["partition"], given["key"]) == ("flow-messages", 2, None)
    assert packing.records(given["headers"]) == 3
    future.success("told")
    assert (value("messages_total"), value("rows_total"), value("bytes_total")) == (3, 12, 13)
    assert (out.delivered, out.rows, out.lost) == (3, 12, 0)


def test_what_finds_no_room_or_is_refused_is_counted_message_by_message(made):
    out, producer, value = made
    large = memoryview(bytes(LEAST_IN_FLIGHT - 2000))
    out.send_laid(0, large, 100, 100, blocking=False)
    assert out.send_laid(0, large, 40, 80, blocking=False).failed()
    assert (value("refused_total"), out.refused) == (40, 40)
    producer.sent[0][2].failure(clients.errors.TopicAuthorizationFailedError("flow-messages"))
    assert (value("failed_total", reason="denied"), out.lost) == (100, 140)


class Admin:
    """Describes one topic of three partitions; its settings, or an error."""

    def __init__(self, settings):
        self.settings = settings

    def describe_topics(self, names):
        known = {"error_code": 0, "partitions": [{}, {}, {}]}
        return [{"name": n} | (known if n == "flow-messages" else {"error_code": 3}) for n in names]

    def describe_configs(self, _asked, config_filter):
        assert config_filter == "all"
        if isinstance(self.settings, Exception):
            raise self.settings
        return {"topic": {"flow-messages": self.settings}}


def test_a_topic_tells_its_partitions_and_how_large_a_batch_may_be_where_it_may_be_asked():
    told = {"max.message.bytes": {"value": "300000"}}
    assert topics.elsewhere(Admin(told), "flow-messages") == (3, 300_000)
    denied = clients.errors.TopicAuthorizationFailedError()
    assert topics.elsewhere(Admin(denied), "flow-messages") == (3, topics.USUAL_BYTES)
    with pytest.raises(ConfigError, match="there is no topic flow-massages"):
        topics.elsewhere(Admin(told), "flow-massages")

"""What readers do while brokers are away, or refuse us."""

import pytest

from collectors.errors import InputError
from collectors.kafka.clients import errors
from collectors.kafka.reader import GroupReader, TopicReader


class Consumer:
    """Raises what it is given, one with each call, then answers."""

    def __init__(self, *raised):
        self.raised = list(raised)

    def _answer(self, answer):
        if self.raised:
            raise self.raised.pop(0)
        return answer

    def subscribe(self, topics, listener):
        pass

    def poll(self, timeout_ms, max_records):
        return self._answer({})

    def end_offsets(self, places):
        return self._answer(dict.fromkeys(places, 7))


def group(consumer):
    return GroupReader(consumer, {"flows": "flows.v1"}, lambda: None, lambda: None)


def test_brokers_that_are_away_say_nothing():
    consumer = Consumer(errors.KafkaConnectionError("refused"), errors.CoordinatorNotAvailableError())
    reader = group(consumer)
    assert [reader.poll(0, 1) for _ in range(3)] == [[], [], []]
    assert not consumer.raised


def test_brokers_that_refuse_us_end_it():
    with pytest.raises(InputError, match=r"the group's topics: .*GroupAuthorizationFailed"):
        group(Consumer(errors.GroupAuthorizationFailedError("detectors"))).poll(0, 1)


def test_ends_are_asked_for_again():
    reader = TopicReader(Consumer(errors.KafkaConnectionError("refused")), "state", "state.v1")
    assert reader.ends([3]) == {3: 7}
    with pytest.raises(InputError, match="TopicAuthorizationFailed"):
        TopicReader(Consumer(errors.TopicAuthorizationFailedError("no")), "state", "state.v1").ends([3])

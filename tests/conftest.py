"""Kafka for every test that asks for it: ``kafka`` is shared, ``brokers`` makes one's own."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import broker
import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"kafka", "kafka_distribution"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.kafka)


@pytest.fixture(scope="session")
def kafka_distribution() -> None:
    """Once a run: without a network Maven takes its time to say so."""
    try:
        broker.distribution()
    except broker.UnavailableError as problem:
        pytest.skip(f"no Kafka: {problem}")


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[broker.Broker | broker.Elsewhere]:
    """A broker for the whole run; only ``address`` may be used, and only topics under ``prefix``."""
    if address := os.environ.get("POOLWATCH_TEST_KAFKA"):
        yield broker.Elsewhere(address)
        return
    request.getfixturevalue("kafka_distribution")
    # Nobody kills this one, and a busy machine may keep it from its heartbeats for a while.
    with broker.Broker({"broker.session.timeout.ms": "30000"}) as running:
        yield running


@pytest.fixture
def brokers(kafka_distribution: None) -> Iterator[Callable[..., broker.Broker]]:
    """Make brokers to stop, kill or pause: ``brokers({"message.max.bytes": "9000"}, start=False)``."""
    with ExitStack() as stack:

        def make(properties: Mapping[str, str] | None = None, *, start: bool = True) -> broker.Broker:
            made = broker.Broker(properties)
            stack.callback(made.close)
            if start:
                made.start()
            return made

        yield make


@pytest.fixture
def prefix() -> str:
    """A beginning for names of topics and groups that no other test has."""
    return broker.prefix()

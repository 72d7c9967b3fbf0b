"""Kafka for every test that asks for it: ``kafka`` is shared, ``brokers`` makes one's own."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import broker
import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"kafka", "brokers"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.kafka)


def need_kafka() -> None:
    try:
        broker.distribution()
    except broker.UnavailableError as problem:
        pytest.skip(f"no Kafka: {problem}")


@pytest.fixture(scope="session")
def kafka() -> Iterator[broker.Broker | broker.Elsewhere]:
    """A broker for the whole run; only ``address`` may be used, and only topics under ``prefix``."""
    if address := os.environ.get("POOLWATCH_TEST_KAFKA"):
        yield broker.Elsewhere(address)
        return
    need_kafka()
    with broker.Broker() as running:
        yield running


@pytest.fixture
def brokers() -> Iterator[Callable[..., broker.Broker]]:
    """Make brokers to stop, kill or pause: ``brokers({"message.max.bytes": "9000"}, start=False)``."""
    need_kafka()
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

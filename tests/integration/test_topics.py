"""Topics on a real broker: made as specified, never changed, checked by name."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from collectors.errors import ConfigError, InputError
from collectors.kafka import clients, topics
from collectors.kafka.config import Config, Retention

POOLWATCH = Path(sys.executable).parent / "poolwatch"


@pytest.fixture
def config(kafka, prefix):
    return Config(bootstrap_servers=(kafka.address,), topic_prefix=prefix, partitions=3, replication=1)


def replaced(config, **changes):
    return Config(
        **{
            "bootstrap_servers": config.bootstrap_servers,
            "topic_prefix": config.topic_prefix,
            "partitions": config.partitions,
            "replication": config.replication,
        }
        | changes
    )


def test_topics_are_made_with_every_setting_and_then_found(config):
    wanted = topics.specification(config)
    with clients.admin(config) as admin:
        made = topics.create(admin, config)
        assert set(made.made) == {t.name for t in wanted.values()}
        there = topics.present(admin, made.made)
        kind = clients.ConfigResourceType.TOPIC
        held = admin.describe_configs([clients.ConfigResource(kind, n) for n in made.made])["topic"]
        for t in wanted.values():
            assert len(there[t.name]["partitions"]) == 3
            assert {k: held[t.name][k]["value"] for k in t.settings if k in held[t.name]}.items() <= dict(
                t.settings
            ).items()
            assert held[t.name]["max.message.bytes"]["value"] == t.settings["max.message.bytes"]
            assert held[t.name]["cleanup.policy"]["value"] == t.settings["cleanup.policy"] or (
                t.settings["cleanup.policy"] == "delete"
            )
        again = topics.create(admin, config)
        assert (again.made, set(again.found), again.differences) == ((), set(made.made), ())
        assert topics.check(admin, config) == 3


def test_each_difference_is_told_and_nothing_is_changed(config):
    other = replaced(config, partitions=4, replication=2, retention_s=Retention(names=120))
    with clients.admin(config) as admin:
        topics.create(admin, config)
        told = topics.create(admin, other).differences
        name = topics.topic(config, "names")
        mine = [line for line in told if name in line]
        assert mine == [
            f"topic {name} has 3 partitions, kafka.partitions is 4",
            f"topic {name} has 1 replicas, kafka.replication is 2",
            f"topic {name} has segment.ms = 3600000, wanted is 300000",
            f"topic {name} has retention.ms = 21600000, wanted is 120000",
        ]
        assert topics.create(admin, config).differences == ()


def test_a_missing_topic_and_a_wrong_count_are_refused_by_name(config):
    with clients.admin(config) as admin:
        with pytest.raises(
            ConfigError, match=r"poolwatch.flows.v1 does not exist: run poolwatch topics create"
        ):
            topics.check(admin, config)
        assert topics.present(admin, [topics.topic(config, "flows")]) == {}
        topics.create(admin, config)
        with pytest.raises(ConfigError, match=r"poolwatch.flows.v1 has 3 partitions, kafka.partitions is 8"):
            topics.check(admin, replaced(config, partitions=8))


def test_more_replicas_than_brokers_are_refused_in_words(config):
    with (
        clients.admin(config) as admin,
        pytest.raises(ConfigError, match=r"kafka.replication is 9, but the cluster has 1 broker"),
    ):
        topics.create(admin, replaced(config, replication=9))


def test_a_broker_that_is_not_there_is_told_within_its_time():
    config = Config(bootstrap_servers=("127.0.0.1:9",), connect_timeout_s=1)
    began = time.monotonic()
    with pytest.raises(InputError, match=r"127.0.0.1:9 was not reached within 1 s: .*ECONNREFUSED"):
        clients.producer(config)
    with pytest.raises(InputError), clients.admin(config):
        pass
    assert time.monotonic() - began < 8
    assert not [t.name for t in threading.enumerate() if t.name.startswith("kafka")]


def test_the_command_says_what_it_does_and_its_status(kafka, prefix):
    settings = {
        "POOLWATCH_KAFKA__BOOTSTRAP_SERVERS": kafka.address,
        "POOLWATCH_KAFKA__TOPIC_PREFIX": prefix,
        "POOLWATCH_KAFKA__REPLICATION": "1",
        "POOLWATCH_KAFKA__PARTITIONS": "2",
    }

    def poolwatch(*arguments, **more):
        done = subprocess.run(
            [POOLWATCH, "topics", *arguments],
            env=os.environ | settings | more, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    status, _, err = poolwatch("check")
    assert status == 2
    assert "run poolwatch topics create" in err
    status, out, _ = poolwatch("create")
    assert status == 0
    assert out.count(": created") == 7
    assert "7 topics of 2 partitions are good" in out
    status, out, err = poolwatch("create", "--partitions", "5")
    assert status == 2
    assert out.count(": exists") == 7
    assert "poolwatch.state.v1 has 2 partitions, kafka.partitions is 5" in out
    status, out, _ = poolwatch("list")
    assert status == 0
    assert f"{prefix}poolwatch.payloads.v1: 2 partitions, 1 replicas, wanted delete, 3600 s" in out
    status, _, err = poolwatch("create", "--partitions", "0")
    assert status == 2
    assert "--partitions" in err
    nowhere = {"POOLWATCH_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9", "POOLWATCH_KAFKA__CONNECT_TIMEOUT_S": "1"}
    status, _, err = poolwatch("check", **nowhere)
    assert status == 1
    assert "was not reached" in err

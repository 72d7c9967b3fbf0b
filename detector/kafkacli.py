"""``poolwatch topics``: the topics on Kafka, for people."""

import argparse
from collections.abc import Callable

import msgspec

from collectors.kafka import clients, topics
from collectors.kafka.config import Config as KafkaConfig
from detector.config import Config
from detector.errors import ConfigError

MOST = {"partitions": 1024, "replication": 16}


def run(config: Config, options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Do one of create, check, list; the exit status.

    Raises InputError where no broker is reached, ConfigError where topics do not fit the configuration.
    """
    kafka = config.kafka
    for key, most in MOST.items():
        given = getattr(options, key, None)
        if given is not None:
            if not 1 <= given <= most:
                raise ConfigError(f"--{key} must be from 1 to {most}")
            kafka = msgspec.structs.replace(kafka, **{key: given})
    with clients.admin(kafka, "poolwatch-topics") as admin:
        if options.what == "list":
            return _list(admin, kafka, say)
        if options.what == "create":
            done = topics.create(admin, kafka)
            for name in done.made:
                say(f"{name}: created")
            for name in done.found:
                say(f"{name}: exists")
            different = done.differences
        else:
            wanted = topics.specification(kafka).values()
            there = topics.present(admin, [t.name for t in wanted])
            different = tuple(topics.differences(admin, wanted, there))
        for line in different:
            say(line)
        partitions = topics.check(admin, kafka)
        say(f"{len(topics.specification(kafka))} topics of {partitions} partitions are good")
    return 0


def check(config: Config) -> None:
    """Raises ConfigError where clients could not be made from the configuration; connects to nothing."""
    if config.bus == "kafka":
        clients.settings(config.kafka, "poolwatch-check")


def _list(admin: clients.KafkaAdminClient, kafka: KafkaConfig, say: Callable[[str], None]) -> int:
    wanted = topics.specification(kafka).values()
    there = topics.present(admin, [t.name for t in wanted])
    for t in wanted:
        if t.name not in there:
            say(f"{t.name}: missing")
            continue
        partitions = there[t.name]["partitions"]
        replicas = min((len(p["replica_nodes"]) for p in partitions), default=0)
        policy, kept = t.settings["cleanup.policy"], t.settings.get("retention.ms")
        until = f", {int(kept) // 1000} s" if kept else ""
        say(f"{t.name}: {len(partitions)} partitions, {replicas} replicas, wanted {policy}{until}")
    return 0

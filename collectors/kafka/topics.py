"""The topics of the streams: how each must be made, what is there, and in what the two differ.

The table of streams and the configuration in; calls of an admin client, and findings in words, out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from collectors.errors import ConfigError
from collectors.kafka import clients
from collectors.kafka.config import Config
from collectors.streams import STREAMS

_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 60 * _MINUTE_MS
_CREATED_WITHIN_S: Final = 30
_LARGEST: Final = "max.message.bytes"
# Kafka's default, rounded down.
USUAL_BYTES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Topic:
    """How one topic must be made."""

    name: str
    partitions: int
    replication: int
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Made:
    """What ``create`` did: topics it made, topics that it found, and in what those differ."""

    made: tuple[str, ...]
    found: tuple[str, ...]
    differences: tuple[str, ...]


def topic(config: Config, stream: str) -> str:
    """The topic that carries a stream."""
    return config.topic_prefix + STREAMS[stream].topic


def specification(config: Config) -> dict[str, Topic]:
    """How the topic of every stream must be made, by stream."""
    return {
        name: Topic(topic(config, name), config.partitions, config.replication, _settings(config, name))
        for name in STREAMS
    }


def _settings(config: Config, stream: str) -> dict[str, str]:
    kept_s = getattr(config.retention_s, stream, None)
    out = {
        "compression.type": "producer",
        _LARGEST: str(clients.MAX_RECORD_BYTES),
        # A message is acknowledged when a second broker has it, where there are three.
        "min.insync.replicas": "2" if config.replication >= 3 else "1",
    }
    # Only closed segments are removed or compacted: what is kept for an hour needs segments of minutes.
    if STREAMS[stream].compacted:
        out |= {
            "cleanup.policy": "compact" if kept_s is None else "compact,delete",
            "segment.bytes": str(64 << 20),
            "segment.ms": str(_HOUR_MS),
            "min.cleanable.dirty.ratio": "0.2",
            "delete.retention.ms": str(24 * _HOUR_MS),
        }
    else:
        out |= {"cleanup.policy": "delete", "segment.bytes": str(256 << 20)}
        out["segment.ms"] = str(min(max((kept_s or 0) * 1000 // 6, 5 * _MINUTE_MS), 24 * _HOUR_MS))
    if kept_s is not None:
        out["retention.ms"] = str(kept_s * 1000)
    if stream == "state":
        # A detector that was paused may write an old record after its successor wrote a newer one.  Readers
        # take the one that includes most input, so for a while both must be there.
        out["min.compaction.lag.ms"] = str(10 * _MINUTE_MS)
    return out


def create(admin: clients.KafkaAdminClient, config: Config) -> Made:
    """Make the topics that are missing; never change one that is there.  Raises ConfigError, InputError."""
    wanted = specification(config)
    there = present(admin, (t.name for t in wanted.values()))
    missing = [t for t in wanted.values() if t.name not in there]
    if missing:
        _make(admin, missing)
        admin.wait_for_topics([t.name for t in missing], timeout_ms=_CREATED_WITHIN_S * 1000)
    made = {t.name for t in missing}
    found = [t for t in wanted.values() if t.name not in made]
    return Made(
        tuple(t.name for t in missing),
        tuple(t.name for t in found),
        tuple(differences(admin, found, there)),
    )


def _make(admin: clients.KafkaAdminClient, missing: Iterable[Topic]) -> None:
    asked = {
        t.name: {
            "num_partitions": t.partitions,
            "replication_factor": t.replication,
            "configs": dict(t.settings),
        }
        for t in missing
    }
    answer = admin.create_topics(asked, timeout_ms=_CREATED_WITHIN_S * 1000, raise_errors=False)
    for given in answer["topics"]:
        problem = clients.errors.for_code(given["error_code"])
        if problem in (clients.errors.NoError, clients.errors.TopicAlreadyExistsError):
            continue
        if problem is clients.errors.InvalidReplicationFactorError:
            brokers = len(admin.describe_cluster()["brokers"])
            replication = asked[given["name"]]["replication_factor"]
            raise ConfigError(
                f"kafka.replication is {replication}, but the cluster has {brokers} "
                f"broker{'' if brokers == 1 else 's'}: set kafka.replication or --replication"
            )
        raise ConfigError(
            f"topic {given['name']}: {given.get('error_message') or problem.__name__}".removesuffix("Error")
        )


def present(admin: clients.KafkaAdminClient, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Those of ``names`` that exist, as the cluster describes them.  Raises ConfigError where it may not."""
    out = {}
    for described in admin.describe_topics(list(names)):
        problem = clients.errors.for_code(described["error_code"])
        if problem is clients.errors.TopicAuthorizationFailedError:
            raise ConfigError(f"topic {described['name']}: we may not describe it")
        if problem is not clients.errors.UnknownTopicOrPartitionError:
            out[described["name"]] = described
    return out


def elsewhere(admin: clients.KafkaAdminClient, name: str) -> tuple[int, int]:
    """(partitions, octets that a batch may have) of a topic that is not ours.  Raises ConfigError where there
    is none."""
    there = present(admin, (name,))
    if name not in there:
        raise ConfigError(f"there is no topic {name}: make it first, only our own are made by poolwatch")
    asked = clients.ConfigResource(clients.ConfigResourceType.TOPIC, name, {_LARGEST: ""})
    try:
        held = admin.describe_configs([asked], config_filter="all")["topic"][name]
        most = int(held[_LARGEST]["value"])
    except (clients.errors.KafkaError, KeyError, TypeError, ValueError):
        # Who may write to a topic need not be one who may read its settings.
        most = USUAL_BYTES
    return len(there[name]["partitions"]), most


def differences(
    admin: clients.KafkaAdminClient, wanted: Iterable[Topic], there: Mapping[str, dict[str, Any]]
) -> list[str]:
    """One line for each setting in which an existing topic differs from how it would be made."""
    topics = {t.name: t for t in wanted if t.name in there}
    out = []
    for name, t in topics.items():
        partitions = there[name]["partitions"]
        if len(partitions) != t.partitions:
            out.append(_partitions(name, len(partitions), t.partitions))
        replicas = min((len(p["replica_nodes"]) for p in partitions), default=0)
        if replicas != t.replication:
            out.append(f"topic {name} has {replicas} replicas, kafka.replication is {t.replication}")
    kind = clients.ConfigResourceType.TOPIC
    asked = [clients.ConfigResource(kind, n, dict.fromkeys(t.settings, "")) for n, t in topics.items()]
    if not asked:
        return out
    for name, held in admin.describe_configs(asked, config_filter="all")["topic"].items():
        for key, value in topics[name].settings.items():
            has = held.get(key, {}).get("value")
            if has != value:
                out.append(f"topic {name} has {key} = {has}, wanted is {value}")
    return out


def _partitions(name: str, has: int, wanted: int) -> str:
    return f"topic {name} has {has} partition{'' if has == 1 else 's'}, kafka.partitions is {wanted}"


def check(admin: clients.KafkaAdminClient, config: Config, streams: Iterable[str] = tuple(STREAMS)) -> int:
    """The partition count, which all topics share.  Raises ConfigError, by name, on a missing topic and on
    another count: state is kept per partition, and the same subscriber must have one number everywhere."""
    names = [topic(config, s) for s in streams]
    there = present(admin, names)
    for name in names:
        if name not in there:
            raise ConfigError(f"topic {name} does not exist: run poolwatch topics create")
        has = len(there[name]["partitions"])
        if has != config.partitions:
            raise ConfigError(_partitions(name, has, config.partitions))
    return config.partitions

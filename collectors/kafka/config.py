"""The section ``[kafka]``: how brokers are reached, how topics are made, how much may wait to be sent."""

from typing import Annotated, Final, Literal

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
Seconds = Annotated[int, msgspec.Meta(ge=60, le=10 * 365 * 86400)]
# What Kafka allows in a topic's name; room is left for ours.
Prefix = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]*$", max_length=200)]
Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

# The largest message and its headers fit twice: one that waits, one that is being sent.
LEAST_IN_FLIGHT: Final = 24 << 20


class Retention(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long each stream is kept, seconds.  ``incidents`` and ``state`` are compacted and never expire.

    ``payloads`` are raw octets of people's connections: an hour is enough for a detector to catch up.
    """

    flows: Seconds = 6 * 3600
    payloads: Seconds = 3600
    names: Seconds = 6 * 3600
    alerts: Seconds = 30 * 86400
    endpoints: Seconds = 90 * 86400


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Apache Kafka.  Secrets are files, so that no configuration that is printed holds one.

    ``partitions`` is fixed for the life of the topics, because state is kept per partition.
    ``in_flight_bytes`` and ``in_flight_messages`` bound what one process holds that no broker has yet
    acknowledged; ``delivery_timeout_s`` is how long it is held while the brokers are away.
    ``state_write_ms`` is how soon a change of state is written.
    """

    bootstrap_servers: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("127.0.0.1:9092",)
    topic_prefix: Prefix = ""
    partitions: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 32
    replication: Annotated[int, msgspec.Meta(ge=1, le=16)] = 3
    group: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = "poolwatch-detector"
    compression: Literal["zstd", "lz4", "none"] = "zstd"
    connect_timeout_s: Annotated[int, msgspec.Meta(ge=1, le=600)] = 10
    session_timeout_ms: Annotated[int, msgspec.Meta(ge=500, le=300_000)] = 10_000
    security_protocol: Protocol = "PLAINTEXT"
    ssl_cafile: str = ""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""
    ssl_password_file: str = ""
    ssl_check_hostname: bool = True
    sasl_mechanism: Mechanism = ""
    sasl_username: str = ""
    sasl_password_file: str = ""
    in_flight_bytes: Annotated[int, msgspec.Meta(ge=LEAST_IN_FLIGHT, le=1 << 40)] = 256 << 20
    in_flight_messages: Count = 65_536
    delivery_timeout_s: Annotated[int, msgspec.Meta(ge=60, le=86400)] = 600
    retention_s: Retention = Retention()
    state_write_ms: Annotated[int, msgspec.Meta(ge=10, le=60_000)] = 1000

    @property
    def heartbeat_ms(self) -> int:
        """Three heartbeats a session, as Kafka's own documentation advises."""
        return self.session_timeout_ms // 3

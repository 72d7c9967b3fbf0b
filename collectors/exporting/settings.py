"""The section of the configuration for the output to goflow2's topic."""

from typing import Annotated, Literal

import msgspec


class Goflow2(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A Kafka topic for goflow2's consumers; ``topic`` "" is none.  Somebody else has made it.

    ``brokers`` are where it is, if not at ``kafka.bootstrap_servers``; how they are spoken to is ``kafka``'s
    either way.  goflow2 sends a message a value; with more of them ``messages_a_value`` follow one another,
    each behind its length.  ``key`` is the exporter's address, as in ``sampler_address``, or nothing.
    ``in_flight_bytes`` bounds what waits for the brokers, beside ``kafka.in_flight_bytes``.
    """

    topic: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]*$", max_length=249)] = ""
    brokers: tuple[str, ...] = ()
    messages_a_value: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 1
    key: Literal["exporter", "none"] = "exporter"
    in_flight_bytes: Annotated[int, msgspec.Meta(ge=24 << 20, le=1 << 40)] = 64 << 20

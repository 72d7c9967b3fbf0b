"""The netflow role's section of the configuration."""

from ipaddress import ip_address
from typing import Annotated

import msgspec

from collectors.errors import ConfigError
from collectors.exporting.settings import Goflow2
from collectors.netflow.budget import Budget
from collectors.netflow.listening import Tcp, Tls
from collectors.netflow.overrides import SamplingRate

Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=7 * 86400)]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The netflow role."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "netflow"
    ports: tuple[Port, ...] = (2055, 4739, 6343, 9995, 9996)
    # Addresses that may export; empty: any.
    exporters: tuple[str, ...] = ()
    # Over Kafka, processes that share the exporters among them; 0: one a core.
    workers: Annotated[int, msgspec.Meta(ge=0, le=64)] = 1
    # UDP sockets of each worker on each port, and the receive buffer that each asks for.
    sockets: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    receive_buffer_bytes: Annotated[int, msgspec.Meta(ge=4096, le=1 << 30)] = 16 << 20
    # Octets that were taken from them and wait to be read, of each worker: beyond, the rest is left in the
    # sockets, which drop what they have no room for.
    waiting_bytes: Annotated[int, msgspec.Meta(ge=1 << 20, le=1 << 30)] = 32 << 20
    tcp: Tcp = Tcp()
    tls: Tls = Tls()
    batch_datagrams: Annotated[int, msgspec.Meta(ge=1, le=8192)] = 8192
    batch_linger_ms: Annotated[int, msgspec.Meta(ge=0, le=10000)] = 200
    most_exporters: Count = 4096
    most_domains: Count = 16384
    most_domains_of_exporter: Count = 256
    # With port_is_identity: exporters at one address.
    most_ports_of_address: Count = 64
    most_templates: Count = 65536
    most_templates_of_exporter: Count = 1024
    # Octets of their definitions.
    most_template_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1 << 30)] = 16 << 20
    most_template_bytes_of_exporter: Annotated[int, msgspec.Meta(ge=1024, le=1 << 30)] = 1 << 20
    # What exporters may have answered by other than compiled code.
    budget: Budget = Budget()
    # Templates and rates are kept there across restarts; empty: they are not.
    templates_file: str = ""
    templates_file_every_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 60
    # Whether two UDP ports of one address are two exporters: two processes, or routers behind one address.
    port_is_identity: bool = False
    # Sampling rates that exporters do not tell, or tell wrong.
    sampling: tuple[SamplingRate, ...] = ()
    # A rate beyond is not believed; the largest that a router can be given is 16,777,215 (Arista).
    most_sampling_rate: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)] = 1 << 24
    # What a record counts is cut to what an interface of so many Gbit/s carries in the record's duration.
    fastest_gigabits_per_s: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1600
    # Neither heard nor used for so long: long, for data without its template are lost.
    template_age_s: Seconds = 86400
    held_bytes: Annotated[int, msgspec.Meta(ge=0, le=1 << 30)] = 8 << 20
    held_s: Seconds = 1800
    # An exporter's clock that is off by more gives way to the receive time; 0: none does.  NTP keeps clocks
    # within a second; an error of five minutes moves bytes into other minutes and holds the watermark back.
    clock_skew_s: Annotated[int, msgspec.Meta(ge=0, le=7 * 86400)] = 300
    # A record is not believed to be longer, when the watermark waits for it.
    longest_record_s: Seconds = 3600
    hash_seed: int = 0
    # Over Kafka, another topic, with all records as goflow2 writes them.
    goflow2: Goflow2 = Goflow2()


def mapped(text: str) -> bytes:
    """An address as 16 octets.  Raises ConfigError on what is none."""
    try:
        given = ip_address(text)
    except ValueError as error:
        raise ConfigError(f"exporters: {error}") from None
    return given.packed if given.version == 6 else bytes(10) + b"\xff\xff" + given.packed

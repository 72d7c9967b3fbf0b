"""The table of streams: every column once, with its type, unit and meaning.

Arrow schema, empty batch, validation and ``docs/reference/schema.md`` are derived from it.  The version
is in the schema's metadata and in the topic name; the three change together.

Types of Arrow columns: ``u1 u2 u4 u8 i8`` integers by bytes, ``address`` 16 bytes (IPv4 mapped into
IPv6), ``bytes``, ``text``, ``list_u2 list_u4 list_i8``.  Types of JSON fields: ``text number time object
list``.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, type, unit ("" where it has none) and meaning."""

    name: str
    type: str
    unit: str
    meaning: str
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream: its topic is ``poolwatch.<name>.v<version>``."""

    name: str
    version: int
    format: str
    partition: str
    compacted: bool
    row: str
    columns: tuple[Column, ...]

    @property
    def topic(self) -> str:
        """The Kafka topic that carries it."""
        return f"poolwatch.{self.name}.v{self.version}"


def _null(name: str, kind: str, unit: str, meaning: str) -> Column:
    return Column(name, kind, unit, meaning, nullable=True)


# Flags of a payload chunk.
GAP: Final = 1  # bytes are missing before this chunk
START: Final = 2  # the handshake was seen: offset 0 is the first byte of the stream
END: Final = 4  # FIN or RST: nothing follows
ACK_ONLY: Final = 8  # no bytes: this direction acknowledged the other's for the first time

# Kinds of name.
NAME_KINDS: Final = ("dns", "tls_server_name", "certificate", "http_host", "quic_server_name")

_OWNER: Final = (
    Column("subscriber", "address", "", "the home end whose row this is; an IPv6 one as its /64"),
    Column("copy", "u1", "", "1 on the second copy of a row whose both ends are home"),
)
_TUPLE: Final = (
    Column("src", "address", "", "source address"),
    Column("dst", "address", "", "destination address"),
    Column("src_port", "u2", "", "source port, 0 where the protocol has none"),
    Column("dst_port", "u2", "", "destination port, 0 where the protocol has none"),
    Column("protocol", "u1", "", "IP protocol number"),
)
_COLLECTOR: Final = Column("collector", "text", "", "id of the collector that saw it")

FLOWS: Final = (
    *_OWNER,
    *_TUPLE,
    Column("t_first", "i8", "ns", "first packet of this record, Unix time"),
    Column("t_last", "i8", "ns", "last packet of this record, Unix time"),
    Column("t_received", "i8", "ns", "receive time at the collector, Unix time"),
    Column("bytes", "u8", "octet", "IP-layer octets src to dst, as exported (octetDeltaCount)"),
    Column("packets", "u8", "packet", "packets src to dst, as exported (packetDeltaCount)"),
    _null("reverse_bytes", "u8", "octet", "IP-layer octets dst to src (RFC 5103)"),
    _null("reverse_packets", "u8", "packet", "packets dst to src (RFC 5103)"),
    _null("tcp_flags", "u2", "", "union of TCP flags src to dst"),
    _null("reverse_tcp_flags", "u2", "", "union of TCP flags dst to src"),
    _null("sampling_rate", "u4", "", "one packet in this many was looked at; null where not known"),
    Column(
        "source", "u1", "", "0 tap, 1 sFlow, 3 NetFlow v1, 5, 7, 9 NetFlow as such, 10 IPFIX, 20 imported"
    ),
    _null("exporter", "address", "", "address of the exporter; null for a tap"),
    _null("domain", "u4", "", "observation domain, source id or engine"),
    _null("template", "u2", "", "template id of the record"),
    _null("input_interface", "u4", "", "ingressInterface"),
    _null("output_interface", "u4", "", "egressInterface"),
    _null("direction", "u1", "", "flowDirection: 0 ingress, 1 egress"),
    _null("src_as", "u4", "", "bgpSourceAsNumber"),
    _null("dst_as", "u4", "", "bgpDestinationAsNumber"),
    _null("tos", "u1", "", "ipClassOfService"),
    _null("vlan", "u2", "", "outermost VLAN id"),
    _null("end_reason", "u1", "", "flowEndReason: 1 idle, 2 active, 3 end, 4 forced, 5 resources"),
    _null("t_open", "i8", "ns", "first packet of the connection, Unix time; metered rows only"),
    _null("initiator", "u1", "", "who opened it: 0 not known, 1 src, 2 dst"),
    _null("payload_packets", "u4", "packet", "packets with payload src to dst"),
    _null("reverse_payload_packets", "u4", "packet", "packets with payload dst to src"),
    _null("payload_bytes", "u8", "octet", "transport payload src to dst, retransmissions left out"),
    _null("reverse_payload_bytes", "u8", "octet", "transport payload dst to src"),
    _null("first_sizes", "list_u2", "octet", "first payload sizes src to dst, in order, at most 8"),
    _null("reverse_first_sizes", "list_u2", "octet", "first payload sizes dst to src"),
    _null(
        "pushes",
        "list_i8",
        "ns",
        "times of server pushes since the connection was a minute old, Unix time, oldest first, the last 64: "
        "payload after 500 ms without any; early by less than 1/64 of the time since the one before",
    ),
    _null(
        "record_sizes",
        "list_u4",
        "record",
        "TLS application records src to dst since then, by length: up to 64, 96, 128, 320, 640, 2048 octets, "
        "and longer; null where nothing is kept",
    ),
    _null("reverse_record_sizes", "list_u4", "record", "TLS application records dst to src, likewise"),
    _null(
        "tunnel",
        "u1",
        "",
        "outermost tunnel: IP protocol (4, 41, 47 GRE, 137 MPLS), or 201 VXLAN, 202 VXLAN-GPE, 203 GENEVE, "
        "204 GTP-U, 205 ERSPAN, 206 Teredo",
    ),
    _null("tunnel_src", "address", "", "source address of the outermost IP header"),
    _null("tunnel_dst", "address", "", "destination address of the outermost IP header"),
    Column("candidate", "u1", "", "1 where the collector published payload of this connection"),
    _COLLECTOR,
)

PAYLOADS: Final = (
    *_OWNER,
    *_TUPLE,
    Column("t", "i8", "ns", "arrival of the packet that completed the chunk, Unix time"),
    Column("offset", "u8", "octet", "offset of the chunk in its direction, from the first byte seen"),
    Column("seq", "u4", "", "TCP sequence number of the first byte"),
    Column("ack", "u4", "", "TCP acknowledgement number of the packet"),
    Column("flags", "u1", "", "1 gap before, 2 stream seen from its start, 4 end, 8 acknowledgement only"),
    Column("data", "bytes", "", "the bytes, src to dst"),
    _COLLECTOR,
)

NAMES: Final = (
    *_OWNER,
    Column("t", "i8", "ns", "when the name was seen, Unix time"),
    Column("kind", "u1", "", "index into NAME_KINDS: 0 DNS answer, 1 TLS server name, and so on"),
    Column("name", "text", "", "the name, lower case, no final dot"),
    _null("alias", "text", "", "the name that was asked for, where the answer came by CNAME"),
    _null("address", "address", "", "the address that it was seen beside; null where a proxy was asked"),
    _null("port", "u2", "", "server port; of a DNS answer only where a service record names one"),
    _null("protocol", "u1", "", "IP protocol number; null for DNS"),
    _null("ttl", "u4", "s", "time to live of a DNS answer"),
    _null("resolver", "address", "", "who answered; null unless DNS"),
    _null("alpn", "text", "", "first ALPN protocol offered; beside a certificate the one chosen"),
    _null("ja4", "text", "", "JA4 fingerprint of the client hello"),
    _COLLECTOR,
)

ENDPOINTS: Final = (
    Column("address", "text", "", "IP address"),
    Column("port", "number", "", "port; 0 for any of its ports"),
    Column("protocol", "number", "", "IP protocol number"),
    Column("origin", "text", "", "listed, resolved, learned or refuted"),
    Column("name", "text", "", "host name", nullable=True),
    Column("operator", "text", "", "pool operator", nullable=True),
    Column("coins", "list", "", "tickers"),
    Column("tls", "text", "", "yes, no or unknown"),
    Column("kind", "text", "", "pool, solo, marketplace, proxy or browser-miner"),
    Column("weak", "number", "", "1 where the address alone says little"),
    Column("ports", "list", "", "its ports, where port is 0"),
    Column("only", "list", "", "addresses of the subscribers for whom it counts; empty is everybody"),
    Column("first", "time", "", "first seen, in UTC with nine digits of a second"),
    Column("last", "time", "", "last renewed, likewise"),
    Column("expires", "time", "", "forgotten after, likewise", nullable=True),
    Column("generation", "number", "", "1, and one more each time it was forgotten and found again"),
    Column("history", "list", "", "name, first and last of the times it was known before, newest last"),
    Column("why", "text", "", "what it rests on"),
)

ALERTS: Final = (
    Column("id", "text", "", "hash of incident id and transition number: count distinct ids"),
    Column("incident", "text", "", "incident id"),
    Column("transition", "number", "", "1 suspected, 2 confirmed, 3 resolved, 4 quiet again"),
    Column("from", "text", "", "state before"),
    Column("to", "text", "", "state after"),
    Column("action", "text", "", "ticket, alert, resolve or nothing"),
    Column("at", "time", "", "the data's time of the transition"),
    Column("subscriber", "text", "", "subscriber"),
    Column("belief", "number", "", "probability that the subscriber mines"),
    Column("summary", "text", "", "one line for the pager"),
    Column("evidence", "list", "", "as in the incident"),
)

INCIDENTS: Final = (
    Column("id", "text", "", "hash of subscriber and opening number"),
    Column("subscriber", "text", "", "address, or prefix for IPv6"),
    Column("state", "text", "", "suspected, confirmed or resolved"),
    Column("belief", "number", "", "probability that the subscriber mines"),
    Column("first_seen", "time", "", "first evidence of this opening"),
    Column("last_seen", "time", "", "last evidence of this opening"),
    Column("role", "text", "", "miner, pool or proxy"),
    Column("coins", "list", "", "tickers, where one is named"),
    Column("algorithms", "list", "", "proof-of-work algorithms"),
    Column("dialects", "list", "", "mining protocols spoken"),
    Column("services", "list", "", "address, port, name, operator of each server"),
    Column("workers", "list", "", "worker or account names"),
    Column("agents", "list", "", "software that the client says it is"),
    Column("shares", "object", "share", "accepted, rejected, stale, verified"),
    Column("hashrate", "list", "H/s", "algorithm, value, low, high, unit, shares"),
    Column("power_watts", "object", "W", "low, typical, high", nullable=True),
    Column("bytes", "object", "octet", "up and down, of mining connections"),
    Column("place", "object", "", "unit, sector, city", nullable=True),
    Column("evidence", "list", "", "kind, group, rule, first, last, count, strength, why"),
    Column("coin_reasons", "list", "", 'coin ("" for none), basis and why it is that one or none'),
    Column("paid_coins", "list", "", "coins that are paid and not mined, as pools that exchange do"),
    Column("wallets", "list", "", "name, coins, verified, link of each wallet or account"),
    Column("kwh_per_day", "object", "kWh", "low, typical, high, at that power", nullable=True),
)

STATE: Final = (
    Column("version", "number", "", "version of the state's form"),
    Column("run", "text", "", 'name of the replay, "" for live links'),
    Column("subscriber", "text", "", "whose state; the record with the key `partition` is of no subscriber"),
    Column("offsets", "list", "", "of flows, payloads, names: the next offset that is not yet included"),
    Column("state", "object", "", "evidence, sessions, incident and measures of the subscriber"),
)

STREAMS: Final = {
    s.name: s
    for s in (
        Stream("flows", 1, "arrow", "subscriber", False, "one flow record", FLOWS),
        Stream("payloads", 1, "arrow", "subscriber", False, "one chunk of candidate bytes", PAYLOADS),
        Stream("names", 1, "arrow", "subscriber", False, "one name seen beside an address", NAMES),
        Stream("endpoints", 1, "json", "endpoint", True, "what is known of one endpoint", ENDPOINTS),
        Stream("alerts", 1, "json", "subscriber", False, "one transition of one incident", ALERTS),
        Stream("incidents", 1, "json", "subscriber", True, "the latest document of an incident", INCIDENTS),
        Stream("state", 1, "msgpack", "as its input", True, "the state of one subscriber", STATE),
    )
}

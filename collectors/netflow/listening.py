"""What the flow collector listens to, as it is configured: UDP sockets, and IPFIX over TCP and TLS."""

from typing import Annotated

import msgspec

# 0: none.
OptionalPort = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=7 * 86400)]


class Tcp(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """IPFIX over TCP (RFC 7011 10.4); its usual ``port`` is 4739.  The limits hold for TLS too, for both
    together, and for each worker.

    ``idle_s`` is how long an exporter may be silent, ``message_s`` how long it may take to send a message
    that it began, ``handshake_s`` how long until TLS stands.
    """

    port: OptionalPort = 0
    most_connections: Annotated[int, msgspec.Meta(ge=1, le=16384)] = 256
    most_connections_of_address: Annotated[int, msgspec.Meta(ge=1, le=16384)] = 16
    idle_s: Seconds = 3600
    message_s: Seconds = 30
    handshake_s: Seconds = 10


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """IPFIX over TLS 1.2 or newer; its usual ``port`` is 4740.  ``certificate`` (with its chain) and ``key``
    are PEM files; with ``client_ca`` exporters must show a certificate that one of these has signed."""

    port: OptionalPort = 0
    certificate: str = ""
    key: str = ""
    client_ca: str = ""

    def __post_init__(self) -> None:
        if self.port and not (self.certificate and self.key):
            raise ValueError("port needs certificate and key")

"""A second opinion: a capture in, what tshark's dissectors say of it out, in the words of our own reading.

Needs Debian's ``tshark``, through pyshark.  What it calls a message are the same as ``dissect``'s.
"""

import asyncio
import contextlib
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from collectors.packet.dissect import Connection, End, Found
from detector.errors import InputError

_HANDSHAKE: Final = "(tls.handshake.type == 1 || tls.handshake.type == 2 || tls.handshake.type == 11)"
SHOWN: Final = f"{_HANDSHAKE} || (dns.flags.response == 1 && !mdns && !llmnr) || http.request"
# What pyshark quotes of tshark's own words; and those of a file whose packets were read up to there.
_LAST: Final = re.compile(r"Last error line: (?:tshark: )?(.*)")
_ENDS: Final = ("cut short", "damaged or corrupt", "invalid distance", "uncompress")
_PORT: Final = re.compile(r":\d*$")
_TCP: Final = 6
_UDP: Final = 17


def filter_of(connections: Iterable[Connection]) -> str:
    """A display filter (wireshark-filter(4)) for messages of these connections."""
    return f"({SHOWN}) && ({' || '.join(map(_one, connections))})"


def _one(connection: Connection) -> str:
    word = "tcp" if connection.protocol == _TCP else "udp"
    ways = []
    for src, dst in ((connection.low, connection.high), (connection.high, connection.low)):
        ip = "ipv6" if ":" in src.address else "ip"
        ways.append(
            f"({ip}.src == {src.address} && {ip}.dst == {dst.address}"
            f" && {word}.srcport == {src.port} && {word}.dstport == {dst.port})"
        )
    return " || ".join(ways)


def read(path: str, connections: list[Connection] | None = None) -> tuple[list[Found], str]:
    """What tshark says of a capture's messages, None is of all; and why it read no further, "" where it did.

    Raises InputError without tshark, or where it cannot read the file.
    """
    if shutil.which("tshark") is None:
        raise InputError("tshark is not installed: apt install tshark")
    if not Path(path).is_file():
        raise InputError(f"{path}: tshark reads files only")
    import pyshark  # noqa: PLC0415 - slow to import, and only people ask for it

    class Capture(pyshark.FileCapture):  # type: ignore[misc]
        async def _cleanup_subprocess(self, process: Any) -> None:
            if self._eof_reached:
                await process.wait()  # killed on its way out, it would not say that it gave up
            await super()._cleanup_subprocess(process)

    shown = SHOWN if connections is None else filter_of(connections)
    # A loop of our own: pyshark does not close those of its making.
    with asyncio.Runner() as runner:
        capture = Capture(
            path,
            display_filter=shown,
            keep_packets=False,
            custom_parameters=["-n"],
            eventloop=runner.get_loop(),
        )
        gave_up = pyshark.capture.capture.TSharkCrashException
        said: list[Found] = []
        try:
            for packet in capture:
                said += _found(packet)
            return said, ""
        except gave_up as error:
            told = _LAST.search(str(error))
            why = f"{path}: tshark gave up: {told[1].strip() if told else error}"[:400]
            # pyshark may be told of the end before it has handed over the last packets; they are few.
            if told is None or not any(word in why for word in _ENDS):
                raise InputError(why) from None
            return said, why
        finally:
            with contextlib.suppress(gave_up):
                capture.close()
            # Of one that gave up it would ask again, of a closed loop, when it is thrown away.
            capture._running_processes.clear()


def _found(packet: Any) -> Iterator[Found]:
    connection = _connection(packet)
    if connection is None:
        return
    t_ns = int(float(packet.sniff_timestamp) * 1e9)
    for layer in packet.layers:
        name = layer.layer_name
        if name in ("tls", "quic"):
            yield from _tls(layer, connection, t_ns)
        elif name == "dns" and _texts(layer, "a", "aaaa", "resp_name", "qry_name"):
            yield Found(
                connection, "dns", t_ns,
                {
                    "name": _texts(layer, "qry_name")[:1],
                    "aliases": _texts(layer, "cname"),
                    "addresses": sorted(_texts(layer, "a", "aaaa")),
                },
            )  # fmt: skip
        elif name == "http" and _texts(layer, "host"):
            hosts = [_PORT.sub("", host).removesuffix(".") for host in _texts(layer, "host")]
            yield Found(connection, "http", t_ns, {"host": hosts})


def _tls(layer: Any, connection: Connection, t_ns: int) -> Iterator[Found]:
    # In a layer of QUIC, fields of TLS keep their whole name.
    before = "tls_" if layer.layer_name == "quic" else ""

    def of(*names: str) -> list[str]:
        return _texts(layer, *(before + name for name in names))

    kinds = of("handshake_type")
    if "1" in kinds:
        offered = (
            _numbers(of("handshake_extensions_supported_version")) or _numbers(of("handshake_version"))[:1]
        )
        yield Found(
            connection, "quic" if before else "client_hello", t_ns,
            {
                # As we do: without the dot of the root, which RFC 6066 forbids and some send.
                "server_name": [n.removesuffix(".") for n in of("handshake_extensions_server_name")[:1]],
                "alpn": of("handshake_extensions_alpn_str")[:1],
                "versions": [f"{v:#06x}" for v in sorted(offered, reverse=True)],
                "cipher_count": [str(len(_numbers(of("handshake_ciphersuite"))))],
                "ja4": of("handshake_ja4"),
            },
        )  # fmt: skip
    elif "2" in kinds and not before:
        chosen = _numbers(of("handshake_extensions_supported_version")) or _numbers(of("handshake_version"))
        yield Found(
            connection, "server_hello", t_ns,
            {
                "versions": [f"{v:#06x}" for v in chosen[:1]],
                "cipher": [f"{v:#06x}" for v in _numbers(of("handshake_ciphersuite"))[:1]],
                "alpn": of("handshake_extensions_alpn_str")[:1],
                "certificate_names": _certificate(layer),
            },
        )  # fmt: skip
    elif "11" in kinds and not before:
        yield Found(connection, "certificates", t_ns, {"certificate_names": _certificate(layer)})


def _certificate(layer: Any) -> list[str]:
    """Of every certificate of the chain: dissectors do not tell them apart."""
    return _texts(
        layer, "x509ce_dNSName", "x509sat_uTF8String", "x509sat_printableString", "x509sat_teletexString"
    )


def _connection(packet: Any) -> Connection | None:
    """The innermost one."""
    addresses: tuple[str, str] | None = None
    for layer in packet.layers:
        name = layer.layer_name
        if name in ("ip", "ipv6"):
            addresses = layer.src, layer.dst
        elif name in ("tcp", "udp") and addresses is not None:
            ends = sorted((End(addresses[0], int(layer.srcport)), End(addresses[1], int(layer.dstport))))
            return Connection(ends[0], ends[1], _TCP if name == "tcp" else _UDP)
    return None


def _texts(layer: Any, *names: str) -> list[str]:
    """All values of fields, in the order of the names."""
    out = []
    for name in names:
        given = layer.get_field(name)
        if given is not None:
            out += [str(one.get_default_value()).lower() for one in given.all_fields]
    return out


def _numbers(texts: list[str]) -> list[int]:
    """Without the values that mean nothing (RFC 8701)."""
    values = [int(text, 0) for text in texts]
    return [v for v in values if not (v & 0x0F0F == 0x0A0A and v >> 8 == v & 0xFF)]

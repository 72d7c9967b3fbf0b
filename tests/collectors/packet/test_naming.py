"""Names on every road, from frames to rows: DNS over TCP, services, certificates, HTTP, QUIC; and splits."""

import struct
from ipaddress import IPv6Address
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from certmaker import certificate, chain, records, server_hello
from hellomaker import extension, hello, server_name
from hypothesis import given
from hypothesis import strategies as st
from quicmaker import V2, crypto, seal
from scapy.layers.dns import DNS, DNSQR, DNSRR

from collectors import streams, subscribers
from collectors.packet import dissect, namesets
from collectors.packet.names import MAX_TOLD, NameFilter

S = 10**9
RESOLVER, CLIENT = ("9.9.9.9", 53), ("10.0.0.1", 40000)
SERVER = ("93.184.216.34", 3333)
CAPTURES = Path(__file__).parents[4] / "shared" / "captures" / "packets"
# What our reading tells of a name, and the kind of row that it is.
WHERE = {
    "client_hello": [("server_name", "tls_server_name")],
    "server_hello": [("certificate_names", "certificate")],
    "http": [("host", "http_host")],
    "quic": [("server_name", "quic_server_name")],
}
WANTED = NameFilter(["pool.example.org"], ["miners.example"])
HELLO = hello(server_name(b"eu.Miners.example."), extension(21, bytes(300)))
OTHER = hello(server_name(b"www.chess.example"))


def replay(make, frames, **config):
    config.setdefault("wanted", WANTED)
    return make.replay(make.read(make.pcap(frames)), dns_resolvers=(RESOLVER[0],), **config)


def talk(make, data, cuts=(), src=CLIENT, dst=SERVER, at=0, handshake=True, seq=1000):
    """``data`` cut at these places, one direction only."""
    out = [(at, make.tcp(src, dst, seq, 0, make.SYN))] if handshake else []
    ends = sorted({0, len(data), *(c for c in cuts if c < len(data))})
    for a, b in pairwise(ends):
        out.append((at + 1000 * len(out), make.tcp(src, dst, seq + 1 + a, 1, make.ACK, data[a:b])))
    return out


def brief(got):
    return [(streams.NAME_KINDS[r["kind"]], r["name"]) for r in got.names]


def text(packed):
    address = IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def answer(*records_, asked="pool.example.org"):
    found = [DNSRR(rrname=n, type=t, rdata=d, ttl=300) for n, t, d in records_ or [(asked, "A", "5.6.7.8")]]
    return bytes(DNS(qr=1, qd=DNSQR(qname=asked), an=found))


def framed(*messages):
    return b"".join(struct.pack(">H", len(m)) + m for m in messages)


TLS = [("tls_server_name", "eu.miners.example")]


def test_a_hello_split_at_any_byte_is_whole(make):
    frames = []
    for cut in range(len(HELLO)):
        frames += talk(make, HELLO, (cut,), src=("10.0.0.1", 10000 + cut), at=cut * S)
    got = replay(make, frames, flow_slots=1024)
    assert brief(got) == TLS * len(HELLO)
    assert len({r["ja4"] for r in got.names}) == 1


@pytest.mark.parametrize("size", [6, 17, 100])
@pytest.mark.parametrize("record", [None, 40])
def test_a_hello_in_many_segments_and_records_is_whole(make, size, record):
    made = hello(server_name(b"eu.miners.example"), extension(21, bytes(100)), record=record)
    assert brief(replay(make, talk(make, made, range(size, len(made), size)))) == TLS


def test_a_hello_of_several_segments_is_followed_as_far_as_it_goes_and_no_further(make):
    big = hello(server_name(b"eu.miners.example"), *(extension(k, bytes(1000)) for k in range(100, 112)))
    after = [
        (5000 + k, make.tcp(CLIENT, SERVER, 90_000 + 1000 * k, 1, make.ACK, bytes(1000))) for k in range(40)
    ]
    got = replay(make, [*talk(make, big, range(1400, len(big), 1400)), *after], names_a_second=64)
    assert brief(got) == TLS
    assert not any(key[0].startswith("names_withheld") for key in got.moved)


CERTIFICATE = records(
    server_hello(),
    chain(certificate("x.y", ["*.miners.example", "pool.example.org"], padding=3000), bytes(1500)),
)
BOTH = [("certificate", "*.miners.example"), ("certificate", "pool.example.org")]


@pytest.mark.parametrize("step", [536, 1400, 9000])
@pytest.mark.parametrize("client", [None, OTHER, hello()])
def test_the_certificate_of_a_server_is_told_whatever_its_client_said(make, step, client):
    frames = [] if client is None else talk(make, client)
    back = talk(make, CERTIFICATE, range(step, len(CERTIFICATE), step), src=SERVER, dst=CLIENT, at=S)
    got = replay(make, [*frames, *back])
    assert brief(got) == BOTH
    row = got.names[0]
    assert (text(row["address"]), row["port"], text(row["subscriber"])) == (SERVER[0], SERVER[1], CLIENT[0])


def test_a_certificate_without_a_wanted_name_or_behind_tls_1_3_is_not(make):
    plain = records(server_hello(), chain(certificate("x.y")))
    hidden = records(server_hello(extension(43, b"\3\4"))) + b"\x14\3\3\0\1\1\x17\3\3\0\1x"
    for back in (plain, hidden):
        got = replay(make, talk(make, back, src=SERVER, dst=CLIENT))
        assert got.names == []
        assert got.moved["names_seen_total", "certificate"] == 1
        assert not any(key[0] == "names_refused_total" for key in got.moved)


def test_dns_over_tcp_split_at_any_byte_and_several_messages_at_once(make):
    stream = framed(
        answer(),
        answer(asked="x.y"),
        answer(("a.miners.example", "AAAA", "2a00::1"), asked="a.miners.example"),
    )
    frames = []
    for cut in range(len(stream)):
        frames += talk(make, stream, (cut,), src=RESOLVER, dst=("10.0.0.1", 10000 + cut), at=cut * S)
    got = replay(make, frames, flow_slots=1024)
    assert brief(got) == [("dns", "pool.example.org"), ("dns", "a.miners.example")] * len(stream)
    assert text(got.names[0]["resolver"]) == RESOLVER[0]
    assert not any(key[0] == "names_refused_total" for key in got.moved)


def test_dns_over_tcp_of_a_stranger_is_not_read_and_garbage_is_refused(make):
    got = replay(make, talk(make, framed(answer()), src=("8.8.8.8", 53), dst=CLIENT))
    assert got.names == []
    assert got.moved["dns_strangers_total",] == 1
    got = replay(make, talk(make, b"\0\3abc" * 9, src=RESOLVER, dst=CLIENT))
    assert got.moved["names_refused_total", "length"] == 1


def test_segments_of_dns_that_change_places_are_put_in_order(make):
    frames = talk(make, framed(answer(), answer()), (40,), src=RESOLVER, dst=CLIENT)
    frames[1], frames[2] = frames[2], frames[1]
    assert brief(replay(make, frames)) == [("dns", "pool.example.org")] * 2


def service(target, *, owner=b"\xc0\x0c", priority=1, kind=65):
    """An HTTPS record (RFC 9460) with two hints, a port and a protocol."""
    rest = (
        b"\0\1\0\3\2h2"
        + b"\0\3\0\2\x0d\x05"
        + b"\0\4\0\4\5\6\7\x08"
        + b"\0\6\0\x10"
        + bytes([0x2A] + [0] * 14 + [1])
    )
    data = struct.pack(">H", priority) + target + (rest if priority else b"")
    return owner + struct.pack(">HHIH", kind, 1, 60, len(data)) + data


@pytest.mark.parametrize(
    ("asked", "target", "told"),
    [
        (b"\4pool\7Example\3org\0", b"\0", ("pool.example.org", None)),
        (b"\3www\1x\0", b"\2eu\6Miners\7example\0", ("eu.miners.example", "www.x")),
        (b"\3www\1x\0", b"\0", None),
    ],
)
def test_hints_of_a_service_are_addresses_of_its_name_or_of_its_target(make, asked, target, told):
    head = struct.pack(">HHHHHH", 1, 0x8180, 1, 1, 0, 0) + asked + b"\0\x41\0\1"
    got = replay(make, [(0, make.udp(RESOLVER, CLIENT, head + service(target)))])
    assert [(r["name"], r["alias"]) for r in got.names] == ([told] * 2 if told else [])
    if told:
        assert [text(r["address"]) for r in got.names] == ["5.6.7.8", "2a00::1"]
        assert {(r["port"], r["alpn"], r["ttl"]) for r in got.names} == {(3333, "h2", 60)}
    alias = replay(make, [(0, make.udp(RESOLVER, CLIENT, head + service(target, priority=0)))])
    assert alias.names == []


REQUEST = b"POST /x HTTP/1.1\r\nAccept: */*\r\nHost: Pool.Example.org:8332\r\nContent-Length: 2\r\n\r\n{}"


def test_a_request_split_at_any_byte_names_its_host(make):
    frames = []
    for cut in range(len(REQUEST)):
        frames += talk(make, REQUEST, (cut,), src=("10.0.0.1", 10000 + cut), at=cut * S)
    got = replay(make, frames, flow_slots=1024)
    assert brief(got) == [("http_host", "pool.example.org")] * len(REQUEST)
    assert {(text(r["address"]), r["port"], r["protocol"]) for r in got.names} == {(*SERVER, 6)}


def test_a_proxys_address_is_not_the_named_ones(make):
    frames = talk(
        make, b"CONNECT pool.example.org:3333 HTTP/1.1\r\nHost: proxy\r\n\r\n", dst=("93.0.0.1", 8080)
    )
    (row,) = replay(make, frames).names
    assert (row["name"], row["address"], row["port"]) == ("pool.example.org", None, 3333)


def test_a_host_asked_again_and_again_is_told_of_once_a_minute(make):
    frames = [
        f
        for k in range(90)
        for f in talk(make, REQUEST, handshake=not k, at=k * S, seq=1000 + k * len(REQUEST))
    ]
    assert len(replay(make, frames).names) == 2


def test_other_hosts_stay(make):
    got = replay(make, talk(make, REQUEST.replace(b"Pool", b"Loop")))
    assert got.names == []
    assert got.moved["names_seen_total", "http_host"] == 1


MESSAGE = HELLO[5:]
HALVES = [crypto(200, MESSAGE[200:]), crypto(0, MESSAGE[:200])]


@pytest.mark.parametrize("version", [1, V2])
def test_a_quic_clients_name_is_told_with_its_fingerprint(make, version):
    for frames in ([MESSAGE_FRAME], HALVES):
        sent = [
            (k, make.udp(CLIENT, ("93.184.216.34", 443), seal(f, version, packet=k)))
            for k, f in enumerate(frames)
        ]
        (row,) = replay(make, sent).names
        assert streams.NAME_KINDS[row["kind"]] == "quic_server_name"
        assert (row["name"], row["port"], row["protocol"], row["ja4"][0]) == (
            "eu.miners.example",
            443,
            17,
            "q",
        )


MESSAGE_FRAME = crypto(0, MESSAGE)


def test_what_a_quic_client_sends_later_and_what_the_server_sends_is_not_decrypted(make):
    server = ("93.184.216.34", 443)
    frames = [
        (0, make.udp(CLIENT, server, seal(MESSAGE_FRAME))),
        (1, make.udp(server, CLIENT, seal(b"\2\0\0\0\0"))),
        (2, make.udp(CLIENT, server, seal(b"\2\0\0\0\0", packet=1))),
    ]
    got = replay(make, frames)
    assert len(got.names) == 1
    assert got.moved["names_seen_total", "quic_server_name"] == 1


def test_after_a_retry_the_clients_new_hello_is_read(make):
    server = ("93.184.216.34", 443)
    frames = [
        (0, make.udp(CLIENT, server, seal(HALVES[1]))),
        (1, make.udp(server, CLIENT, b"\xf0\0\0\0\1" + bytes(60))),
        (
            2,
            make.udp(
                CLIENT, server, seal(MESSAGE_FRAME, connection_id=b"r" * 8, keys_of=b"r" * 8, token=b"t")
            ),
        ),
    ]
    assert brief(replay(make, frames)) == [("quic_server_name", "eu.miners.example")]


def test_a_storm_of_forged_quic_costs_its_budget_and_hides_nobody_elsewhere(make):
    forged = seal(MESSAGE_FRAME)[:-1] + b"!"
    storm = [(k, make.udp(("10.0.0.9", 1024 + k), ("93.0.0.1", 443), forged)) for k in range(900)]
    got = replay(make, [*storm, *talk(make, HELLO, at=1000)], names_a_second=16, flow_slots=2048)
    assert brief(got) == TLS
    assert got.moved["names_refused_total", "corrupt"] == 4
    assert got.moved["names_withheld_total", "quic"] == 896


def test_a_storm_of_quic_from_one_client_leaves_half_to_others_on_whatever_connections(make):
    """Of 64 a second: the first 32 go to whoever comes, then one address has a share."""
    forged = seal(MESSAGE_FRAME)[:-1] + b"!"
    server = ("93.0.0.1", 443)
    storm = [(k, make.udp(("10.0.0.9", 1024 + k), server, forged)) for k in range(900)]
    honest = [(1000 + k, make.udp((f"10.0.1.{k}", 4000), server, seal(MESSAGE_FRAME))) for k in range(28)]
    got = replay(make, [*storm, *honest], names_a_second=256, flow_slots=2048)
    assert brief(got) == [("quic_server_name", "eu.miners.example")] * 28
    assert got.moved["names_refused_total", "corrupt"] == 36
    assert got.moved["names_withheld_total", "share"] == 864
    # It is a second's: in the next the share is new.
    later = [(S + t, frame) for t, frame in storm]
    got = replay(make, [*storm, *later], names_a_second=256, flow_slots=2048)
    assert got.moved["names_refused_total", "corrupt"] == 72


def test_an_ipv6_client_is_its_64(make):
    server, forged = ("93.0.0.1", 443), seal(MESSAGE_FRAME)[:-1] + b"!"

    def six(host, net, frame):
        head = struct.pack(">IHBB", 0x60000000, len(frame) - 20, 17, 64)
        src = b"\x20\x01\x0d\xb8" + bytes([0, 0, 0, net]) + host.to_bytes(8, "big")
        return head + src + b"\x2a" + bytes(15) + frame[20:]

    storm = [(k, six(k, 1, make.udp(("10.0.0.9", 1024), server, forged))) for k in range(500)]
    other = [(1000, six(1, 2, make.udp(("10.0.0.9", 1024), server, seal(MESSAGE_FRAME))))]
    got = replay(make, [*storm, *other], names_a_second=256, flow_slots=2048)
    assert brief(got) == [("quic_server_name", "eu.miners.example")]
    assert got.moved["names_withheld_total", "share"] == 500 - 36


CLIENTS = st.tuples(
    st.integers(0, 1), st.integers(0, 3), st.sampled_from([5, 6, (0xFFFF << 32) | 7, (0xFFFF << 32) | 8])
)


@given(st.lists(st.tuples(st.integers(0, 3), CLIENTS), max_size=200), st.integers(1, 600))
def test_shares_agree_with_a_plain_account(asked, a_second):
    wanted = namesets.compile_wanted(["x"], (), (), a_second)
    second, total, had = 0, {}, {}
    for purse, (later, high, low) in asked:
        if later and purse == 3:
            second, total, had = second + 1, {}, {}
        room = max(1, a_second // (1, 4, 4, 4)[purse])
        who = (high, low if high == 0 and low >> 32 == 0xFFFF else 0, purse)
        plain = total.get(purse, 0) < room
        if plain and 2 * total.get(purse, 0) >= room:
            plain = had.get(who, 0) < max(4, room // 32)
            had[who] = had.get(who, 0) + plain
        total[purse] = total.get(purse, 0) + plain
        assert namesets.allow(purse, second + 1, np.uint64(high), np.uint64(low), wanted) == plain


FOLLOWED = st.tuples(st.integers(0, 12), st.integers(0, 1), st.integers(0, 3))


@given(st.lists(FOLLOWED, max_size=80))
def test_who_is_followed_agrees_with_a_plain_account(asked):
    """In two sets, so that they are full: who has no segments left gives way, then the oldest connection."""
    followed = np.zeros(2 * namesets.WAYS, namesets.FOLLOWED)
    sets = [[None] * namesets.WAYS for _ in range(2)]
    for n, (conn, d, segments) in enumerate(asked):
        namesets.follow(np.uint64(conn), np.int64(d), segments, n, 1, followed)
        ways = sets[((conn * 2 + d) * 0x9E3779B97F4A7C15 % 2**64 >> 32) % 2]
        live = [way is not None and way[1] > 0 for way in ways]
        same = [k for k, way in enumerate(ways) if live[k] and way[0] == (conn, d)]
        free = [k for k in range(namesets.WAYS) if not live[k]]
        oldest = min(range(namesets.WAYS), key=lambda k: ways[k][0][0] if ways[k] else 0)
        ways[(same + free + [oldest])[0]] = ((conn, d), segments, n)
        told = {way[0]: way[1:] for ways in sets for way in ways if way and way[1] > 0}
        for one, way in ((c, w) for c in range(13) for w in range(2)):
            k = namesets.place_of(np.uint64(one), np.int64(way), followed)
            assert (k >= 0) == ((one, way) in told)
            if k >= 0:
                assert (followed[k]["segments"], followed[k]["octets"]) == told[one, way]


def test_more_clients_than_there_is_room_for_are_counted_and_lose_nothing_of_theirs():
    wanted = namesets.compile_wanted(["x"], (), (), 1 << 20)
    wanted.spent[0] = 1 << 19
    wanted.spent[-1] = 1
    for k in range(3000):
        assert namesets.allow(0, 1, np.uint64(0), np.uint64((0xFFFF << 32) | k), wanted)
    assert wanted.counts[namesets.FORGOTTEN] >= 3000 - wanted.clients.size
    assert wanted.counts[namesets.SHARES] == 0


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=8), st.sampled_from([53, 443, 3333]))
def test_any_bytes_pass(make, parts, port):
    begins = [b"\x16\3\1\1\0\1", b"\x16\3\3\0\x40\2\0\0", b"GET / HTTP/1.1\r\nHost: ", b"CONNECT ", b"\0\x20"]
    frames = []
    for k, part in enumerate(parts):
        data = begins[k % 5] + part
        frames += talk(
            make, data, (k,), src=(RESOLVER[0], port), dst=CLIENT, handshake=not k, at=k, seq=50 * k
        )
        frames.append((k, make.udp((RESOLVER[0], port), CLIENT, b"\xc0\0\0\0\1\x08" + part * 40)))
    replay(make, frames, wanted=NameFilter((), [""]))


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="needs ../shared")
def test_over_all_captures_the_pass_lets_through_what_a_plain_reading_finds(make):
    """The twin: ``dissect`` reads every message of every connection in plain Python, and picks nothing."""
    everywhere, counted = subscribers.home(["0.0.0.0/0", "::/0"]), {}
    for path in sorted(CAPTURES.rglob("*.pcap*")):
        blocks = make.read(path.read_bytes())
        got = make.replay(
            blocks, home=everywhere, wanted=NameFilter((), [""]), names_a_second=1 << 20, flow_slots=4096
        )
        told = {(streams.NAME_KINDS[r["kind"]], r["name"]) for r in got.names}
        plain = set()
        for found in dissect.read(blocks, lambda _: True).found:
            for part, kind in WHERE.get(found.what, ()):
                plain |= {(kind, name) for name in found.fields.get(part, ())[:MAX_TOLD]}
        assert told == plain, path.name
        for kind, _ in told:
            counted[kind] = counted.get(kind, 0) + 1
    assert counted["tls_server_name"] > 100
    assert counted["http_host"] > 50
    assert counted["certificate"] > 5


@given(st.data())
def test_only_names_that_are_wanted_leave(make, data):
    """Whatever else is in the traffic, and however the wanted ones are written."""
    host = st.sampled_from(
        ["pool.example.org", "POOL.Example.org.", "a.MINERS.example", "chess.example", "ool.example.org"]
    )
    hosts = data.draw(st.lists(host, max_size=6))
    frames = []
    for k, name in enumerate(hosts):
        src = ("10.0.0.1", 20000 + k)
        frames += talk(make, hello(server_name(name.encode())), src=src, at=k * S)
        frames += talk(
            make, REQUEST.replace(b"Pool.Example.org", name.encode()), src=src, dst=("93.0.0.1", 80), at=k * S
        )
        frames.append(
            (k * S, make.udp(src, ("93.0.0.1", 443), seal(crypto(0, hello(server_name(name.encode()))[5:]))))
        )
    wanted = [n.lower().removesuffix(".") for n in hosts if WANTED.match(n)]
    assert sorted(name for _, name in brief(replay(make, frames))) == sorted(wanted * 3)

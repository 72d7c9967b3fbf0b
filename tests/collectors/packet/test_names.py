"""Names from frames to rows: who is believed, who owns the row, what a flood or a cut changes."""

import re
import shutil
import struct
import subprocess
from hashlib import sha256
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from scapy.layers.dns import DNS, DNSQR, DNSRR

from collectors import streams, subscribers
from collectors.errors import ConfigError
from collectors.packet import collector as packet_collector
from collectors.packet import gathering
from collectors.packet.names import NameFilter

S = 10**9
RESOLVER, ASKER = ("9.9.9.9", 53), ("10.0.0.1", 40000)
SERVER = ("93.184.216.34", 3333)
WANTED = NameFilter(["pool.example.org"], ["miners.example"])
SHARED = Path(__file__).parents[4] / "shared" / "captures" / "packets" / "public-pcapplusplus"


def answer(*records, asked="pool.example.org", **fields):
    found = [DNSRR(rrname=n, type=t, rdata=d, ttl=300) for n, t, d in records or [(asked, "A", "5.6.7.8")]]
    return bytes(DNS(qr=1, qd=DNSQR(qname=asked), an=found, **fields))


def hello(name=b"eu.miners.example", padding=0):
    """A client hello that offers ALPN ``stratum`` after ``padding`` octets, and names the server last."""

    def vector(width, data):
        return len(data).to_bytes(width, "big") + data

    def extension(kind, data):
        return struct.pack(">H", kind) + vector(2, data)

    extensions = extension(16, vector(2, b"\x07stratum")) + extension(21, bytes(padding))
    extensions += extension(0, vector(2, b"\0" + vector(2, name)))
    body = b"\3\3" + bytes(32) + b"\0" + vector(2, b"\x13\1") + b"\1\0" + vector(2, extensions)
    return b"\x16\3\1" + vector(2, b"\1" + vector(3, body))


def segments(make, data, sizes=(), src=ASKER, dst=SERVER, at=0, handshake=True):
    """``data`` in segments of the given sizes, the last one takes the rest; then the server speaks."""
    out = [(at, make.tcp(src, dst, 1000, 0, make.SYN))] if handshake else []
    seq = 1001
    for size in (*sizes, len(data)):
        if data:
            out.append((at + 1000 * len(out), make.tcp(src, dst, seq, 1, make.ACK, data[:size])))
            seq, data = seq + len(data[:size]), data[size:]
    return [*out, (at + 1000 * len(out), make.tcp(dst, src, 1, seq, make.ACK, b"\x15\3\3\0\2\1\0"))]


def replay(make, frames, wanted=WANTED, resolvers=(RESOLVER[0],), **config):
    blocks = make.read(make.pcap(frames))
    return make.replay(blocks, wanted=wanted, dns_resolvers=resolvers, **config)


def text(packed):
    a = IPv6Address(packed)
    return str(a.ipv4_mapped or a)


def brief(rows):
    return [(r["name"], r["alias"], text(r["address"]), text(r["subscriber"])) for r in rows]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("pool.example.org", True),
        ("POOL.example.org.", True),
        ("a.pool.example.org", False),
        ("example.org", False),
        ("miners.example", True),
        ("a.b.Miners.example", True),
        ("xminers.example", False),
        ("", False),
    ],
)
def test_suffixes_hold_at_label_boundaries(make, name, wanted):
    assert WANTED.match(name) == wanted
    if name:
        got = replay(make, [(0, make.udp(RESOLVER, ASKER, answer(asked=name)))])
        assert len(got.names) == wanted
        got = replay(make, segments(make, hello(name.encode())))
        assert len(got.names) == wanted


def test_runs_that_share_their_metrics_add_up(make):
    registry = CollectorRegistry()
    metrics = packet_collector.Metrics(registry)
    for answers in (2, 1):
        made = packet_collector.Collector(
            packet_collector.Config(dns_resolvers=(RESOLVER[0],), flow_slots=64),
            subscribers.home(), 4, lambda *_: None, metrics, WANTED,
        )  # fmt: skip
        for block in make.read(make.pcap([(n, make.udp(RESOLVER, ASKER, answer())) for n in range(answers)])):
            made.feed(block)
        made.finish()
    seen = "poolwatch_collector_packet_names_seen_total"
    assert registry.get_sample_value(seen, {"kind": "dns"}) == 3


def test_an_empty_filter_looks_at_nothing_and_the_empty_suffix_at_everything(make):
    frames = [(0, make.udp(RESOLVER, ASKER, answer(asked="www.chess.example"))), *segments(make, hello())]
    for nothing in (None, NameFilter()):
        got = replay(make, frames, wanted=nothing)
        assert got.names == []
        assert not any(key[0].startswith(("names", "dns")) for key in got.moved)
    assert [r["kind"] for r in replay(make, frames, wanted=NameFilter((), [""])).names] == [0, 1]
    with pytest.raises(ConfigError, match="xn--"):
        NameFilter(["münz.example"])


def test_a_dns_answer_is_a_row_per_address_and_the_askers(make):
    data = answer(
        ("pool.example.org", "CNAME", "eu.miners.example"),
        ("eu.miners.example", "A", "5.6.7.8"),
        ("eu.miners.example", "AAAA", "2a00::1"),
        ("other.example", "A", "6.6.6.6"),
    )
    got = replay(make, [(5 * S, make.udp(RESOLVER, ASKER, data))])
    assert brief(got.names) == [
        ("pool.example.org", None, "5.6.7.8", "10.0.0.1"),
        ("pool.example.org", None, "2a00::1", "10.0.0.1"),
    ]
    row = got.names[0]
    assert streams.NAME_KINDS[row["kind"]] == "dns"
    assert (row["t"], row["ttl"], text(row["resolver"]), row["copy"]) == (5 * S, 300, "9.9.9.9", 0)
    assert row["port"] is row["protocol"] is row["alpn"] is row["ja4"] is None


def test_a_name_behind_an_alias_says_who_was_asked_for(make):
    data = answer(
        ("My.Example.net", "CNAME", "EU.miners.example"),
        ("eu.miners.example", "A", "5.6.7.8"),
        asked="My.Example.net",
    )
    got = replay(make, [(0, make.udp(RESOLVER, ASKER, data))])
    assert brief(got.names) == [("eu.miners.example", "my.example.net", "5.6.7.8", "10.0.0.1")]
    data = answer(("eu.miners.example", "CNAME", "cdn.example"), ("cdn.example", "A", "5.6.7.8"), asked="x.y")
    assert replay(make, [(0, make.udp(RESOLVER, ASKER, data))]).names == []


def test_forged_answers_of_others_are_not_published(make):
    frames = [
        (0, make.udp(("9.9.9.8", 53), ASKER, answer())),
        (1, make.udp(("9.9.9.9", 5353), ASKER, answer())),
        (2, make.udp(ASKER, RESOLVER, bytes(DNS(qd=DNSQR(qname="pool.example.org"))))),
    ]
    got = replay(make, frames)
    assert got.names == []
    assert got.moved["dns_strangers_total",] == 1
    assert replay(make, [(0, make.udp(RESOLVER, ASKER, answer()))], resolvers=()).names == []
    with pytest.raises(ConfigError, match=r"dns_resolvers: '9\.9\.9'"):
        replay(make, [], resolvers=("9.9.9",))


def test_a_resolver_at_home_does_not_own_the_row(make):
    where = subscribers.home(["10.0.0.0/8"])
    frames = [(0, make.udp(("10.9.9.9", 53), ASKER, answer()))]
    for home in (where, subscribers.home([])):
        got = make.replay(make.read(make.pcap(frames)), home=home, wanted=WANTED, dns_resolvers=("10.9.9.9",))
        assert [(text(r["subscriber"]), r["copy"]) for r in got.names] == [("10.0.0.1", 0)]
    got = replay(make, [(0, make.udp(RESOLVER, ("8.8.8.8", 5), answer()))])
    assert got.names == []
    assert got.moved["not_home_total", "names"] == 1


def test_a_server_name_is_a_row_of_each_home_end(make):
    got = replay(make, segments(make, hello(), dst=("10.0.0.2", 443)))
    assert sorted((text(r["subscriber"]), r["copy"]) for r in got.names) == [("10.0.0.1", 0), ("10.0.0.2", 1)]
    row = got.names[0]
    assert streams.NAME_KINDS[row["kind"]] == "tls_server_name"
    assert (row["name"], text(row["address"]), row["port"], row["protocol"]) == (
        "eu.miners.example", "10.0.0.2", 443, 6,
    )  # fmt: skip
    assert (row["alpn"], row["ja4"][:10], row["t"]) == ("stratum", "t12d0103sm", 1000)
    assert row["alias"] is row["ttl"] is row["resolver"] is None


SIZES = st.lists(st.integers(6, 700), max_size=3)


@given(SIZES, st.integers(0, 700), st.booleans())
def test_a_hello_in_up_to_four_segments_is_whole(make, sizes, padding, handshake):
    got = replay(make, segments(make, hello(padding=padding), sizes, handshake=handshake))
    (row,) = got.names
    assert (row["name"], row["t"]) == ("eu.miners.example", 1000 if handshake else 0)
    assert row["ja4"] == replay(make, segments(make, hello())).names[0]["ja4"]


def test_a_hello_whose_segments_change_places_is_whole(make):
    frames = segments(make, hello(padding=600), (300,))
    frames[1], frames[2] = frames[2], frames[1]
    assert [r["name"] for r in replay(make, frames).names] == ["eu.miners.example"]


def test_a_hello_after_a_preamble_is_seen(make):
    frames = segments(make, hello())
    frames.insert(1, (1, make.tcp(ASKER, SERVER, 900, 0, make.ACK, b"\x05\x01\x00")))
    assert len(replay(make, frames).names) == 1


def test_of_a_hello_whose_rest_is_lost_the_name_is_told_without_ja4(make):
    whole = hello() + bytes(400)
    first = segments(make, whole[:3] + struct.pack(">H", 900) + whole[5:], (len(hello()),))[:2]
    got = replay(make, [*first, (5 * S, make.udp(ASKER, SERVER))])
    assert [(r["name"], r["ja4"]) for r in got.names] == [("eu.miners.example", got.names[0]["ja4"])]
    named_first = hello(padding=0)[:-4]
    got = replay(make, [*segments(make, named_first)[:2], (5 * S, make.udp(ASKER, SERVER))])
    assert got.names == []
    assert got.moved["names_refused_total", "short"] == 1


def test_a_hello_that_the_capture_cut_is_told_at_once(make):
    t, frame = segments(make, hello() + bytes(0))[1]
    longer = bytearray(frame)
    at = longer.index(b"\x16\3\1") + 3
    longer[at : at + 2] = struct.pack(">H", len(hello()) + 200)
    longer[at + 3 : at + 6] = (len(hello()) + 196 - 9 + 4).to_bytes(3, "big")
    struct.pack_into(">H", longer, 2, len(frame) + 200)
    got = replay(make, [(t, bytes(longer), len(frame) + 200)])
    assert [(r["name"], r["ja4"]) for r in got.names] == [("eu.miners.example", None)]


def test_a_flood_is_bounded_and_unclear_bytes_push_nobody_out(make):
    flood = [(k, make.udp(RESOLVER, ASKER, b"\0\1\x81\x80\0\1\0\0\0\0\0\0\x45")) for k in range(2000)]
    frames = [*flood, (3000, make.udp(RESOLVER, ASKER, answer())), *segments(make, hello(), at=4000)]
    got = replay(make, frames, names_a_second=8)
    assert len(got.names) == 2
    assert got.moved["names_withheld_total", "unclear"] == 1998
    assert got.moved["names_refused_total", "corrupt"] == 2
    many = [(k * S // 10, make.udp(RESOLVER, ASKER, answer())) for k in range(100)]
    assert len(replay(make, many, names_a_second=4).names) == 40


def test_a_hello_sent_together_with_much_else_is_read_and_one_without_end_is_refused(make):
    got = replay(make, segments(make, hello() + b"\x17\3\3" + bytes(40000)))
    assert [r["name"] for r in got.names] == ["eu.miners.example"]
    endless = b"\x16\3\1\x40\x00\1\0\x3f\xf0" + bytes(16000)
    got = replay(make, [f for f in segments(make, endless, (9000, 3000))[:3] for _ in range(2)])
    assert got.names == []
    assert got.moved["names_refused_total", "size"] == 1


def test_unfinished_hellos_are_bounded_and_the_oldest_goes(make, monkeypatch):
    monkeypatch.setattr(gathering, "MAX_GATHERED", 2)
    parts = [
        segments(make, hello(padding=300), (200,), src=("10.0.0.1", 40000 + k), at=10_000 * k)[:3]
        for k in range(4)
    ]
    got = replay(make, [p[1] for p in parts] + [p[2] for p in parts])
    assert len(got.names) == 2
    assert got.moved["names_evicted_total",] == 2
    assert got.moved["names_refused_total", "short"] == 2


def test_other_names_may_be_wanted_from_now_on(make):
    published = []
    collector = packet_collector.Collector(
        packet_collector.Config(dns_resolvers=(RESOLVER[0],), flow_slots=64),
        subscribers.home(),
        1,
        lambda stream, *rest: published.append((stream, rest[1])),
        packet_collector.Metrics(CollectorRegistry()),
    )
    frames = [(k * S, make.udp(RESOLVER, ASKER, answer(asked=f"n{k}.miners.example"))) for k in range(4)]
    for k, wanted in enumerate(
        (NameFilter(), WANTED, NameFilter(["n2.miners.example"]), NameFilter(["x.y"]))
    ):
        collector.want(wanted)
        for block in make.read(make.pcap(frames[k : k + 1])):
            collector.feed(block)
    collector.finish()
    told = [n for stream, rows in published if stream == "names" for n in rows.column("name").to_pylist()]
    assert told == ["n1.miners.example", "n2.miners.example"]


def test_more_names_than_the_pass_writes_at_once_are_all_there(make):
    frames = [(k, make.udp(RESOLVER, ("10.0.0.1", k), answer())) for k in range(1, 3000)]
    got = replay(make, frames, names_a_second=1 << 20, flow_slots=4096)
    assert [r["t"] for r in got.names] == list(range(1, 3000))


def test_all_that_moves(make):
    frames = [
        (0, make.udp(RESOLVER, ASKER, answer())),
        (1, make.udp(RESOLVER, ASKER, answer(asked="www.chess.example"))),
        (2, make.udp(RESOLVER, ASKER, answer(tc=1))),
        (3, make.udp(("8.8.8.8", 53), ASKER, answer())),
        *segments(make, hello(), at=10_000),
        *segments(make, hello(b"www.chess.example"), src=("10.0.0.1", 40001), at=20_000),
    ]
    got = replay(make, frames, partitions=2)
    mine = {k: v for k, v in got.moved.items() if "names" in "".join(k) or k[0].startswith("dns")}
    assert mine == {
        ("names_seen_total", "dns"): 3,
        ("names_seen_total", "tls_server_name"): 2,
        ("names_refused_total", "truncated"): 1,
        ("dns_strangers_total",): 1,
        ("rows_total", "names"): 2,
        ("batches_total", "names"): 1,
    }


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("dns"), st.sampled_from(["pool.example.org", "x.y", "a.miners.example"]), SIZES),
        st.tuples(st.just("bad"), st.binary(max_size=40), SIZES),
        st.tuples(st.just("tls"), st.sampled_from([b"eu.miners.example", b"x.y"]), SIZES),
    ),
    max_size=8,
)
CHANGES = st.lists(st.tuples(st.integers(0, 60), st.sampled_from(["swap", "repeat", "drop"])), max_size=6)


@given(EVENTS, CHANGES, st.sets(st.integers(0, 60), max_size=8), st.integers(1, 12), st.integers(0, 2 * S))
def test_blocks_cut_anywhere_give_the_same_names(make, events, changes, places, budget, pace):
    frames = []
    for k, (kind, what, sizes) in enumerate(events):
        asker = (f"10.0.0.{k % 3}", 40000 + k)
        if kind == "dns":
            frames.append((k * pace, make.udp(RESOLVER, asker, answer(asked=what))))
        elif kind == "bad":
            frames.append((k * pace, make.udp(RESOLVER, asker, b"\0\1\x81\x80" + what)))
        else:
            frames += segments(make, hello(what, padding=900), sizes, src=asker, at=k * pace)
    for at, what in changes:
        if at + 1 < len(frames):
            if what == "swap":
                frames[at], frames[at + 1] = frames[at + 1], frames[at]
            elif what == "repeat":
                frames.insert(at + 1, frames[at])
            else:
                del frames[at]
    if not frames:
        return
    (block,) = make.read(make.pcap(frames))
    config = {"wanted": WANTED, "dns_resolvers": (RESOLVER[0],), "names_a_second": budget, "flow_slots": 16}
    whole = make.replay([block], **config)
    parts = make.replay(make.cut(block, places), **config)
    for p in range(4):
        a, b = ([r for r in x.names if r["partition"] == p] for x in (whole, parts))
        assert a == b
    a, b = ({k: v for k, v in x.moved.items() if k[0] != "batches_total"} for x in (whole, parts))
    assert a == b


def tshark(path, fields, shown):
    """One list of texts per packet and field."""
    options = [o for f in fields for o in ("-e", f)]
    done = subprocess.run(
        ["tshark", "-r", path, "-n", "-Y", shown, "-T", "fields", "-E", "separator=|", *options],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return [
        [cell.split(",") if cell else [] for cell in line.split("|")] for line in done.stdout.splitlines()
    ]


# Dns4: addresses of the additional section only.  gtp: inside a tunnel.  The two loopbacks: a family of
# addresses that ``frames`` does not take for one.
NOT_THE_SAME = {"Dns4.pcap", "gtp.pcap", "NullLoopback.pcap", "null_loopback.pcap"}
ADDRESSES = ("ip.src", "ipv6.src", "dns.a", "dns.aaaa")
PARTS = tuple(
    f"tls.handshake.{part}"
    for part in (
        "extensions_server_name", "ciphersuite", "extension.type", "sig_hash_alg", "extensions_alpn_str",
        "extensions.supported_version", "version",
    )
)  # fmt: skip


def plain_ja4(name, ciphers, extensions, signatures, protocols, versions, version):
    """The fingerprint from the fields that tshark shows, as FoxIO's page has it."""
    numbers = [
        [int(v, 0) for v in values] for values in (ciphers, extensions, signatures, versions or version)
    ]
    ciphers, extensions, signatures, versions = (
        [v for v in values if v & 0x0F0F != 0x0A0A or v >> 8 != v & 255] for values in numbers
    )
    told = {0x304: "13", 0x303: "12", 0x302: "11", 0x301: "10", 0x300: "s3"}.get(max(versions), "00")
    alpn = protocols[0][0] + protocols[0][-1] if protocols else "00"
    b = ",".join(f"{c:04x}" for c in sorted(ciphers))
    c = ",".join(f"{e:04x}" for e in sorted(extensions) if e not in (0, 16))
    c += "_" + ",".join(f"{s:04x}" for s in signatures) if signatures else ""
    digest = [sha256(x.encode()).hexdigest()[:12] for x in (b, c)]
    sni = "d" if 0 in extensions else "i"
    return f"t{told}{sni}{len(ciphers):02d}{len(extensions):02d}{alpn}_{digest[0]}_{digest[1]}"


@pytest.mark.tools
@pytest.mark.skipif(not SHARED.is_dir() or not shutil.which("tshark"), reason="needs ../shared and tshark")
def test_addresses_server_names_and_fingerprints_are_those_that_tshark_reads(make):
    everywhere = subscribers.home(["0.0.0.0/0", "::/0"])
    counted = [0, 0]
    for path in sorted(SHARED.iterdir()):
        data = path.read_bytes()
        # tshark is slow to start: the port of an answer and its flags, or a handshake record's head.
        if path.name in NOT_THE_SAME or not re.search(
            rb"\0\x35.{8}[\x80-\x8f]|\x16\x03[\0-\x04]..\x01", data, re.S
        ):
            continue
        told = tshark(
            path, ADDRESSES + PARTS, f"udp.srcport == 53 && (dns.a || dns.aaaa) || {PARTS[0]} && tcp"
        )
        found, hellos = [t[:4] for t in told if not t[4]], [t[4:] for t in told if t[4]]
        if not told:
            continue
        resolvers = tuple({(v4 or v6)[-1] for v4, v6, *_ in found})
        got = make.replay(
            make.read(data), home=everywhere, wanted=NameFilter((), [""]), dns_resolvers=resolvers,
            names_a_second=1 << 20, flow_slots=4096,
        )  # fmt: skip
        rows = [r for r in got.names if not r["copy"]]
        dns = sorted(text(r["address"]) for r in rows if r["kind"] == 0)
        assert dns == sorted(str(ip_address(a)) for _, _, *sets in found for s in sets for a in s), path.name
        tls = sorted((r["name"], r["ja4"]) for r in rows if r["kind"] == 1)
        assert tls == sorted((h[0][0].lower(), plain_ja4(*h)) for h in hellos), path.name
        counted[0] += len(dns)
        counted[1] += len(tls)
    assert counted[0] > 1500
    assert counted[1] > 300

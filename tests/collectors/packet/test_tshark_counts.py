"""Packets, connections and octets in tunnels and of fragments: what we count is what tshark counts.

tshark reads all captures in one call: they are joined first, for it takes long to start.
"""

import shutil
import subprocess
from collections import Counter
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import numpy as np
import pytest

from collectors import subscribers
from collectors.packet import frames, pcapfile, tunnels

PUBLIC = Path(__file__).parents[4] / "shared" / "captures" / "packets" / "public-pcapplusplus"
CASES = Path(__file__).parents[2] / "cases"
# Of the captures in hand, those that hold tunnels, labels, sessions or tags; and those with fragments.
TUNNELS = (
    "GrePackets.cap", "GrePackets.pcap", "IPv4-encapsulated-IPv6.pcap", "IcmpWithoutTunnel.pcap",
    "MplsPackets.pcap", "PPPoESession.pcap", "QinQ_802.1_AD.pcapng", "VlanPackets.pcap", "Vxlan1.pcap",
    "Vxlan2.pcap", "gtp-u.pcap", "gtp.pcap", "gtpv2.pcap", "ip4_bad_fragment.pcap", "llc_vlan.pcap",
    "one_http_stream_rst.pcap", "sip_reqs.pcap",
)  # fmt: skip
FRAGMENTS = (
    "IPv4Frag.pcap", "frag_http_req.pcap", "frag_with_padding.pcap", "http_req_frag.pcap",
    "ip4_fragments.pcap", "ip6_fragments.pcap", "ipv6-frag.pcap", "ipv6_opt_fragments.pcap",
)  # fmt: skip
OURS = ("-in-", "in-vlans", "fragments")
# GTP-U goes to its port (3GPP TS 29.281 section 4.4.2); tshark believes what comes from it too.
NOT_TUNNELS = {("gtp.pcap", (2152, 1024))}
FIELDS = ("frame.protocols", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "ip.len", "ipv6.plen",
          "tcp.srcport", "tcp.dstport", "udp.srcport", "udp.dstport")  # fmt: skip

pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(not shutil.which("tshark") or not shutil.which("mergecap"), reason="needs tshark"),
]


def told(paths, tmp_path):
    """What tshark says of each frame: a dictionary of lists of its fields, outermost first."""
    joined = tmp_path / "all.pcapng"
    subprocess.run(["mergecap", "-a", "-w", joined, *paths], check=True, capture_output=True)
    command = ["tshark", "-n", "-r", joined, "-T", "fields", "-E", "separator=/t", "-E", "aggregator=;"]
    options = [o for name in ("ip", "ipv6") for o in ("-o", f"{name}.defragment:FALSE")]
    fields = [o for field in FIELDS for o in ("-e", field)]
    out = subprocess.run([*command, *options, *fields], check=True, capture_output=True, text=True).stdout
    for line in out.splitlines():
        yield dict(zip(FIELDS, (part.split(";") if part else [] for part in line.split("\t")), strict=True))


def innermost(row):
    """(the ends of the innermost packet, octets of the outermost, IP headers above each other); None without
    one.  What an ICMP error quotes is no packet."""
    layers = row["frame.protocols"][0].split(":")
    quoted = next((k for k, layer in enumerate(layers) if layer.startswith("icmp")), len(layers))
    heads = [layer for layer in layers[:quoted] if layer in ("ip", "ipv6")]
    if not heads:
        return None
    n = heads.count(heads[-1]) - 1
    src, dst = row[f"{heads[-1]}.src"][n], row[f"{heads[-1]}.dst"][n]
    octets = int(row["ip.len"][0]) if heads[0] == "ip" else 40 + int(row["ipv6.plen"][0])
    last = max(k for k, layer in enumerate(layers[:quoted]) if layer in ("ip", "ipv6"))
    above = next((layer for layer in layers[last + 1 : quoted] if layer in ("tcp", "udp")), None)
    ports = (0, 0)
    if above:
        m = layers[: last + 1].count(above)
        ports = int(row[f"{above}.srcport"][m]), int(row[f"{above}.dstport"][m])
    return (plain(src), plain(dst), *ports), octets, len(heads)


def plain(text):
    found = ip_address(text)
    return str(getattr(found, "ipv4_mapped", None) or found)


def ours(path):
    """(ends, octets, whether in a tunnel, refusal) of each frame."""
    with path.open("rb") as file:
        for b in pcapfile.blocks(file):
            read, codes = np.zeros(b.offset.size, frames.FRAME), np.zeros(b.offset.size, np.int64)
            frames.decode_all(*b.columns[:4], b.link, read, codes)
            for f, code in zip(read, codes, strict=True):
                ends = [
                    plain(str(IPv6Address(int(f[f"{side}_high"]) << 64 | int(f[f"{side}_low"]))))
                    for side in ("src", "dst")
                ]
                ports = int(f["src_port"]), int(f["dst_port"])
                yield (*ends, *ports), int(f["octets"]), int(f["tunnel"]), int(code), int(f["fragment"])


def cases():
    return sorted(p for p in CASES.glob("*/*.pcap*") if any(word in p.parent.name for word in OURS))


def test_tunnels_tags_and_labels_are_counted_as_tshark_counts_them(tmp_path):
    paths = [*cases(), *(PUBLIC / name for name in TUNNELS if PUBLIC.is_dir())]
    rows = told(paths, tmp_path)
    kinds, packets, refused = Counter(), 0, 0
    for path in paths:
        mine, theirs = Counter(), Counter()
        octets = [0, 0]
        for ends, size, tunnel, code, fragment in ours(path):
            row = innermost(next(rows))
            if code or fragment:
                refused += 1
                continue
            assert row is not None, (path.name, ends)
            if (path.name, ends[2:]) in NOT_TUNNELS:
                continue
            mine[ends] += 1
            theirs[row[0]] += 1
            octets[0] += size
            octets[1] += row[1]
            kinds[tunnel] += 1
            assert (row[2] > 1) == (tunnel > 0), (path.name, ends, row)
        packets += mine.total()
        assert mine == theirs, path.name
        assert octets[0] == octets[1], path.name
    assert next(rows, None) is None
    assert packets > 7000
    assert refused < packets / 4
    assert {name for kind, name in tunnels.NAMES.items() if kinds[kind] > 30} >= {
        "ERSPAN", "GENEVE", "GRE", "GTP-U", "IP-in-IP", "6in4", "VXLAN",
    }  # fmt: skip


def test_fragments_are_counted_as_tshark_counts_them(make, tmp_path):
    """Each is a packet of its connection, and has its own octets; what is refused is counted apart."""
    paths = [*cases(), *(PUBLIC / name for name in FRAGMENTS if PUBLIC.is_dir())]
    paths = [p for p in paths if "fragments" in str(p) or p.parent == PUBLIC]
    rows, everywhere, seen = told(paths, tmp_path), subscribers.home(["0.0.0.0/0", "::/0"]), 0
    for path in paths:
        blocks = make.read(path.read_bytes())
        theirs = [innermost(next(rows)) for _ in range(sum(b.offset.size for b in blocks))]
        got = make.replay(blocks, home=everywhere, flow_slots=4096)
        first = [r for r in got.flows if not r["copy"]]
        refused = sum(n for (name, *_), n in got.moved.items() if name == "refused_total")
        packets = sum(r["packets"] + r["reverse_packets"] for r in first)
        assert packets + refused == len(theirs), path.name
        if not refused:
            octets = sum(r["bytes"] + r["reverse_bytes"] for r in first)
            assert octets == sum(row[1] for row in theirs), path.name
        seen += got.moved.get(("fragments_total", "seen"), 0)
    assert next(rows, None) is None
    assert seen > 300

"""A mixed capture is what its list says: same seed, same bytes; its miners say what the recordings say."""

import collections
import json
import shutil
import subprocess
from ipaddress import ip_address, ip_network

import mixed
import pytest
import rewrite_captures
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.utils import PcapReader

HOME = [ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")]
OPTIONS = mixed.Options(packets=20_000, connections=600, mining_share=0.05, seed=5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("mixed") / "mixed.pcap"
    mixed.write(path, OPTIONS)
    return path


@pytest.fixture(scope="module")
def told(made):
    return json.loads((made.parent / f"{made.name}.json").read_text())


def at_home(address):
    return any(
        ip_address(address) in network for network in HOME if network.version == ip_address(address).version
    )


def test_equal_seeds_give_equal_bytes(made, tmp_path):
    mixed.write(tmp_path / "again.pcap", OPTIONS)
    assert (tmp_path / "again.pcap").read_bytes() == made.read_bytes()


def test_the_list_says_what_was_asked_for(told):
    assert told["packets"] == OPTIONS.packets
    assert 560 < told["connections"] <= 600
    assert len(told["mining"]) == 30
    assert 350 < told["mean_packet_bytes"] < 560
    assert told["payload_share"] > 0.75


def test_each_miner_is_a_home_subscriber_of_its_own_and_servers_are_not_home(told):
    clients = [row["client"] for row in told["mining"]]
    assert len(set(clients)) == len({row["server"] for row in told["mining"]}) == len(clients)
    assert all(at_home(client) for client in clients)
    assert not any(at_home(row["server"]) for row in told["mining"])


def test_mining_connections_carry_the_recording_and_their_subscribers_nothing_else(made, told):
    listed = {(row["client"], row["client_port"]): row for row in told["mining"]}
    miners = {row["client"] for row in told["mining"]}
    said, peers = collections.defaultdict(dict), collections.defaultdict(set)
    with PcapReader(str(made)) as packets:
        for packet in packets:
            layer = packet.getlayer(IP) or packet.getlayer(IPv6)
            for ours, theirs in ((layer.src, layer.dst), (layer.dst, layer.src)):
                if ours in miners:
                    peers[ours].add(theirs)
            if TCP in packet and (layer.src, packet[TCP].sport) in listed and packet[TCP].payload:
                said[layer.src, packet[TCP].sport][packet[TCP].seq] = bytes(packet[TCP].payload)
    assert peers == {ours: {row["server"]} for (ours, _), row in listed.items()}
    for key, row in listed.items():
        stream = b"".join(said[key][seq] for seq in sorted(said[key]))
        assert stream.count(b"\n") >= 2 or row["dialect"] == "cryptonote"
        assert recorded(row["recording"]).startswith(stream)


def recorded(name):
    """What the client said on the last connection of a recording."""
    opened, stream = None, b""
    for _, frame in rewrite_captures.frames((mixed.PCAPS / name).read_bytes()):
        source, target, flags = rewrite_captures.ends(frame)
        if flags & 0x12 == 0x02:
            opened, stream = (source, target), b""
        if (source, target) == opened:
            stream += frame[34 + 4 * (frame[46] >> 4) :]
    return stream


@pytest.mark.tools
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_checksums_are_right(made):
    fields = ("ip.checksum.status", "tcp.checksum.status", "udp.checksum.status")
    checks = ("ip.check_checksum:TRUE", "tcp.check_checksum:TRUE", "udp.check_checksum:TRUE")
    told = subprocess.run(
        ["tshark", "-r", made, "-T", "fields", *(a for f in fields for a in ("-e", f)),
         *(a for c in checks for a in ("-o", c))],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert set("".join(told.stdout.split())) == {"1"}  # 1 is good

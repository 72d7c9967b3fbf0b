"""Every row of section 6 of the dialect reference on the wire, through the whole path: no incident."""

from draw import Draw
from lookalikes import SECTION_6
from prometheus_client import CollectorRegistry
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap
from speakers import SPEAKERS
from speakers.speaking import ACCEPTED

from detector import app
from detector.config import Config

TIMES = 3


def connection(host, port, said):
    """Packets of a connection: what was said, and the acknowledgements of it."""
    client, server = ("198.51.100." + str(host), 40000), ("203.0.113.9", port)
    seq, out, now = {True: 1000, False: 9000}, [], 1_700_000_000 + host

    def put(from_client, flags, data=b""):
        nonlocal now
        (src, sport), (dst, dport) = (client, server) if from_client else (server, client)
        now += 0.05
        packet = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src=src, dst=dst) / TCP(
            sport=sport, dport=dport, seq=seq[from_client], ack=seq[not from_client], flags=flags
        ) / data  # fmt: skip
        packet.time = now
        out.append(packet)
        seq[from_client] += len(data) + ("S" in flags)

    put(True, "S")
    put(False, "SA")
    put(True, "A")
    for data, from_client in said:
        for at in range(0, len(data), 1400):
            put(from_client, "PA", data[at : at + 1400])
            put(not from_client, "A")
    return out


def mined():
    """What a miner and its pool say, one share."""
    speaker = SPEAKERS[0]()
    said = [*speaker.open(), *speaker.job(0, speaker.hashes, True)[0], ("c", speaker.share(0))]
    said.append(("s", speaker.reply(said[-1][1], ACCEPTED)))
    return [(speaker.dump(message), side == "c") for side, message in said]


def scan(path, packets):
    """Incidents of the packets, and chunks that were looked at as candidates."""
    wrpcap(str(path), sorted(packets, key=lambda packet: packet.time))
    registry = CollectorRegistry()
    replay = app.Replay(app.Detector(Config(), registry), str(path))
    replay.run(lambda: False, lambda _: None)
    looked = registry.get_sample_value("poolwatch_collector_packet_rows_total", {"stream": "payloads"})
    return [found.incident for found in replay.found()], looked


def test_no_row_of_section_6_is_an_incident_and_a_miner_among_them_is(tmp_path):
    packets, host = [], 1
    for families in SECTION_6.values():
        for family in families:
            for seed in range(TIMES):
                draw = Draw(seed)
                packets += connection(host, draw.some(3333, 8080, 50001, 443), list(family(draw)))
                host += 1
    packets += connection(host, 3333, mined())
    incidents, looked = scan(tmp_path / "all.pcap", packets)
    assert host < 255
    assert [(one.subscriber, one.state.value) for one in incidents] == [(f"198.51.100.{host}", "confirmed")]
    assert looked > 500

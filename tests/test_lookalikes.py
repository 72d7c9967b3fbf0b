"""Every row of section 6 of the dialect reference on the wire, through the whole path: no incident."""

from dialogues import connection
from draw import Draw
from lookalikes import SECTION_6
from prometheus_client import CollectorRegistry
from scapy.utils import wrpcap
from speakers import SPEAKERS
from speakers.speaking import ACCEPTED

from detector import app
from detector.config import Config

TIMES = 3
START_S = 1_700_000_000


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
                packets += connection(
                    host, draw.some(3333, 8080, 50001, 443), list(family(draw)), START_S + host
                )
                host += 1
    packets += connection(host, 3333, mined(), START_S + host)
    incidents, looked = scan(tmp_path / "all.pcap", packets)
    assert host < 255
    assert [(one.subscriber, one.state.value) for one in incidents] == [(f"198.51.100.{host}", "confirmed")]
    assert looked > 500

"""Everything that moves in a replay, compared whole; and what promtool says of it."""

import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from detector import app
from detector.config import Config
from detector.exporters.http import Http, split_address
from detector.exporters.prometheus import Capped

PCAPS = Path(__file__).parent.parent / "pcaps"
UNKNOWN = {"coin": "unknown", "operator": "unknown", "basis": "protocol"}
NOWHERE = {"sector": "unknown", "city": "unknown"}


def replayed(*names):
    registry = CollectorRegistry()
    detector = app.Detector(Config(), registry)
    for name in names:
        app.Replay(detector, str(PCAPS / f"{name}.pcap")).run(lambda: False, lambda _: None)
    return registry


def moved(registry):
    """Every sample that is not zero, wall times apart."""
    return {
        (s.name.removeprefix("poolwatch_"), *sorted(s.labels.items())): s.value
        for family in registry.collect()
        for s in family.samples
        if s.value and "batch_seconds" not in s.name
    }


def key(name, **labels):
    return (name, *sorted(labels.items()))


def test_all_that_moves_in_a_replay_is_what_is_true_of_it():
    """tshark's counts of the three files: 65, 84 and 22 packets, 12,809 + 8,296 + 2,276 octets of frames;
    IP octets up and down 3,963 and 7,936, 3,774 and 3,346 in the two that mine (test_captures counts them
    too); a share in 15 of the first; 7 refused connections in the second; one connection in the third."""
    got = moved(replayed("cpuminer-sha256d", "cpuminer-unauthorized", "chat"))
    rate = got.pop(key("hashrate", algorithm="sha256d"))
    assert got.pop(key("hashrate_variance", algorithm="sha256d")) == pytest.approx(rate**2 / 15)
    for device, joules in (("low", 14e-12), ("typical", 19e-12), ("high", 24e-12)):
        watts = got.pop(key("power_watts", algorithm="sha256d", device=device))
        assert watts == pytest.approx(rate * joules)
        daily = got.pop(key("energy_kwh_per_day", algorithm="sha256d", device=device))
        assert daily == pytest.approx(watts * 24 / 1000)
        assert got.pop(key("energy_kwh_per_day_by_coin", coin="unknown", device=device)) == daily
    assert rate == pytest.approx(15 * 0.004 * 2**32 / 53.29, rel=1e-3)
    # The last minute of each file: what of it lies in that minute depends on where its records were cut.
    for direction in ("up", "down"):
        assert 0 < got.pop(key("mining_mbps", direction=direction, **UNKNOWN)) < 11_282 * 8 / 60e6
    messages = {s: got.pop(key("detector_messages_total", stream=s)) for s in ("flows", "payloads")}
    for stream, count in messages.items():
        assert got.pop(key("collector_packet_batches_total", stream=stream)) == count > 0
    assert 0 < got.pop(key("collector_packet_scanned_bytes_total")) < 11_849
    assert 0 < got.pop(key("collector_packet_search_steps_total")) < 11_849
    assert got == {
        key("collector_packet_frames_total"): 65 + 84 + 22,
        key("collector_packet_bytes_total"): 12_809 + 8_296 + 2_276,
        key("collector_packet_metered_total"): 65 + 84 + 22,
        key("collector_packet_connections_total"): 1 + 7 + 1,
        key("collector_packet_tentative_total"): 1 + 7,
        key("collector_packet_candidates_total"): 1 + 7 + 1,
        key("collector_packet_rows_total", stream="flows"): 9,
        key("collector_packet_rows_total", stream="payloads"): 107,
        # All payload of the miners (8,503 and 2,640), and of the chat what follows the first quoted line.
        key("collector_packet_payload_bytes_total"): 8_503 + 2_640 + 706,
        key("detector_rows_total", stream="flows"): 9,
        key("detector_rows_total", stream="payloads"): 107,
        key("detector_meter_rows_total"): 9,
        key("detector_sightings_rows_total"): 9,
        key("detector_endpoints_rebuilt_total"): 3,
        # Documentation addresses are no place to learn from: an accepted share each.
        key("detector_learner_unroutable_total"): 15,
        key("detector_meter_kept_total"): 9,
        key("detector_payload_rows_total"): 107,
        key("detector_payload_bytes_total"): 8_503 + 2_640 + 706,
        key("detector_payload_opened_total"): 9,
        # 5 jobs, 15 shares, 15 answers, 5 of the login; 7 times 4; the chat's are no JSON.
        key("detector_payload_lines_total"): 5 + 30 + 5 + 28,
        key("detector_payload_refused_total", reason="text"): 6,
        key("build_info", version="0.1.0"): 1,
        key("mining_bytes_total", direction="up", **UNKNOWN): 3_963 + 3_774,
        key("mining_bytes_total", direction="down", **UNKNOWN): 7_936 + 3_346,
        key("mining_bytes_by_place_total", direction="up", basis="protocol", **NOWHERE): 3_963 + 3_774,
        key("mining_bytes_by_place_total", direction="down", basis="protocol", **NOWHERE): 7_936 + 3_346,
        key("mining_mbps_timestamp_seconds"): 1795349520,
        key("miners", state="confirmed"): 1,
        key("miners", state="suspected"): 1,
        key("miners_by_coin", coin="unknown"): 1,
        key("miners_by_place", **NOWHERE): 1,
        key("alerts_firing", severity="page", coin="unknown", sector="unknown"): 1,
        key("alerts_firing", severity="ticket", coin="unknown", sector="unknown"): 1,
        key("incident_transitions_total", to="suspected"): 2,
        key("incident_transitions_total", to="confirmed"): 1,
        key("evidence_total", kind="job", rule="btc-v1.notify"): 5,
        key("evidence_total", kind="login_refused", rule="btc-v1"): 7,
        key("evidence_total", kind="mining_request", rule="btc-v1.subscribe"): 8,
        key("evidence_total", kind="mining_request", rule="mining.authorize"): 8,
        key("evidence_total", kind="mining_session", rule="btc-v1"): 5,
        key("evidence_total", kind="share", rule="btc-v1.submit"): 15,
        key("evidence_total", kind="share_accepted", rule="btc-v1"): 15,
        key("evidence_total", kind="share_verified", rule="btc-v1"): 15,
    }


@pytest.mark.tools
@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool (Debian package prometheus)")
def test_promtool_accepts_the_metrics():
    registry = replayed("cpuminer-sha256d", "xmrig-plain")
    for text in (generate_latest(registry), generate_latest(CollectorRegistry())):
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
        assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"")


def test_names_are_ours_and_counters_are_totals():
    families = list(replayed().collect())
    assert all(f.name.startswith("poolwatch_") for f in families)
    assert {"poolwatch_miners", "poolwatch_mining_mbps", "poolwatch_hashrate"} <= {f.name for f in families}


def test_label_sets_are_capped_and_the_overflow_is_counted():
    capped = Capped(most=2)
    first = {("up", "a"): 1.0, ("up", "b"): 2.0}
    assert capped("x", first) == first
    assert capped("x", first | {("up", "c"): 3.0, ("up", "d"): 4.0}) == first | {("up", "other"): 7.0}
    assert capped.overflowed == 2


def fetch(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_the_listener_answers_for_the_loop():
    health = {"live": True, "ready": False}
    with Http("127.0.0.1:0", replayed("chat"), lambda: health["live"], lambda: health["ready"]) as http:
        assert fetch(http.port, "/livez") == (200, b"ok\n")
        assert fetch(http.port, "/readyz")[0] == 503
        health["ready"] = True
        assert fetch(http.port, "/readyz")[0] == 200
        assert b"poolwatch_collector_packet_frames_total 22.0" in fetch(http.port, "/metrics")[1]
        assert fetch(http.port, "/etc/passwd")[0] == 404
        codes = []
        many = [
            threading.Thread(target=lambda: codes.append(fetch(http.port, "/metrics")[0])) for _ in range(8)
        ]
        for thread in many:
            thread.start()
        for thread in many:
            thread.join()
        assert codes == [200] * 8


@pytest.mark.parametrize("listen", ["", "9464", "here", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536"])
def test_an_address_that_is_none_is_refused(listen):
    with pytest.raises(ValueError, match=r"http\.listen"):
        split_address(listen)


def test_an_ipv6_address_is_one():
    assert split_address("[::1]:9464") == ("::1", 9464)

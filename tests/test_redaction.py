"""Redaction over the whole path: a wallet of several subscribers is one campaign, and its text is nowhere."""

import json

import msgspec
from dialogues import connection
from prometheus_client import CollectorRegistry
from scapy.utils import wrpcap

from detector import app
from detector.campaigns import Campaigns
from detector.campaigns import Config as Linked
from detector.config import Config, Output

WALLET = "44AFFq5kSiGBoZ4NMDwYtN18obc8AemS33DBLWs3H7otXft3XjrpDtQGv7SqSsaBYBb98uNbr2VBBEt7f2wfn3RVGQBEP3A"
JOB = {"blob": "1010" + "ab" * 74, "job_id": "j1", "target": "b88d0600", "algo": "rx/0", "height": 3}


def mined(worker):
    """A login with the wallet, and a share, as XMRig and its pool say it."""
    login = {"login": f"{WALLET}.{worker}", "pass": "x", "agent": "XMRig/6.21.0"}
    share = {"id": "s", "job_id": "j1", "nonce": "d0030040", "result": "e1" * 32}
    said = (
        ({"id": 1, "jsonrpc": "2.0", "method": "login", "params": login}, True),
        ({"id": 1, "jsonrpc": "2.0", "result": {"id": "s", "job": JOB, "status": "OK"}}, False),
        ({"id": 2, "jsonrpc": "2.0", "method": "submit", "params": share}, True),
        ({"id": 2, "jsonrpc": "2.0", "error": None, "result": {"status": "OK"}}, False),
    )
    return [(json.dumps(line).encode() + b"\n", side) for line, side in said]


def found(path, config):
    """Incidents of a capture, and the campaigns among them."""
    replay = app.Replay(app.Detector(config, CollectorRegistry()), str(path))
    replay.run(lambda: False, lambda _: None)
    incidents = [one.incident for one in replay.found()]
    campaigns = Campaigns(Linked())
    for one in incidents:
        campaigns.take(one)
    return incidents, campaigns.found()


def test_a_redacted_wallet_is_the_same_campaign_and_its_text_is_nowhere(tmp_path):
    packets = [p for host in (1, 2, 3) for p in connection(host, 3333, mined(f"office-{host}"))]
    path = tmp_path / "three.pcap"
    wrpcap(str(path), sorted(packets, key=lambda p: p.time))
    key = tmp_path / "key"
    key.write_text("secret")
    plain, (open_,) = found(path, Config())
    hidden, (redacted,) = found(path, Config(output=Output(redact=True, redact_key_file=str(key))))
    assert [one.state.value for one in plain] == ["confirmed"] * 3
    assert open_.name == WALLET
    assert (open_.subscribers, open_.coins) == (redacted.subscribers, redacted.coins) == (3, ("XMR",))
    assert redacted.name.startswith("redacted:")
    told = msgspec.json.encode([hidden, redacted]).decode()
    assert WALLET[:12] not in told
    assert "office" not in told
    assert WALLET in msgspec.json.encode(plain).decode()

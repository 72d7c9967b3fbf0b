"""Campaigns before a real broker: a wallet that is spread over partitions is linked by every detector."""

import argparse
import json
import time
from contextlib import ExitStack

import documents
import msgspec
from prometheus_client import CollectorRegistry

from collectors.kafka import clients, topics
from collectors.kafka.config import Config as KafkaConfig
from collectors.kafka.sender import Sender
from detector import campaigncli
from detector.campaigns import Config as CampaignConfig
from detector.config import Config
from detector.document import Account
from detector.exporters.campaigns import Linking
from detector.exporters.kafka import Records
from detector.member import Others

WALLET = (Account("w" * 40, ("XMR",), True, "w" * 40),)


def test_a_wallet_over_partitions_is_one_campaign_of_all_and_replays_are_none_of_it(kafka, prefix):
    made = KafkaConfig(bootstrap_servers=(kafka.address,), topic_prefix=prefix, partitions=4, replication=1)
    with clients.admin(made) as admin:
        topics.create(admin, made)
    config = Config(bus="kafka", kafka=made)
    with Sender(made, CollectorRegistry(), streams=("incidents",)) as sender:
        records = Records(sender.send_json, 4)
        for number in range(4):
            records.incident("", number, documents.document(number, wallets=WALLET))
            records.incident("a file", number, documents.document(10 + number, wallets=WALLET))
        sender.wait(records.pending(), 10)
    said: list[str] = []
    assert campaigncli.run(config, argparse.Namespace(files=[], json=True, least=None), said.append) == 0
    (told,) = [json.loads(line) for line in said]
    assert (told["subscribers"], told["members"]) == (4, [f"198.51.100.{n}" for n in range(4)])
    linking = Linking(CampaignConfig(), CollectorRegistry())
    with ExitStack() as stack:
        others = Others(config, stack, 4, linking)
        until_s = time.monotonic() + 20
        while time.monotonic() < until_s and sum(c.subscribers for c in linking.found()) < 4:
            others.turn()
            time.sleep(0.02)
    (found,) = linking.found()
    assert msgspec.to_builtins(found)["members"] == (
        "198.51.100.0",
        "198.51.100.1",
        "198.51.100.2",
        "198.51.100.3",
    )

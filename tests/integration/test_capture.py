"""``poolwatch collect packets --interface`` before a real broker."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from collectors import wire
from collectors.kafka import clients, topics
from collectors.kafka.config import Config

ROOT = Path(__file__).parent.parent.parent
POOLWATCH = Path(sys.executable).parent / "poolwatch"
LOGIN = b'{"id":1,"jsonrpc":"2.0","method":"login","params":{"login":"44Cb","pass":"x","agent":"XMRig"}}\n'


def talk(listener):
    """Say a miner's first line over the loopback."""
    with socket.create_connection(listener.getsockname()) as miner:
        miner.sendall(LOGIN)
        with listener.accept()[0] as pool:
            assert pool.recv(4096) == LOGIN


@pytest.mark.skipif(os.geteuid() != 0, reason="capture needs root or CAP_NET_RAW")
def test_a_live_collector_of_packets_sends_what_it_sees(kafka, prefix):
    site = Config(bootstrap_servers=(kafka.address,), topic_prefix=prefix, partitions=4, replication=1)
    with clients.admin(site) as admin:
        topics.create(admin, site)
    environment = os.environ | {
        "POOLWATCH_BUS": "kafka",
        "POOLWATCH_KAFKA__BOOTSTRAP_SERVERS": kafka.address,
        "POOLWATCH_KAFKA__TOPIC_PREFIX": prefix,
        "POOLWATCH_KAFKA__PARTITIONS": "4",
        "POOLWATCH_KAFKA__REPLICATION": "1",
    }
    with socket.create_server(("127.0.0.1", 0)) as listener:
        only = f"tcp port {listener.getsockname()[1]}"
        process = subprocess.Popen(
            [POOLWATCH, "collect", "packets", "--interface", "lo", "--filter", only, "--listen",
             "127.0.0.1:0"],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        watch = threading.Timer(120, process.kill)
        watch.start()
        try:
            told = [process.stderr.readline()]
            while told[-1] and "receiving on lo" not in told[-1]:
                told.append(process.stderr.readline())
            assert told[-1], told
            status = Path(f"/proc/{process.pid}/status").read_text()
            talk(listener)
            consumer = clients.consumer(site)
            places = [clients.TopicPartition(topics.topic(site, "payloads"), p) for p in range(4)]
            consumer.assign(places)
            consumer.seek_to_beginning()
            said = []
            while not said:
                assert process.poll() is None
                said = [r for records in consumer.poll(timeout_ms=500).values() for r in records]
            consumer.close()
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=40)
        finally:
            watch.cancel()
            process.kill()
            process.communicate()
    assert process.returncode == 0, err
    assert "sent" in err
    assert "Uid:\t65534" in status
    header = wire.from_headers(said[0].headers)
    assert (header.run, header.ends, bool(header.life)) == ("", False, True)
    assert LOGIN in b"".join(row["data"] for row in wire.decode("payloads", said[0].value).to_pylist())

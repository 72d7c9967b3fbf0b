"""IPFIX over TCP and TLS in the commands: a session in, records out."""

import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
POOLWATCH = str(Path(sys.executable).parent / "poolwatch")
T0 = 1_790_000_000
# Addresses, ports, protocol, octets, packets, first and last in seconds.
FIELDS = ((8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 4), (2, 4), (150, 4), (151, 4))


def message(sets, number):
    return struct.pack(">HHIII", 10, 16 + len(sets), T0 + 60, number, 7) + sets


def template():
    body = struct.pack(">HH", 256, len(FIELDS)) + b"".join(struct.pack(">HH", *f) for f in FIELDS)
    return message(struct.pack(">HH", 2, 4 + len(body)) + body, 0)


def data(number, records=20):
    ends = ip_address("198.51.100.7").packed + ip_address("203.0.113.3").packed
    record = ends + struct.pack(">HHBIIII", 40000, 3333, 6, 1200, 10, T0, T0 + 50)
    return message(struct.pack(">HH", 256, 4 + records * len(record)) + records * record, number)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Running:
    def __init__(self, process, http, port):
        self.process, self.http, self.port = process, http, port

    def value(self, name):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics", timeout=5) as answer:
                found = re.search(rf"^{re.escape(name)} (\S+)$", answer.read().decode(), re.M)
        except urllib.error.URLError:
            return 0.0
        return float(found[1]) if found else 0.0

    def until(self, name, value):
        ends = time.monotonic() + 90
        while self.value(name) != value:
            if time.monotonic() > ends or self.process.poll() is not None:
                self.process.kill()
                pytest.fail(f"{name} is {self.value(name)}: {self.process.communicate()[1].decode()}")
            time.sleep(0.05)


@contextmanager
def collecting(transport, **more):
    http, port = free_port(), free_port()
    environment = os.environ | {f"POOLWATCH_COLLECTORS__NETFLOW__{transport.upper()}__PORT": str(port)} | more
    arguments = ["collect", "flows", "--udp", "127.0.0.1", "--ports", "0", "--listen", f"127.0.0.1:{http}"]
    with subprocess.Popen(
        [POOLWATCH, *arguments],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            while f"{transport.upper()} {port}\n".encode() not in process.stderr.readline():
                assert process.poll() is None
            yield Running(process, http, port)
        finally:
            process.kill()


READ = 'poolwatch_collector_netflow_records_total{kind="flow",protocol="ipfix"}'


def closed(transport, reason):
    return f'poolwatch_collector_netflow_sessions_closed_total{{reason="{reason}",transport="{transport}"}}'


def test_records_of_a_session_are_read_and_one_that_dies_in_a_message_loses_that_one():
    with collecting("tcp") as one:
        with socket.create_connection(("127.0.0.1", one.port)) as router:
            router.sendall(template() + data(0) + data(20)[:-7])
            one.until(READ, 20)
        one.until(closed("tcp", "cut"), 1)
        with socket.create_connection(("127.0.0.1", one.port)) as router:
            router.sendall(data(20) + data(40))
            one.until(READ, 60)
        one.until(closed("tcp", "peer"), 1)
        one.process.send_signal(signal.SIGTERM)
        one.process.communicate(timeout=60)
    assert one.process.returncode == 0


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_records_come_over_tls_and_certificates_are_reloaded_on_sighup(tmp_path):
    def sign(name):
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ]
        command += ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem", "-subj", f"/CN={name}"]
        subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)

    def router():
        trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        return trusting.wrap_socket(
            socket.create_connection(("127.0.0.1", one.port)), server_hostname="127.0.0.1"
        )

    sign("first")
    files = {
        "POOLWATCH_COLLECTORS__NETFLOW__TLS__CERTIFICATE": str(tmp_path / "cert.pem"),
        "POOLWATCH_COLLECTORS__NETFLOW__TLS__KEY": str(tmp_path / "key.pem"),
    }
    with collecting("tls", **files) as one, router() as first:
        first.sendall(template() + data(0))
        one.until(READ, 20)
        sign("second")
        told = 'poolwatch_list_last_reload_timestamp_seconds{list="netflow_tls"}'
        before = one.value(told)
        one.process.send_signal(signal.SIGHUP)
        ends = time.monotonic() + 60
        while one.value(told) == before:
            assert time.monotonic() < ends
            time.sleep(0.05)
        with router() as second:
            second.sendall(data(20))
            one.until(READ, 40)
        first.sendall(data(40))
        one.until(READ, 60)


def test_files_of_tls_that_are_not_there_are_found_by_check(tmp_path):
    (tmp_path / "c.toml").write_text(
        '[collectors.netflow.tls]\nport = 4740\ncertificate = "/no.pem"\nkey = "/no.key"\n'
    )
    done = subprocess.run(
        [POOLWATCH, "check", "--config", tmp_path / "c.toml"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert b"collectors.netflow.tls.certificate: /no.pem: No such file" in done.stderr

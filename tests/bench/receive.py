"""The highest rate of export datagrams that is received without loss, ours beside nfcapd's, over loopback.

    .venv/bin/python tests/bench/receive.py [--seconds 60] [--formats v9,v5] [--who ours,nfcapd]

One sender process (sendmmsg, paced, one source address an exporter) sends the datagrams of ``flows.py``'s
inputs, each pass with later times and sequence numbers, to a receiver with one worker and a socket buffer of
``--buffer`` octets in all.  Ours decodes all of it into batches of ``flows``; the publisher counts rows.
nfcapd (Debian's nfdump) decodes and writes files, not compressed, to /dev/shm.  A rate is held when the
sender kept to it for ``--seconds`` and the kernel dropped none of what it sent (/proc/net/udp), and, for
ours, all were counted.  Trials of ``--trial`` seconds look for the rate, then it is held; one that fails then
is lowered by a tenth.  CPU is the receiver's, user and system, from its first datagram to its last.

Sender and receiver share the machine's cores: with two of them the sender has one.
"""

import argparse
import ctypes
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from flows import Input, inputs
from processes import machine
from prometheus_client import CollectorRegistry

from collectors import subscribers
from collectors.netflow import batches
from collectors.netflow.certificates import Certificates
from collectors.netflow.collector import Collector, Config, warm
from collectors.netflow.listening import Tcp, Tls
from collectors.netflow.metrics import Metrics
from collectors.netflow.ports import Ports
from collectors.netflow.receiving import Metrics as ReceivingMetrics
from collectors.netflow.receiving import Receiving

PORT = 29955
BATCH = 64
LIBC = ctypes.CDLL(None, use_errno=True)


class Sender:
    """Datagrams of a generated capture, to ``PORT``, so many a second."""

    def __init__(self, path):
        self._input = Input(path)
        self._sockets = []
        for n in range(len(self._input.addresses)):
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            one.bind((f"127.0.0.{n + 2}", 0))
            one.connect(("127.0.0.1", PORT))
            self._sockets.append(one)
        # struct mmsghdr and struct iovec, as words of 8 octets.
        self._vectors = np.zeros((BATCH, 2), np.int64)
        self._messages = np.zeros((BATCH, 8), np.int64)
        self._messages[:, 2] = self._vectors.ctypes.data + 16 * np.arange(BATCH)
        self._messages[:, 3] = 1

    def send(self, rate, seconds):
        """Datagrams sent, and seconds that it took."""
        sent, began = 0, time.monotonic()
        while True:
            self._input.renew()
            at, size, exporter = self._input.at, self._input.size, self._input.exporter
            base = self._input.data.ctypes.data
            order = np.arange(len(at))
            for a in range(0, len(at), BATCH):
                part = order[a : a + BATCH]
                for n in range(len(self._sockets)):
                    mine = part[exporter[part] == n]
                    self._vectors[: len(mine), 0] = base + at[mine]
                    self._vectors[: len(mine), 1] = size[mine]
                    done = 0
                    while done < len(mine):
                        pointer = ctypes.c_void_p(self._messages.ctypes.data + 64 * done)
                        vectors = self._vectors[done:].ctypes.data
                        self._messages[done:, 2] = vectors + 16 * np.arange(BATCH - done)
                        got = LIBC.sendmmsg(self._sockets[n].fileno(), pointer, len(mine) - done, 0)
                        if got < 0:
                            raise OSError(ctypes.get_errno(), "sendmmsg")
                        done += got
                sent += len(part)
                now = time.monotonic() - began
                if now >= seconds:
                    return sent, now
                if sent / rate > now:
                    time.sleep(sent / rate - now)


def drops():
    """What the kernel dropped at our port until now."""
    lines = Path("/proc/net/udp").read_text().splitlines()[1:]
    return sum(int(line.split()[-1]) for line in lines if int(line.split()[1].split(":")[1], 16) == PORT)


def serve(buffer_bytes, sockets):
    """Receive until standard input ends; what came of it, as JSON."""
    rows = [0]

    def publish(_stream, _partition, batch, _header):
        rows[0] += batch.num_rows

    registry = CollectorRegistry()
    metrics = Metrics(registry)
    warm()
    batches.warm()
    collector = Collector(Config(), subscribers.home(), 32, publish, metrics)
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    with (
        Ports("127.0.0.1", (PORT,), each=sockets, buffer_bytes=buffer_bytes // sockets) as ports,
        Receiving(
            ports.share(0),
            Tcp(),
            Certificates(Tls()),
            (),
            ReceivingMetrics(registry),
            metrics.socket_drops.inc,
            apart=True,
        ) as receiving,
    ):
        print(f"ready {ports.granted_bytes * sockets}", flush=True)
        began = None
        while not over.is_set():
            for block in receiving.turn(0.1):
                began = began or resource.getrusage(resource.RUSAGE_SELF)
                collector.feed(block, time.time_ns())
    used = resource.getrusage(resource.RUSAGE_SELF)
    collector.finish()
    cpu = used.ru_utime + used.ru_stime - (began.ru_utime + began.ru_stime if began else 0)
    name = "poolwatch_collector_netflow_datagrams_total"
    counted = sum(
        registry.get_sample_value(name, {"protocol": p}) or 0 for p in ("netflow5", "netflow9", "ipfix")
    )
    print(json.dumps({"cpu_s": cpu, "datagrams": int(counted), "records": rows[0]}), flush=True)


class Ours:
    """This program's own receiver, in a process of its own."""

    def __init__(self, options):
        command = [
            sys.executable,
            __file__,
            "--serve",
            "--buffer",
            options.buffer,
            "--sockets",
            options.sockets,
        ]
        self._process = subprocess.Popen([*map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.granted = int(self._process.stdout.readline().split()[1])

    def end(self):
        time.sleep(1)
        lost = drops()
        out, _ = self._process.communicate(timeout=60)
        told = json.loads(out)
        return lost, told["datagrams"], told["records"], told["cpu_s"]


class Nfcapd:
    """nfcapd, its files taken away as it finishes them."""

    def __init__(self, options):
        self._folder = tempfile.mkdtemp(dir="/dev/shm")
        self._told = (Path(self._folder) / "told").open("w+")
        command = ["nfcapd", "-w", self._folder, "-p", PORT, "-b", "127.0.0.1", "-t", 5, "-B", options.buffer]
        self._process = subprocess.Popen([*map(str, command)], stdout=self._told, stderr=self._told)
        time.sleep(1)
        self.granted = options.buffer
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sweep)
        self._thread.start()

    def _sweep(self):
        while not self._over.wait(1):
            for path in Path(self._folder).glob("nfcapd.2*"):
                path.unlink()

    def end(self):
        time.sleep(1)
        lost = drops()
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(") ")[2].split()
        cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        self._process.terminate()
        self._process.wait(60)
        self._over.set()
        self._thread.join()
        self._told.seek(0)
        records = sum(int(n) for n in re.findall(r"Flows: (\d+)", self._told.read()))
        self._told.close()
        shutil.rmtree(self._folder)
        return lost, None, records, cpu


WHO = {"ours": Ours, "nfcapd": Nfcapd}


def trial(who, path, rate, seconds, options):
    """One rate for so long; the figures, and whether it was held."""
    receiver = WHO[who](options)
    command = [sys.executable, __file__, "--send", path, "--rate", rate, "--seconds", seconds]
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, check=True, timeout=seconds * 2 + 60)
    sent, took = json.loads(done.stdout)
    lost, counted, records, cpu = receiver.end()
    achieved = sent / took
    held = lost == 0 and counted in (None, sent) and achieved > 0.98 * rate
    print(
        f"  {who} {path.stem}: asked {rate:,.0f}/s, sent {sent:,} at {achieved:,.0f}/s in {took:.0f} s, lost "
        f"{lost:,}, records {records:,}, CPU {cpu:.2f} s{'' if held else ': not held'}",
        file=sys.stderr,
        flush=True,
    )
    per_m = cpu / (records / 1e6) if records else 0.0
    return held, {"rate": achieved, "sent": sent, "lost": lost, "records": records, "cpu_per_m": per_m}


def highest(who, path, options):
    """The highest rate that was held, and its figures; None for none."""
    low, high = 0.0, options.most
    rate = options.first
    while high - low > 0.1 * high:
        held, _ = trial(who, path, rate, options.trial, options)
        low, high = (rate, high) if held else (low, rate)
        rate = min(high, rate * 1.5) if high == options.most else (low + high) / 2
        if low == options.most:
            break
    rate = low
    while rate > 1000:
        held, told = trial(who, path, rate, options.seconds, options)
        if held:
            return told
        rate *= 0.9
    return None


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--trial", type=float, default=5)
    arguments.add_argument("--first", type=float, default=30_000)
    arguments.add_argument("--most", type=float, default=400_000)
    arguments.add_argument("--buffer", type=int, default=4 << 20)
    arguments.add_argument("--sockets", type=int, default=1)
    arguments.add_argument("--formats", default="v9,v5")
    arguments.add_argument("--who", default="ours,nfcapd")
    arguments.add_argument("--at", type=float, default=0, help="one rate, no search")
    arguments.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments.add_argument("--send", help=argparse.SUPPRESS)
    arguments.add_argument("--rate", type=float, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.serve:
        serve(options.buffer, options.sockets)
        return 0
    if options.send:
        print(json.dumps(Sender(Path(options.send)).send(options.rate, options.seconds)))
        return 0
    print(f"{machine()}; load {os.getloadavg()[0]:.1f}; socket buffer {options.buffer >> 10} KiB\n")
    print("| | datagrams/s held | sent | lost | M records/s | CPU s per M records |")
    print("|---|---|---|---|---|---|")
    for name in options.formats.split(","):
        for who in options.who.split(","):
            if who == "nfcapd" and not shutil.which("nfcapd"):
                continue
            path = inputs(name)
            if options.at:
                _, told = trial(who, path, options.at, options.seconds, options)
            else:
                told = highest(who, path, options)
            if told is None:
                print(f"| {name}, {who} | none |")
                continue
            a_second = told["records"] / told["sent"] * told["rate"] / 1e6
            print(
                f"| {name}, {who} | {told['rate']:,.0f} | {told['sent']:,} | {told['lost']:,} "
                f"| {a_second:.2f} | {told['cpu_per_m']:.3f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Other flow collectors over a generated capture: what they read, and the CPU time of their processes.

Each is left out, and that is said, where it is not installed or cannot be built.  nfcapd of Debian reads no
file, so it is sent the datagrams over loopback at a rate that it holds; a run in which one was lost is said
to be so.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

GOFLOW2 = "github.com/netsampler/goflow2/v2 v2.2.6"
PORT = 29_955
TICK = os.sysconf("SC_CLK_TCK")


def cpu_s(pid):
    """User and system time of a process so far, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def told_by(path):
    """The generator's totals."""
    return json.loads(path.with_suffix(".pcap.json").read_text())


def payloads(path):
    """The datagrams of the capture, one after another."""
    raw, at = path.read_bytes(), 24
    while at + 16 <= len(raw):
        size = int.from_bytes(raw[at + 8 : at + 12], "little")
        yield raw[at + 16 + 42 : at + 16 + size]
        at += 16 + size


def nfcapd(path, folder, rate=8_000):
    """nfcapd, not compressed, to memory: records that nfdump then finds in its files, CPU of nfcapd alone.

    Where a datagram was lost, the same at half the rate: what is measured is CPU time, not the rate.
    """
    for _ in range(3):
        found = _nfcapd(path, rate)
        if not found["lost"]:
            break
        rate /= 2
    return found


def _nfcapd(path, rate):
    told = told_by(path)
    sent = list(payloads(path))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as store:
        command = ["nfcapd", "-w", store, "-p", str(PORT), "-b", "127.0.0.1", "-t", "3600"]
        command += ["-B", str(32 << 20)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(1)
            before = cpu_s(process.pid)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
                out.connect(("127.0.0.1", PORT))
                send, due = out.send, time.monotonic()
                for at in range(0, len(sent), 20):
                    # Time that was missed, when somebody else had the processor, is not made up for.
                    due = max(due + 20 / rate, time.monotonic())
                    for payload in sent[at : at + 20]:
                        send(payload)
                    time.sleep(max(0, due - time.monotonic()))
            time.sleep(2)
            used = cpu_s(process.pid) - before
            drops = dropped(PORT)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        found = subprocess.run(["nfdump", "-R", store, "-I"], capture_output=True, text=True, check=False)
        flows = re.search(r"^Flows:\s*(\d+)", found.stdout, re.M)
        octets = re.search(r"^Bytes:\s*(\d+)", found.stdout, re.M)
    records = int(flows[1]) if flows else 0
    exact = records == told["records"] and (not octets or int(octets[1]) == told["bytes"])
    return {"records": records, "cpu_s": used, "exact": exact, "lost": drops}


def dropped(port):
    """Datagrams that found a full buffer, by /proc/net/udp."""
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{port:04X}"):
            return int(fields[-1])
    return 0


def nfacctd(path, folder):
    """nfacctd over the capture, one counter by protocol: its whole process tree.

    1.7.7 hands records to its plugin in buffers of 768, and counts the last of them, half filled, with what
    was left in it from before: totals that are too high by no more than that, 0.04 %, are taken for exact.
    """
    told = told_by(path)
    with tempfile.TemporaryDirectory() as place:
        out = Path(place, "out.json")
        # A port beside a file is refused.  Without the wait its core ends before its plugin has read all.
        Path(place, "conf").write_text(
            f"pcap_savefile: {path}\npcap_savefile_wait: true\naggregate: proto\nplugins: print\n"
            f"print_output: json\nprint_output_file: {out}\nprint_refresh_time: 3600\n"
            "plugin_pipe_zmq: true\nplugin_pipe_zmq_profile: large\n"
        )
        process = subprocess.Popen(
            ["nfacctd", "-f", str(Path(place, "conf"))], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            used = idle(process.pid)
            process.send_signal(signal.SIGINT)  # its plugin then writes what it has
            for _ in range(100):
                time.sleep(0.1)
                if out.exists() and process.poll() is not None:
                    break
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    near = [0 <= sum(r[k] for r in rows) / told[k] - 1 < 0.0004 for k in ("bytes", "packets")]
    return {"records": told["records"], "cpu_s": used, "exact": all(near)}


def tree(pid):
    """A process and all that descend from it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def idle(pid, most_s=120):
    """CPU seconds of a tree once it has used none for a while."""
    seen, since, end = 0.0, time.monotonic(), time.monotonic() + most_s
    while time.monotonic() < end:
        time.sleep(0.3)
        try:
            now = sum(cpu_s(p) for p in tree(pid))
        except OSError:
            break
        if now > seen + 0.02:
            seen, since = now, time.monotonic()
        elif seen and time.monotonic() - since > 3:
            break
    return seen


def goflow2(path, folder, seconds=5.0):
    """goflow2's decoder, protobuf producer and binary format, on one core."""
    told = told_by(path)
    program = folder / "goflow2" / "goflow2"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(__file__).with_name("goflow2.go"), program.parent / "main.go")
        (program.parent / "go.mod").write_text(f"module bench\n\ngo 1.24\n\nrequire {GOFLOW2}\n")
        for command in (["go", "mod", "tidy"], ["go", "build", "-o", "goflow2", "."]):
            subprocess.run(command, cwd=program.parent, check=True, capture_output=True, timeout=600)
    passes = 1 if seconds < 10 else 5
    done = subprocess.run([program, path, str(passes)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    found["exact"] = all(found[k] == passes * told[k] for k in ("records", "packets", "bytes"))
    del found["octets"]
    return found


PEERS = {
    "nfcapd, loopback UDP, /dev/shm": ("nfcapd", nfcapd),
    "nfacctd, aggregate proto": ("nfacctd", nfacctd),
    "goflow2 v2.2.6, protobuf": ("go", goflow2),
}


def measure(path, folder, seconds):
    """Each peer's name and what it did; one that cannot run is said to be missing."""
    for what, (program, function) in PEERS.items():
        if not shutil.which(program):
            print(f"{what:34} missing: no {program} here", flush=True)
            continue
        more = {"seconds": seconds} if function is goflow2 else {}
        try:
            found = function(path, folder, **more)
            if found["exact"] and not found.get("lost"):
                yield what, found
            else:
                told = f"{found['records']:,} records, {found.get('lost', 0):,} datagrams lost"
                print(f"{what:34} no result: totals differ ({told})", flush=True)
        except (subprocess.SubprocessError, OSError) as error:
            print(f"{what:34} missing: {error}", flush=True)

"""Two-sided mining sessions, written from the specifications; shares no code with the parsers.

A ``Talk`` is one TCP connection: what each side says becomes PAYLOADS rows with sequence and
acknowledgement numbers.  The makers below also tell the truth: accepted shares, their expected hashes.
"""

# ruff: noqa: E501  # real lines are long
import json
from dataclasses import dataclass, field

from payload_rows import MAPPED, row

SECOND = 1_000_000_000
HASH = "5e80729c263654c028b4e1445c2360ac8c0db25c2f6d791ec146b573f060dff2"
XMR = "44Cbd9oUdEV6dwNMT9mWfdwQnswQT2SEUkB9JT7Krh8RCYKEwxWmGBpSAC9dXvjM68jgUJ5FK68RGEreWEmPigqBiekxyTn"
ETH = "0x17fa2dd80f7a7e06d7c1c400911d31690a8ff606"
BLOB = "1010122eeb74fc4837761b8f18facde0125b536644eac6671ebef3bded35459047217f453446aa00000000cd50511e46"


def dump(message, blanks=True):
    """JSON as most miners write it."""
    return json.dumps(message, separators=None if blanks else (",", ":")).encode()


class Talk:
    """One connection; ``rows`` grows as it is spoken."""

    def __init__(self, miner=1, port=40000, pool=1, start=0xFFFFFF00, begun=True, protocol=6):
        self.client = (MAPPED + bytes([198, 51, 100, miner]), port)
        self.server = (MAPPED + bytes([203, 0, 113, pool]), 3333)
        self.base = {"c": start, "s": (start * 7 + 5) & 0xFFFFFFFF}
        self.seq = dict(self.base)
        self.begun, self.protocol = begun, protocol
        self.rows = []
        self.now = 1_700_000_000 * SECOND

    def say(self, who, data, flags=0):
        """Bytes of one side in one chunk."""
        src, dst = (self.client, self.server) if who == "c" else (self.server, self.client)
        other = "s" if who == "c" else "c"
        self.rows.append(row(
            subscriber=self.client[0], src=src[0], dst=dst[0], src_port=src[1], dst_port=dst[1],
            t=self.now, offset=(self.seq[who] - self.base[who]) & 0xFFFFFFFF, seq=self.seq[who],
            ack=self.seq[other], flags=flags | (2 if self.begun else 0), data=data, protocol=self.protocol,
        ))  # fmt: skip
        self.seq[who] = (self.seq[who] + len(data)) & 0xFFFFFFFF

    def c(self, message, end=b"\n"):
        """One message of the client."""
        self.say("c", (message if type(message) is bytes else dump(message)) + end)

    def s(self, message, end=b"\n"):
        """One message of the server."""
        self.say("s", (message if type(message) is bytes else dump(message)) + end)

    def wait(self, seconds=1):
        """Let time pass."""
        self.now += int(seconds * SECOND)


@dataclass
class Truth:
    """What a session told, by the specification."""

    dialect: str
    algorithm: str | None = None
    accepted: int = 0
    rejected: int = 0
    hashes: float = 0.0
    workers: set = field(default_factory=set)


def btc(talk, difficulties=(512, 1024), shares=3, reject=1):
    """Stratum v1: a difficulty holds from the next notify on."""
    truth = Truth("btc-v1", workers={"bc1qlabonly.rig"})
    talk.c({"id": 1, "method": "mining.subscribe", "params": ["spoken/1.0"]})
    talk.s({"id": 1, "result": [[["mining.notify", "ae"]], "08000002", 4], "error": None})
    talk.c({"params": ["bc1qlabonly.rig", "x"], "id": "auth", "method": "mining.authorize"})
    talk.s({"id": "auth", "result": True, "error": None})
    for n, d in enumerate(difficulties):
        talk.s({"id": None, "method": "mining.set_difficulty", "params": [d]})
        if n:  # a share of the old job after the new difficulty still counts the old one
            _submit_btc(talk, f"j{n - 1}", True)
            truth.accepted, truth.hashes = truth.accepted + 1, truth.hashes + difficulties[n - 1]
        talk.s({"id": None, "method": "mining.notify", "params": [
            f"j{n}", HASH, "0100", "ffff", [HASH], "20000000", "1702905c", "6b02def0", True]})  # fmt: skip
        for k in range(shares + reject):
            good = k < shares
            _submit_btc(talk, f"j{n}", good)
            truth.accepted, truth.rejected = truth.accepted + good, truth.rejected + (not good)
            truth.hashes += d if good else 0
    return truth  # hashes are difficulties: the algorithm is not told


def _submit_btc(talk, job, good):
    talk.wait()
    talk.c({"method": "mining.submit", "params": ["bc1qlabonly.rig", job, "00000000", "6b02def0", "541a0000"],
            "id": 4})  # fmt: skip
    talk.s({"id": 4, "result": good or None, "error": None if good else [23, "Low difficulty", None]})


def cryptonote(talk, targets=("37120500", "5b1f9a4407190000"), shares=3, reject=1):
    """CryptoNote: each job has its own target, little-endian."""
    truth = Truth("cryptonote", "rx/0", workers={XMR + ".rig"})
    for n, target in enumerate(targets):
        job = {
            "blob": BLOB,
            "job_id": f"job{n}",
            "target": target,
            "algo": "rx/0",
            "height": 3,
            "seed_hash": HASH,
        }
        if n == 0:
            talk.c(dump({"id": 1, "jsonrpc": "2.0", "method": "login", "params": {
                "login": XMR + ".rig", "pass": "x", "agent": "XMRig/6 libuv/1", "algo": ["rx/0"]}}, False))  # fmt: skip
            talk.s(
                {"id": 1, "jsonrpc": "2.0", "error": None, "result": {"id": "s", "job": job, "status": "OK"}}
            )
        else:
            talk.s({"jsonrpc": "2.0", "method": "job", "params": job})
        t = int.from_bytes(bytes.fromhex(target), "little")
        each = 0xFFFFFFFF // t if len(target) == 8 else 2**64 / t
        for k in range(shares + reject):
            talk.wait()
            good = k < shares
            talk.c(dump({"id": 10 + k, "jsonrpc": "2.0", "method": "submit", "params": {
                "id": "s", "job_id": f"job{n}", "nonce": "d0379ce3", "result": HASH, "algo": "rx/0"}}, False))  # fmt: skip
            reply = {"id": 10 + k, "jsonrpc": "2.0"}
            reply |= {"error": None, "result": {"status": "OK"}} if good else {
                "error": {"code": -1, "message": "Low difficulty share"}}  # fmt: skip
            talk.s(reply)
            truth.accepted, truth.rejected = truth.accepted + good, truth.rejected + (not good)
            truth.hashes += each if good else 0
    return truth


def eth_proxy(talk, boundaries=(0x00000001A3F7C2 << 200, 0x00000000FFFF << 208), shares=3, reject=1):
    """EthProxy: work is pushed as a reply with id 0; the boundary's leading zeros may be missing."""
    truth = Truth("eth-proxy", "ethash", workers={"rig3"})
    talk.c({"id": 1, "method": "eth_submitLogin", "worker": "rig3", "params": [ETH, "x"]})
    talk.s({"id": 1, "jsonrpc": "2.0", "result": True})
    talk.c({"id": 5, "method": "eth_getWork", "params": []})
    for n, b in enumerate(boundaries):
        header = f"0x{n:064x}"
        talk.s(
            {
                "id": 5 if n == 0 else 0,
                "jsonrpc": "2.0",
                "result": [header, "0x" + HASH, f"0x{b:x}", "0x12d687"],
            }
        )
        for k in range(shares + reject):
            talk.wait()
            good = k < shares
            talk.c({"id": 40 + k, "method": "eth_submitWork", "worker": "rig3",
                    "params": ["0x6140ce9b94efc3b2", header, "0x" + HASH]})  # fmt: skip
            talk.s({"id": 40 + k, "jsonrpc": "2.0", "result": good})
            truth.accepted, truth.rejected = truth.accepted + good, truth.rejected + (not good)
            truth.hashes += 2**256 / b if good else 0
    return truth


def eth_stratum0(talk, boundaries=(0x6BDC055F << 192, 0x00000000FFFF << 208), shares=3, reject=1):
    """Ethereum stratum, ethminer's mode 0."""
    truth = Truth("eth-stratum0", "ethash", workers={ETH + ".rig3", ETH})
    talk.c({"id": 1, "method": "mining.subscribe", "params": [], "jsonrpc": "2.0"})
    talk.s({"id": 1, "result": True, "error": None})
    talk.c({"id": 3, "jsonrpc": "2.0", "method": "mining.authorize", "params": [ETH + ".rig3", "x"]})
    talk.s({"id": 3, "result": True, "error": None})
    for n, b in enumerate(boundaries):
        talk.s({"id": None, "jsonrpc": "2.0", "method": "mining.notify",
                "params": [f"J{n}", "0x" + HASH, "0x" + HASH, f"0x{b:064x}", True]})  # fmt: skip
        for k in range(shares + reject):
            talk.wait()
            good = k < shares
            talk.c({"id": 40 + k, "method": "mining.submit", "jsonrpc": "2.0", "worker": "rig3",
                    "params": [ETH, f"J{n}", "0xc4ff73a63df805dd", "0x" + HASH, "0x" + HASH]})  # fmt: skip
            talk.s({"id": 40 + k, "result": good, "error": None if good else {"code": 23, "message": "bad"}})
            truth.accepted, truth.rejected = truth.accepted + good, truth.rejected + (not good)
            truth.hashes += 2**256 / b if good else 0
    return truth


def eth_nicehash(talk, difficulties=(None, 1.86264514923), shares=3, reject=1):
    """EthereumStratum/1.0.0: difficulty is a float, 1 unless told, and holds from the next job."""
    truth = Truth("eth-nicehash", "ethash", workers={ETH + ".rig3"})
    talk.c({"id": 1, "method": "mining.subscribe", "params": ["spoken/1", "EthereumStratum/1.0.0"]})
    talk.s({"id": 1, "result": [["mining.notify", "36", "EthereumStratum/1.0.0"], "1c7a"], "error": None})
    talk.c({"id": 3, "method": "mining.authorize", "params": [ETH + ".rig3", "x"]})
    talk.s({"id": 3, "result": True, "error": None})
    for n, d in enumerate(difficulties):
        if d is not None:
            talk.s({"id": None, "method": "mining.set_difficulty", "params": [d]})
        talk.s({"id": None, "method": "mining.notify", "params": [f"bf{n}", HASH, HASH, True]})
        for k in range(shares + reject):
            talk.wait()
            good = k < shares
            talk.c(
                {"id": 40 + k, "method": "mining.submit", "params": [ETH + ".rig3", f"bf{n}", "1f0a063cfd83"]}
            )
            talk.s({"id": 40 + k, "result": good, "error": None if good else [-1, "Low difficulty", None]})
            truth.accepted, truth.rejected = truth.accepted + good, truth.rejected + (not good)
            truth.hashes += (d or 1) * 2**256 / (0xFFFF << 208) if good else 0
    return truth


MAKERS = (btc, cryptonote, eth_proxy, eth_stratum0, eth_nicehash)

"""Who mines alone, at a node, over HTTP: getblocktemplate of bitcoind and of monerod (reference 3.34, 3.35)."""

# ruff: noqa: E501, RUF012, RUF100  # real lines are long; nobody changes what a class says
import hashlib
import json

from speakers.cryptonote import XMR
from speakers.speaking import ACCEPTED, ONE, STALE, C, S, Speaker, be


class OverHttp(Speaker):
    """A message is a side and an object: a request POSTed, or its response."""

    in_job, in_lines = True, False
    agent, path = "cpuminer/2.5.1", "/"

    def dump(self, message):
        side, told = message
        body = json.dumps(told).encode() + b"\r\n"
        if side == S:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        else:
            head = (
                f"POST {self.path} HTTP/1.1\r\nHost: node.example\r\nUser-Agent: {self.agent}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
        return head.encode() + body

    def open(self):
        return []

    def reply(self, request, fate):
        return S, {"id": request[1]["id"], **self.verdict(fate)}


class BlockTemplate(OverHttp):
    """bitcoind of a test network: blocks are really mined, so their hashes tell the algorithm."""

    name, dialect, algorithm, hashes = "getblocktemplate", "gbt", "sha256d", 48.0

    def __init__(self):
        super().__init__()
        self.parents, self.targets = [], []

    def transactions(self):
        return []

    def asks(self, number):
        told = {"capabilities": ["coinbasetxn", "coinbasevalue", "longpoll", "workid"], "rules": ["segwit"]}
        if number:
            told["longpollid"] = self.parents[-1] + "7"
        return {"id": 0, "method": "getblocktemplate", "params": [told]}

    def job(self, number, hashes, changed):
        t, request = int(ONE / hashes), self.asks(number)
        self.parents.append(self.hex(64))
        self.targets.append(t)
        result = {
            "capabilities": ["proposal"], "version": 0x20000000, "rules": ["csv"], "previousblockhash": self.parents[-1],
            "transactions": self.transactions(), "coinbaseaux": {}, "coinbasevalue": 5000000000, "longpollid": self.parents[-1] + "7",
            "target": be(t), "mintime": 1, "mutable": ["time"], "noncerange": "00000000ffffffff", "curtime": 1700000000,
            "bits": "207fffff", "height": 7 + number,
        }  # fmt: skip
        return [(C, (C, request)), (S, (S, {"result": result, "error": None, "id": 0}))], ONE / t

    def block(self, number, good):
        start = bytes.fromhex("00000020") + bytes.fromhex(self.parents[number])[::-1]
        start += self.random.randbytes(32) + (1700000000).to_bytes(4, "little") + bytes.fromhex("ffff7f20")
        for nonce in range(1 << 20):
            header = start + nonce.to_bytes(4, "little")
            found = hashlib.sha256(hashlib.sha256(header).digest()).digest()
            if (int.from_bytes(found, "little") <= self.targets[number]) == good:
                return (header + b"\1" + self.random.randbytes(90)).hex()
        raise AssertionError("no block")

    def share(self, number, good=True):
        return C, {"id": 0, "method": "submitblock", "params": [self.block(number, good)]}

    def bad(self, number):
        return self.share(number, good=False)

    def verdict(self, fate):
        said = {ACCEPTED: None, STALE: "stale-prevblk"}.get(fate, "high-hash")
        return {"result": said, "error": None}


class FullTemplate(BlockTemplate):
    """As on the main network: a template is longer than anything that is kept."""

    name = "getblocktemplate (full blocks)"

    def transactions(self):
        return [
            {
                "data": self.hex(5000),
                "txid": self.hex(64),
                "hash": self.hex(64),
                "depends": [],
                "fee": 7,
                "sigops": 4,
                "weight": 900,
            }
            for _ in range(30)
        ]


class MoneroDaemon(OverHttp):
    """XMRig at monerod: a template for a wallet; the address tells the coin."""

    name, dialect, algorithm, hashes = "cryptonote-daemon", "cryptonote-daemon", "rx/0", 512000.0
    agent, path = "XMRig/6.22.2 (Linux x86_64) libuv/1.49.2 gcc/13.2.0", "/json_rpc"
    fates = (ACCEPTED, "rejected")
    transactions = 0

    def __init__(self):
        super().__init__()
        self.parents = []

    def blob(self, number):
        return "1010" + "b2aed6c406" + self.parents[number] + self.hex(8) + self.hex(70)

    def job(self, number, hashes, changed):
        self.parents.append(self.hex(64))
        told, ids = int(hashes), self.next_id()
        request = {"id": ids, "jsonrpc": "2.0", "method": "getblocktemplate",
                   "params": {"wallet_address": XMR, "extra_nonce": self.hex(16)}}  # fmt: skip
        result = {
            "blocktemplate_blob": self.blob(number) + self.hex(self.transactions), "blockhashing_blob": self.blob(number), "difficulty": told,
            "height": 3412345 + number, "prev_hash": self.parents[number], "seed_hash": self.hex(64), "status": "OK",
        }  # fmt: skip
        return [(C, (C, request)), (S, (S, {"id": ids, "jsonrpc": "2.0", "result": result}))], float(told)

    def share(self, number):
        return C, {
            "id": self.next_id(),
            "jsonrpc": "2.0",
            "method": "submitblock",
            "params": [self.blob(number)],
        }

    def verdict(self, fate):
        if fate == ACCEPTED:
            return {"jsonrpc": "2.0", "result": {"status": "OK"}}
        return {"jsonrpc": "2.0", "error": {"code": -7, "message": "Block not accepted"}}


class MoneroPlain(MoneroDaemon):
    """The other names of the same methods; the node is busy at first."""

    name = "cryptonote-daemon (get_block_template)"

    def open(self):
        request = {
            "id": 1,
            "jsonrpc": "2.0",
            "method": "get_block_template",
            "params": {"wallet_address": XMR},
        }
        return [
            (C, (C, request)),
            (S, (S, {"id": 1, "jsonrpc": "2.0", "error": {"code": -9, "message": "busy"}})),
        ]

    def share(self, number):
        side, told = super().share(number)
        return side, {**told, "method": "submit_block"}


class MoneroFull(MoneroDaemon):
    """Full blocks: one text of the template is longer than anything that is kept."""

    name, transactions = "cryptonote-daemon (full blocks)", 120000


SPEAKERS = (BlockTemplate, FullTemplate, MoneroDaemon, MoneroPlain, MoneroFull)

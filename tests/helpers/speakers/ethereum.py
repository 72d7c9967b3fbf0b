"""The Ethereum families (reference 3.4 to 3.7) and Zano over EthProxy."""

# ruff: noqa: E501, RUF012, RUF100  # real lines are long; nobody changes what a class says
import gzip
import zlib

from speakers.speaking import ACCEPTED, ONE, STALE, C, S, Speaker, be

ETH = "0x17fa2dd80f7a7e06d7c1c400911d31690a8ff606"


class EthProxy(Speaker):
    """Work is polled for or pushed with id 0; the boundary's zeros may be missing."""

    name, dialect, algorithm, hashes, in_job = "eth-proxy", "eth-proxy", "ethash", 4e9, True
    account = ETH

    def __init__(self):
        super().__init__()
        self.headers = []

    def open(self):
        return [
            (C, {"id": 1, "method": "eth_submitLogin", "worker": "rig3", "params": [self.account, "x"]}),
            (S, {"id": 1, "jsonrpc": "2.0", "result": True}),
            (C, {"id": 5, "method": "eth_getWork", "params": []}),
        ]

    def job(self, number, hashes, changed):
        b, header = int(ONE / hashes), "0x" + self.hex(64)
        self.headers.append(header)
        work = {
            "id": 0 if number else 5,
            "jsonrpc": "2.0",
            "result": [header, "0x" + self.hex(64), f"0x{b:x}" if number % 2 else "0x" + be(b)],
        }
        claim = {
            "id": 9,
            "jsonrpc": "2.0",
            "worker": "rig3",
            "method": "eth_submitHashrate",
            "params": ["0x" + f"{777:064x}", "0x" + self.hex(64)],
        }
        return [(S, work), (C, claim), (S, {"id": 9, "jsonrpc": "2.0", "result": True})], ONE / b

    def share(self, number):
        return {
            "id": self.next_id(),
            "method": "eth_submitWork",
            "params": ["0x" + self.hex(16), self.headers[number], "0x" + self.hex(64)],
            "worker": "rig3",
        }

    def verdict(self, fate):
        if fate == ACCEPTED:
            return {"jsonrpc": "2.0", "result": True}
        if fate == STALE:
            return {"jsonrpc": "2.0", "result": None, "error": {"code": 21, "message": "Stale share"}}
        return {"jsonrpc": "2.0", "result": False}


class ZanoProxy(EthProxy):
    """The same words, another algorithm: the account tells."""

    name, algorithm = "eth-proxy (zano)", "progpowz"
    account = (
        "ZxdToQZeYgiiB2i9TkWj2LDnrBaoSsCvURHM2EePpkLPEQ7P7S9eb9yb6zd4nmUCQmQowMByoTsXYVNXFCZuBgPjV9VxxMNmj"
    )

    @property
    def late_algorithm(self):
        return "ethash"  # the account is missed; its shares name the worker alone


class EthStratum0(Speaker):
    """ethminer's mode 0."""

    name, dialect, algorithm, hashes, in_job = "eth-stratum0", "eth-stratum0", "ethash", 4e9, True

    def open(self):
        return [
            (C, {"id": 1, "method": "mining.subscribe", "params": [], "jsonrpc": "2.0"}),
            (S, {"id": 1, "result": True, "error": None}),
            (C, {"id": 3, "jsonrpc": "2.0", "method": "mining.authorize", "params": [ETH + ".rig3", "x"]}),
            (S, {"id": 3, "result": True, "error": None}),
        ]

    def job(self, number, hashes, changed):
        b = int(ONE / hashes)
        params = [f"J{number}", "0x" + self.hex(64), "0x" + self.hex(64), "0x" + be(b), True]
        return [(S, {"id": None, "jsonrpc": "2.0", "method": "mining.notify", "params": params})], ONE / b

    def share(self, number):
        params = [ETH, f"J{number}", "0x" + self.hex(16), "0x" + self.hex(64), "0x" + self.hex(64)]
        return {
            "id": self.next_id(),
            "method": "mining.submit",
            "jsonrpc": "2.0",
            "params": params,
            "worker": "rig3",
        }


class EthNiceHash(Speaker):
    """EthereumStratum/1.0.0: a difficulty for the next job, 1 unless told."""

    name, dialect, algorithm, hashes = "eth-nicehash", "eth-nicehash", "ethash", 4e9

    def open(self):
        return [
            (C, {"id": 1, "method": "mining.subscribe", "params": ["spoken/2.4.0", "EthereumStratum/1.0.0"]}),
            (
                S,
                {
                    "id": 1,
                    "result": [["mining.notify", "367d", "EthereumStratum/1.0.0"], "1c7a"],
                    "error": None,
                },
            ),
            (C, {"id": 2, "method": "mining.extranonce.subscribe", "params": []}),
            (C, {"id": 3, "method": "mining.authorize", "params": [ETH + ".rig3", "x"]}),
            (S, {"id": 3, "result": True, "error": None}),
        ]

    def job(self, number, hashes, changed):
        told = round(hashes / 2**32, 11)
        said = [(S, {"id": None, "method": "mining.set_difficulty", "params": [told]})] if changed else []
        said.append(
            (
                S,
                {
                    "id": None,
                    "method": "mining.notify",
                    "params": [f"bf{number:02x}", self.hex(64), self.hex(64), True],
                },
            )
        )
        return said, told * ONE / (0xFFFF << 208)

    def share(self, number):
        return {
            "id": self.next_id(),
            "method": "mining.submit",
            "params": [ETH + ".rig3", f"bf{number:02x}", self.hex(12)],
        }

    def verdict(self, fate):
        if fate == ACCEPTED:
            return {"result": True, "error": None}
        return {"result": False, "error": [-1, "Job not found" if fate == STALE else "Low difficulty", None]}


class EthStratum2(Speaker):
    """EIP-1571: hello, numbers without 0x, a reply without a word accepts."""

    name, dialect, algorithm, hashes = "eth-stratum2", "eth-stratum2", "ethash", 4e9

    def open(self):
        return [
            (
                C,
                {
                    "id": 0,
                    "method": "mining.hello",
                    "params": {
                        "agent": "spoken-0.19",
                        "host": "pool.example.net",
                        "port": "d05",
                        "proto": "EthereumStratum/2.0.0",
                    },
                },
            ),
            (
                S,
                {
                    "id": 0,
                    "result": {
                        "proto": "EthereumStratum/2.0.0",
                        "encoding": "plain",
                        "resume": "0",
                        "timeout": "b4",
                        "maxerrors": "5",
                        "node": "x/1",
                    },
                },
            ),
            (C, {"id": 1, "method": "mining.subscribe"}),
            (S, {"id": 1, "result": "s-12345"}),
            (C, {"id": 2, "method": "mining.authorize", "params": [ETH + ".rig3", "x"]}),
            (S, {"id": 2, "result": "w-123"}),
        ]

    def job(self, number, hashes, changed):
        t = int(ONE / hashes)
        setting = {"epoch": "dc", "target": f"{t:x}", "algo": "ethash", "extranonce": "af4c"}
        said = [(S, {"method": "mining.set", "params": setting})] if changed else []
        said.append(
            (S, {"method": "mining.notify", "params": [f"bf{number:02x}", "6526d5", self.hex(64), "0"]})
        )
        return said, ONE / t

    def share(self, number):
        return {
            "id": self.next_id(),
            "method": "mining.submit",
            "params": [f"bf{number:02x}", self.hex(12), "w-123"],
        }

    def verdict(self, fate):
        if fate == ACCEPTED:
            return {}
        return {
            "error": {
                "code": 404 if fate == STALE else 400,
                "message": "Job not found" if fate == STALE else "bad nonce",
            }
        }


class EthStratum2Gzip(EthStratum2):
    """Behind the answer to hello each line is gzip of its own."""

    name, in_lines = "eth-stratum2 (gzip)", False

    def __init__(self):
        super().__init__()
        self.said = 0

    def open(self):
        said = super().open()
        said[1][1]["result"]["encoding"] = "gzip"
        return said

    def dump(self, message):
        self.said += 1
        line = super().dump(message)
        return line if self.said <= 2 else self.packed(message, line)

    def packed(self, message, line):
        return gzip.compress(line, mtime=0)


class EthStratum2Stream(EthStratum2Gzip):
    """Each direction is one member that goes on, flushed behind each line."""

    name = "eth-stratum2 (gzip, one member)"

    def __init__(self):
        super().__init__()
        self.ways = {}

    def packed(self, message, line):
        way = "id" in message and "method" in message
        if way not in self.ways:
            self.ways[way] = zlib.compressobj(9, zlib.DEFLATED, 31)
        made = self.ways[way].compress(line)
        return made + self.ways[way].flush(zlib.Z_SYNC_FLUSH)


SPEAKERS = (EthProxy, EthStratum0, EthNiceHash, EthStratum2, EthStratum2Gzip, ZanoProxy)

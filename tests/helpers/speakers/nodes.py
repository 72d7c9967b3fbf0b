"""Alephium's node and its miner (reference 3.15, errata B5), and a farmer of Chia at a pool (3.32)."""

# ruff: noqa: E501, RUF100  # real lines are long
import json
import struct

from speakers.speaking import ACCEPTED, ONE, STALE, C, S, Speaker


def u32(*numbers):
    return struct.pack(f">{len(numbers)}I", *numbers)


def blob(octets):
    return u32(len(octets)) + octets


class Node(Speaker):
    """A node that pushes a job for each of the sixteen chains; blocks find their job by their header."""

    name, dialect, algorithm, hashes = "alephium-node", "alephium-node", "blake3/alephium", 1e12
    in_job = True
    in_lines = False
    fates = (ACCEPTED, "rejected")
    transactions = 40

    def __init__(self):
        super().__init__()
        self.headers = []

    def dump(self, message):
        return message

    def messages(self, said):
        """Jobs of sixteen chains come at once; a miner's block is never of sixteen octets."""
        return 16 if said[5:10] == b"\0" + u32(16) else super().messages(said)

    def message(self, kind, rest):
        return blob(bytes([1, kind]) + rest)

    def open(self):
        return []

    def header(self):
        parts = [bytes([0, 7]), self.random.randbytes(7 * 32 + 64), bytes(2), self.random.randbytes(10)]
        return b"".join(parts)

    def job(self, number, hashes, changed):
        t = int(ONE * 16 / hashes)
        short = t.to_bytes((t.bit_length() + 7) // 8, "big")
        self.headers.append([self.header() for _ in range(16)])
        jobs = b"".join(
            u32(g // 4, g % 4)
            + blob(h)
            + blob(self.random.randbytes(self.transactions))
            + blob(short)
            + u32(7)
            for g, h in enumerate(self.headers[-1])
        )
        return [(S, self.message(0, u32(16) + jobs))], 16 * ONE / t

    def share(self, number):
        header = self.random.choice(self.headers[number])
        return self.message(
            0, blob(self.random.randbytes(24) + header + self.random.randbytes(self.transactions))
        )

    def reply(self, request, fate):
        return self.message(1, u32(1, 2) + self.random.randbytes(32) + bytes([fate == ACCEPTED]))


class BusyNode(Node):
    """Blocks full of transactions: a message of jobs is longer than anything that is kept."""

    name, transactions = "alephium-node (full blocks)", 9000


class Farmer(Speaker):
    """A farmer of Chia at a pool, behind what ended TLS: HTTP, a difficulty in every answer."""

    name, dialect, algorithm, hashes = "chia", "chia", "proof-of-space/chia", 10.0
    in_job = tells_next = True
    in_lines, both = False, b'{"new_difficulty": '
    account = "xch1qsclhhahfzs85xeemjye65yck2u6g9dpps0jtkwgjemzzndlu63qjej0te"
    path = "/partial"

    def __init__(self):
        super().__init__()
        self.launcher, self.difficulty = "0x" + self.hex(64), 1

    def dump(self, message):
        return message

    def messages(self, said):
        """What is asked for by a path alone is none; what accepts a partial tells what the next is worth, too."""
        if said.startswith(b"GET "):
            return 0
        return 2 if self.both in said else super().messages(said)

    def asks(self, first, told=None):
        """A request; its body as aiohttp sends it."""
        body = b"" if told is None else json.dumps(told).encode()
        head = f"{first} HTTP/1.1\r\nHost: pool.example\r\nUser-Agent: Chia Blockchain v.2.4.3\r\n"
        if body:
            head += f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n"
        return C, head.encode() + b"\r\n" + body

    def says(self, told):
        body = json.dumps(told).encode()
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {len(body)}"
        )
        return S, head.encode() + b"\r\n\r\n" + body

    def open(self):
        about = {"name": "pool", "minimum_difficulty": 1, "protocol_version": 1, "fee": "0.01"}
        payload = {"launcher_id": self.launcher, "authentication_token": 7, "payout_instructions": self.account,
                   "authentication_public_key": "0x" + self.hex(96), "suggested_difficulty": None}  # fmt: skip
        return [self.asks("GET /pool_info"), self.says(about),
                self.asks("POST /farmer", {"payload": payload, "signature": "0x" + self.hex(192)}),
                self.says({"welcome_message": "hello"})]  # fmt: skip

    def job(self, number, hashes, changed):
        self.difficulty = int(hashes)
        told = {"authentication_public_key": "0x" + self.hex(96), "payout_instructions": self.account,
                "current_difficulty": self.difficulty, "current_points": 77}  # fmt: skip
        query = f"launcher_id={self.launcher}&authentication_token=7&signature=0x{self.hex(192)}"
        return [self.asks(f"GET /farmer?{query}"), self.says(told)], float(self.difficulty)

    def share(self, number):
        proof = {"challenge": "0x" + self.hex(64), "size": 32, "proof": "0x" + self.hex(512)}
        payload = {"launcher_id": self.launcher, "authentication_token": 7, "proof_of_space": proof,
                   "sp_hash": "0x" + self.hex(64), "end_of_sub_slot": False, "harvester_id": "0x" + self.hex(64)}  # fmt: skip
        return self.asks(
            f"POST {self.path}", {"payload": payload, "aggregate_signature": "0x" + self.hex(192)}
        )[1]

    def reply(self, request, fate):
        if fate == ACCEPTED:
            return self.says(self.yes())[1]
        code = 2 if fate == STALE else 5
        return self.says(
            {"error_code": code, "error_message": "Received partial in 41 seconds" if code == 2 else "Proof"}
        )[1]

    def yes(self):
        return {"new_difficulty": self.difficulty}


class FarmerDraft(Farmer):
    """The draft of the protocol: another path, another name of the difficulty."""

    name, path, both = "chia (draft)", "/v1/partials", b'{"points_balance": '

    def yes(self):
        return {"points_balance": 1130, "current_difficulty": self.difficulty}


SPEAKERS = (Node, BusyNode, Farmer, FarmerDraft)

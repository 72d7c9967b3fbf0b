"""Stratum v1 with shares that are true: every accepted one is hashed here until it meets its target.

The header is built as slush0's description and BIP 310 say; difficulties are tiny, so that it takes a moment.
"""

# ruff: noqa: E501, RUF012, RUF100  # real lines are long; nobody changes what a class says
import hashlib
from typing import Any

from speakers.speaking import C, S, Said, Speaker


def sha256d(data: bytes) -> bytes:
    """SHA-256 twice."""
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


class Sha256d(Speaker):
    """An ASIC: configure first, versions rolled (so that it can be nothing else), many kinds of refusal."""

    name, dialect, algorithm = "btc-v1 (sha256d)", "btc-v1", "sha256d"
    hashes, blanks, scale, rolls = 900.0, True, 1.0, True
    account = "bc1q0czrcp2mllwhnes7j4gehmw3wldesrxukattne.rack07u12"

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[tuple[Any, float]] = []
        self.bads = 0

    def open(self) -> Said:
        mask = {"version-rolling.mask": "ffffffff", "version-rolling.min-bit-count": 2}
        return [
            (C, {"id": 1, "method": "mining.configure", "params": [["version-rolling"], mask]}),
            (S, {"error": None, "id": 1, "result": {"version-rolling": True, "version-rolling.mask": "1fffe000"}}),
            (C, {"id": 2, "method": "mining.subscribe", "params": ["spoken/3.1.0"]}),
            (S, {"id": 2, "result": [[["mining.set_difficulty", "b2"], ["mining.notify", "6b"]], "7db3b4d0", 4], "error": None}),
            (C, {"params": [self.account, "x"], "id": "auth", "method": "mining.authorize"}),
            (S, {"id": "auth", "result": True, "error": None}),
            (C, {"id": 5, "method": "mining.suggest_difficulty", "params": [4096]}),
            (C, {"id": 6, "method": "mining.extranonce.subscribe", "params": []}),
            (S, {"id": 6, "result": True, "error": None}),
            (S, {"id": 77, "method": "client.get_version", "params": []}),
            (C, {"id": 77, "result": "spoken/3.1.0", "error": None}),
            (S, {"id": 8, "method": "mining.ping", "params": []}),
        ]  # fmt: skip

    def job(self, number, hashes, changed):
        told = hashes / 2**32 * self.scale
        said = [(S, {"id": None, "method": "mining.set_difficulty", "params": [told]})] if changed else []
        params = [
            f"j{number}",
            self.hex(64),
            "0100" + self.hex(60),
            self.hex(80),
            [self.hex(64), self.hex(64)],
            "20000000",
            "1702905c",
            "106e226b",
            True,
        ]
        self.jobs.append((params, told))
        said.append((S, {"id": None, "method": "mining.notify", "params": params}))
        return said, told * 2**32 / self.scale

    def hash(self, header: bytes) -> bytes:
        return sha256d(header)

    def header(self, params, extranonce2, nonce, version):
        root = sha256d(bytes.fromhex(params[2] + "7db3b4d0" + extranonce2 + params[3]))
        for branch in params[4]:
            root = sha256d(root + bytes.fromhex(branch))
        previous = bytes.fromhex(params[1])
        swapped = b"".join(previous[i : i + 4][::-1] for i in range(0, 32, 4))
        little = lambda text: bytes.fromhex(text)[::-1]  # noqa: E731
        return little(version) + swapped + root + little(params[7]) + little(params[6]) + little(nonce)

    def share(self, number):
        params, told = self.jobs[number]
        target = int((0xFFFF << 208) * self.scale / told)
        rolled = "00c2a000" if self.rolls else ""
        version = "20c2a000" if self.rolls else "20000000"
        extranonce2 = self.hex(8)
        for n in range(1 << 20):
            nonce = f"{n:08x}"
            if (
                int.from_bytes(self.hash(self.header(params, extranonce2, nonce, version)), "little")
                <= target
            ):
                break
        more = [rolled] if rolled else []
        return {
            "params": [self.account, params[0], extranonce2, params[7], nonce, *more],
            "id": self.next_id(),
            "method": "mining.submit",
        }

    def bad(self, number):
        params, _ = self.jobs[number]
        return {
            "params": [self.account, params[0], self.hex(8), params[7], self.hex(8)],
            "id": self.next_id(),
            "method": "mining.submit",
        }

    def verdict(self, fate):
        if fate == "accepted":
            return {"result": True, "error": None}
        self.bads += 1
        if fate == "stale":
            late = [
                {"error": [21, "job not found"]},
                {"error": {"code": 21, "message": "late", "data": None}},
                {"error": [20, "Stale share", None]},
            ]
            return {"result": None, **late[self.bads % 3]}
        wrong = [{"error": None, "reject-reason": "Above target 2"}, {"error": [23, "Low difficulty", ""]}]
        return {"result": False, **wrong[self.bads % 2]}


class Scrypt(Sha256d):
    """cpuminer: every share has the id 4; the difficulty is 65536 times as large."""

    name, algorithm, hashes, scale, rolls = "btc-v1 (scrypt)", "scrypt", 8.0, 65536.0, False

    @property
    def late_algorithm(self):
        return None  # the first extranonce is missed, so no header can be built

    def next_id(self):
        return 4

    def hash(self, header):
        return hashlib.scrypt(header, salt=header, n=1024, r=1, p=1, dklen=32)


SPEAKERS = (Sha256d, Scrypt)

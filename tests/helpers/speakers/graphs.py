"""Beam and Grin (reference 3.19, 3.20, errata B8, B9)."""

# ruff: noqa: E501, RUF012, RUF100  # real lines are long; nobody changes what a class says
from speakers.speaking import ACCEPTED, STALE, C, S, Speaker


class Beam(Speaker):
    """The node: keys in alphabetical order, the id of a solution is the job's."""

    name, dialect, algorithm, hashes, in_job = "beam", "beam", "beamhash3", 30.0, True
    key = "947ceafb20ee13aea54bc9c48755c70a604344f2b21279020a7421eac36f1a86140.rig3"

    def open(self):
        return [
            (C, {"id": "login", "jsonrpc": "2.0", "method": "login", "api_key": self.key}),
            (
                S,
                {
                    "code": 0,
                    "description": "Success",
                    "id": "login",
                    "jsonrpc": "2.0",
                    "method": "result",
                    "nonceprefix": "c91",
                },
            ),
        ]

    def job(self, number, hashes, changed):
        exponent = 0
        while 2 ** (exponent + 1) <= hashes:
            exponent += 1
        packed = (exponent << 24) | int((hashes / 2**exponent - 1) * 2**24)
        worth = (2**24 + (packed & 0xFFFFFF)) * 2.0 ** ((packed >> 24) - 24)
        return [
            (
                S,
                {
                    "difficulty": packed,
                    "height": 3123456,
                    "id": str(200 + number),
                    "input": self.hex(64),
                    "jsonrpc": "2.0",
                    "method": "job",
                },
            )
        ], worth

    def share(self, number):
        return {
            "id": str(200 + number),
            "jsonrpc": "2.0",
            "method": "solution",
            "nonce": self.hex(16),
            "output": self.hex(208),
        }

    def verdict(self, fate):
        code, words = {ACCEPTED: (1, "accepted"), STALE: (3, "expired")}.get(fate, (2, "rejected"))
        return {"code": code, "description": words, "jsonrpc": "2.0", "method": "result"}


class BeamKey(Beam):
    """A node whose key is any text."""

    name, key = "beam (own node)", "my secret"


class Grin(Speaker):
    """Job numbers begin anew at each height; the id of every share is 0."""

    name, dialect, algorithm, hashes, in_job = "grin", "grin", "cuckatoo32", 42.0 * 128, True
    login = "grin18nj74ph77thv2jr9s8valjxngdt20fwmf95d225mjr9kh7teg5jvtavf3c"

    def open(self):
        return [
            (
                C,
                {
                    "id": "0",
                    "jsonrpc": "2.0",
                    "method": "login",
                    "params": {"login": self.login, "pass": "x", "agent": "spoken"},
                },
            ),
            (S, {"id": "0", "jsonrpc": "2.0", "method": "login", "result": "ok", "error": None}),
            (C, {"id": "2", "jsonrpc": "2.0", "method": "getjobtemplate", "params": None}),
        ]

    def job(self, number, hashes, changed):
        told = round(hashes / 42)
        job = {"difficulty": told, "height": 3123456 + number, "job_id": 0, "pre_pow": self.hex(468)}
        if number == 0:
            return [
                (S, {"id": "2", "jsonrpc": "2.0", "method": "getjobtemplate", "result": job, "error": None})
            ], told * 42.0
        return [(S, {"id": "Stratum", "jsonrpc": "2.0", "method": "job", "params": job})], told * 42.0

    def share(self, number):
        return {"id": "0", "jsonrpc": "2.0", "method": "submit", "params": {
            "edge_bits": 32, "height": 3123456 + number, "job_id": 0, "nonce": self.random.getrandbits(64),
            "pow": sorted(self.random.getrandbits(32) for _ in range(42))}}  # fmt: skip

    def verdict(self, fate):
        if fate == ACCEPTED:
            words = "ok" if self.random.random() < 0.8 else "blockfound - " + self.hex(64)
            return {"jsonrpc": "2.0", "method": "submit", "result": words, "error": None}
        code, words = (
            (-32503, "Solution submitted too late")
            if fate == STALE
            else (-32501, "Share rejected due to low difficulty")
        )
        return {
            "jsonrpc": "2.0",
            "method": "submit",
            "result": None,
            "error": {"code": code, "message": words},
        }


class GrinAccount(Grin):
    """A pool with accounts of its own."""

    name, login = "grin (account)", "bob"


SPEAKERS = (Beam, BeamKey, Grin, GrinAccount)

"""CryptoNote login, job, submit, and what XMRig, Dynex and MoneroOcean make of it (reference 3.2, 3.3, 3.29)."""

# ruff: noqa: E501, RUF012, RUF100  # real lines are long; nobody changes what a class says
from speakers.speaking import ACCEPTED, ONE, STALE, C, S, Speaker, be

XMR = "44Cbd9oUdEV6dwNMT9mWfdwQnswQT2SEUkB9JT7Krh8RCYKEwxWmGBpSAC9dXvjM68jgUJ5FK68RGEreWEmPigqBiekxyTn"
AGENT = "XMRig/6.22.2 (Linux x86_64) libuv/1.49.2 gcc/13.2.0"


class CryptoNote(Speaker):
    """XMRig: targets of 8 bytes, little-endian; keepalived."""

    name, dialect, algorithm, hashes, in_job = "cryptonote", "cryptonote", "rx/0", 100_000.0, True
    account, algo = XMR, "rx/0"

    def open(self):
        return []

    def login(self):
        return {"id": 1, "jsonrpc": "2.0", "method": "login", "params": {
            "login": self.account, "pass": "x", "agent": AGENT, "rigid": "node-114", "algo": ["rx/0", "cn/r", "kawpow"]}}  # fmt: skip

    def target(self, hashes):
        t = int(2**64 / hashes)
        return t.to_bytes(8, "little").hex(), 2**64 / t

    def job(self, number, hashes, changed):
        target, worth = self.target(hashes)
        job = {
            "blob": "1010" + self.hex(148),
            "job_id": f"job{number}",
            "target": target,
            "height": 3412345,
            "seed_hash": self.hex(64),
        }
        if self.algo:
            job["algo"] = self.algo
        if number:
            said = [(S, {"jsonrpc": "2.0", "method": "job", "params": job})]
            if number == 2:
                said += [(C, {"id": 50, "jsonrpc": "2.0", "method": "keepalived", "params": {"id": "5f0c"}}),
                         (S, {"id": 50, "jsonrpc": "2.0", "error": None, "result": {"status": "KEEPALIVED"}})]  # fmt: skip
            return said, worth
        return [(C, self.login()), (S, {"id": 1, "jsonrpc": "2.0", "error": None, "result": {
            "id": "5f0c", "job": job, "extensions": ["algo", "nicehash", "keepalive"], "status": "OK"}})], worth  # fmt: skip

    def share(self, number):
        params = {"id": "5f0c", "job_id": f"job{number}", "nonce": self.hex(8), "result": self.hex(64)}
        if self.algo:
            params["algo"] = self.algo
        return {"id": self.next_id(), "jsonrpc": "2.0", "method": "submit", "params": params}

    def verdict(self, fate):
        if fate == ACCEPTED:
            return {"jsonrpc": "2.0", "error": None, "result": {"status": "OK"}}
        words = "Block expired" if fate == STALE else "Low difficulty share"
        return {"jsonrpc": "2.0", "error": {"code": -1, "message": words}}


class CryptoNoteShort(CryptoNote):
    """Targets of 4 bytes, an algorithm with a coin of its own."""

    name, algorithm, algo, hashes = "cryptonote (4 bytes)", "rx/wow", "rx/wow", 12923.0

    def target(self, hashes):
        t = int((2**32 - 1) / hashes)
        return t.to_bytes(4, "little").hex(), float((2**32 - 1) // t)


class Yada(CryptoNote):
    """YadaCoin: the target is a big-endian number."""

    name, algorithm, algo = "cryptonote (yada)", "rx/yada", "rx/yada"

    def target(self, hashes):
        t = int(2**64 / hashes)
        return f"{t:016x}", 2**64 / t


class Dynex(CryptoNote):
    """A login with a mallob, jobs without an algorithm."""

    name, dialect, algorithm, algo = "dynex", "dynex", "dynexsolve", None
    account = (
        "XF1prLNMHj1Bmpi8aWcKqV5WEtQ2JdEw2wqkjVyuuKTSnzkUqfVbBi7TZsgQ3n528AEfFD91dJUChYTThwh5tvH8ZipZdps"
    )

    @property
    def late_algorithm(self):
        return None  # only the login tells Dynex from CryptoNote

    @property
    def late_dialect(self):
        return "cryptonote"

    def login(self):
        return {"id": 1, "method": "login", "params": {"login": self.account, "pass": "x", "agent": "dyn/1.9",
                "mallob_id": "308b9dccc093f470494761fa49d7ae80", "algo": "dynexsolve"}}  # fmt: skip


class AutoKawPow(Speaker):
    """XMRig's AutoClient: login, then KawPow."""

    name, dialect, algorithm, in_job, hashes = "xmrig-auto-eth (kawpow)", "kawpow", "kawpow", True, 2e9
    algo = "kawpow"

    def open(self):
        return [
            (C, {"id": 1, "jsonrpc": "2.0", "method": "login", "params": {
                "login": "user", "pass": "x", "agent": AGENT, "algo": ["kawpow", "rx/0"]}}),
            (S, {"id": 1, "jsonrpc": "2.0", "result": {"id": "5f0c", "algo": self.algo, "extra_nonce": "1f2e"}}),
        ]  # fmt: skip

    def job(self, number, hashes, changed):
        t = int(ONE / hashes)
        params = [f"{number:x}", self.hex(64), self.hex(64), be(t), True, 3123456, "1b00d1f3"]
        return [(S, {"id": None, "method": "mining.notify", "params": params})], ONE / t

    def share(self, number):
        params = ["user", f"{number:x}", "0x" + self.hex(16), "0x" + self.hex(64), "0x" + self.hex(64)]
        return {"id": self.next_id(), "jsonrpc": "2.0", "method": "mining.submit", "params": params}

    def verdict(self, fate):
        if fate == ACCEPTED:
            return {"result": True}
        return {"error": "Stale share" if fate == STALE else "Low difficulty share"}


class AutoGhostRider(AutoKawPow):
    """The same for GhostRider: Bitcoin's jobs, a difficulty of 65536 hashes."""

    name, dialect, algorithm, in_job, algo = (
        "xmrig-auto-eth (ghostrider)",
        "btc-v1",
        "ghostrider",
        False,
        "ghostrider",
    )
    hashes = 20000.0

    @property
    def late_algorithm(self):
        return None  # only the reply to login names it

    def job(self, number, hashes, changed):
        told = hashes / 65536
        said = [(S, {"id": None, "method": "mining.set_difficulty", "params": [told]})] if changed else []
        params = [
            f"{number:x}",
            self.hex(64),
            self.hex(60),
            self.hex(60),
            [],
            "20000000",
            "1b00d1f3",
            self.hex(8),
            True,
        ]
        return [*said, (S, {"id": None, "method": "mining.notify", "params": params})], told * 65536

    def share(self, number):
        params = ["user", f"{number:x}", self.hex(8), self.hex(8), self.hex(8)]
        return {"id": self.next_id(), "jsonrpc": "2.0", "method": "mining.submit", "params": params}


SPEAKERS = (CryptoNote, CryptoNoteShort, Yada, AutoKawPow, AutoGhostRider, Dynex)

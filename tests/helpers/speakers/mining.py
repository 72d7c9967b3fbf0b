"""Dialects of mining.subscribe, mining.authorize, mining.notify, mining.submit (reference 3.9 to 3.28)."""

# ruff: noqa: E501, RUF012, RUF100  # real lines are long; nobody changes what a class says
from typing import Any

from speakers.speaking import ACCEPTED, ONE, STALE, C, S, Said, Speaker, be

RVN = "RaWdPxh1qWRRb4sQqWKoXB3XxFXccrvFzz.rig3"


class Mining(Speaker):
    """The common skeleton: an account, a difficulty or a target before the job, a job, a share."""

    account = "acct.rig3"
    agent: Any = "spoken/1.0"
    subscribed: Any = [None, "5e81c2"]
    unit = 0.0  # hashes per unit of difficulty; 0: a target is set

    def open(self) -> Said:
        return [
            (C, {"id": 1, "method": "mining.subscribe", "params": [self.agent]}),
            (S, {"id": 1, "result": self.subscribed, "error": None}),
            (C, {"id": 2, "method": "mining.authorize", "params": [self.account, "x"]}),
            (S, {"id": 2, "result": True, "error": None}),
        ]

    def job(self, number: int, hashes: float, changed: bool) -> tuple[Said, float]:
        said: Said = []
        if self.unit:
            told = round(hashes / self.unit, 6)
            worth = told * self.unit
            setting = {"id": None, "method": "mining.set_difficulty", "params": [told]}
        else:
            told = int(ONE / hashes)
            worth = ONE / told
            setting = {"id": None, "method": "mining.set_target", "params": [be(told)]}
        if changed:
            said.append((S, setting))
        said.append(
            (S, {"id": None, "method": "mining.notify", "params": self.notify(number, be(int(ONE / hashes)))})
        )
        return said, worth

    def notify(self, number: int, target: str) -> list[Any]:
        """The members of mining.notify."""
        raise NotImplementedError

    def share(self, number: int) -> Any:
        return {"id": self.next_id(), "method": "mining.submit", "params": self.submit(number)}

    def submit(self, number: int) -> Any:
        """The members of mining.submit."""
        raise NotImplementedError


class KawPow(Mining):
    """Ravencoin: the target stands in the job too."""

    name, dialect, algorithm, account = "kawpow", "kawpow", "kawpow", RVN
    hashes, in_job = 2e9, True

    def notify(self, number, target):
        return [f"{number:04x}", self.hex(64), self.hex(64), target, True, 3123456 + number, "1b00d1f3"]

    def submit(self, number):
        return [self.account, f"{number:04x}", "0x" + self.hex(16), "0x" + self.hex(64), "0x" + self.hex(64)]


class FiroPow(KawPow):
    """Firo: another algorithm, told by the account."""

    name, algorithm, account = "kawpow (firo)", "firopow", "aFkpAbCdEfGhJkLmNpQrStUvWxYz123456.r"


class Equihash(Mining):
    """ZIP 301: a target for the next job, solutions."""

    name, dialect, algorithm = "equihash", "equihash", "equihash/200,9"
    account, hashes = "t1Rf1YNyE73pEmh7KkMjsMsVKLjnMgSMgZJ.z15a", 4e6
    solution, beside = 2694, ()
    subscribed = ["s-19", "fac4c5f9"]

    def open(self):
        said = super().open()
        said[0][1]["params"] = ["spoken/1.0", None, "zec.example.net", 3357]
        return said

    def notify(self, number, target):
        del target
        return [
            f"{number:x}",
            "04000000",
            self.hex(64),
            self.hex(64),
            "0" * 64,
            self.hex(8),
            "1c01a12f",
            True,
            *self.beside,
        ]

    def submit(self, number):
        head = {2694: "fd4005", 202: "64", 106: "34"}[self.solution]
        return [
            self.account,
            f"{number:x}",
            self.hex(8),
            self.hex(56),
            head + self.hex(self.solution - len(head)),
        ]


class Zhash(Equihash):
    """Bitcoin Gold: the parameters stand in the job."""

    name, algorithm, solution, beside = "equihash (zhash)", "equihash/144,5", 202, ("144_5", "BgoldPoW")
    account, hashes = "GAbCdEfGhJkLmNpQrStUvWxYz123456789.r", 500.0


class ZelHash(Equihash):
    """Flux: only the size of a solution tells."""

    name, algorithm, solution, hashes = "equihash (flux)", "equihash/125,4", 106, 300.0


class Ergo(Mining):
    """Pools that set the difficulty to 1 and scale b."""

    name, dialect, algorithm = "ergo", "ergo", "autolykos2"
    account, hashes = "9nY8Q81NUnFmFwb5cd6eAZTuEbjFVqpZiH2jn8yWi3nzu2888GP.rig3", 3e9
    subscribed = [[["mining.set_difficulty", "4951bb53"], ["mining.notify", "db0b5240"]], "2a7f", 6]
    told = True

    def job(self, number, hashes, changed):
        b = int(ONE / hashes)
        said = [(S, {"id": None, "method": "mining.set_difficulty", "params": [1]})] if changed else []
        return [*said, (S, self.one(number, b))], ONE / b

    def one(self, number, b):
        return {"id": None, "method": "mining.notify", "params": [
            f"{number:x}", 1412345, self.hex(64), "", "", "00000003", str(b), "", True]}  # fmt: skip

    def submit(self, number):
        second = self.hex(12)
        return [self.account, f"{number:x}", second, self.hex(8), "2a7f" + second]


class ErgoNetwork(Ergo):
    """ErgoStratumServer: b is the network's, the difficulty divides it (a share is that much easier)."""

    name, network = "ergo (network b)", 1e15

    def job(self, number, hashes, changed):
        b, ratio = int(ONE / self.network), self.network / hashes
        said = [(S, {"id": None, "method": "mining.set_difficulty", "params": [ratio]})] if changed else []
        return [*said, (S, self.one(number, b))], ONE / b / ratio


class ErgoNiceHash(Ergo):
    """miningcore to NiceHash's agents: the difficulty in hashes, b scaled already."""

    name, in_job = "ergo (nicehash)", False

    def job(self, number, hashes, changed):
        b = int(ONE / hashes)
        said = [(S, {"id": None, "method": "mining.set_difficulty", "params": [hashes]})] if changed else []
        return [*said, (S, self.one(number, b))], ONE / b


class Kaspa(Mining):
    """kaspa-stratum-bridge: four numbers; notifications have ids."""

    name, dialect, algorithm, unit = "kaspa", "kaspa", "kheavyhash", 2.0**32
    account, hashes = "kaspa:qrvd57sufjtvpeykapwq6ggcne3plzt08au53tdla0r4q3knjf2gdfwmasju3.ks3-2", 2e13
    subscribed = [True, "EthereumStratum/1.0.0"]

    def open(self):
        said = super().open()
        said[0][1]["params"] = ["BzMiner/v20", "EthereumStratum/1.0.0"]
        return [*said, (S, {"id": None, "method": "set_extranonce", "params": ["3c1d"]})]

    def job(self, number, hashes, changed):
        said, worth = super().job(number, hashes, changed)
        said[-1][1].update(id=number, jsonrpc="2.0")
        return said, worth

    def notify(self, number, target):
        del target
        return [
            str(number),
            [self.random.getrandbits(64) | 1 << 63 for _ in range(4)],
            1763812345678 + number,
        ]

    def submit(self, number):
        return [self.account, str(number), "0x" + self.hex(16)]


class KaspaLarge(Kaspa):
    """IceRiver: the header as one text, and now and then the wrong job in a share."""

    name = "kaspa (iceriver)"
    wrong = 0  # from the sixth job on, so that who joins in the middle has heard some

    def open(self):
        said = super().open()
        said[0][1]["params"] = ["IceRiverMiner-v1.1", "EthereumStratum/1.0.0"]
        return said

    def notify(self, number, target):
        del target
        return [str(number), self.hex(80)]

    def submit(self, number):
        self.wrong += number > 4
        return [self.account, "99999" if self.wrong % 7 == 6 else str(number), "0x" + self.hex(16)]


class Spectre(Kaspa):
    """A fork with a unit of its own."""

    name, algorithm, unit, hashes = "kaspa (spectre)", "spectrex", 256.0, 4000.0
    account = "spectre:qrvd57sufjtvpeykapwq6ggcne3plzt08au53tdla0r4q3knjf2gdfwmasju3.r"


class Kadena(Mining):
    """chainweb-mining-client: stale is false without an error, authorize is answered with an empty list."""

    name, dialect, algorithm, hashes, silent = "kadena", "kadena", "blake2s/kadena", 1e14, True
    account, subscribed = (
        "k:06bc52842f9fdd7224e5ebd25b6b5cfb2d98787303e00f3b21ea4ff07fe1e33f.ka3",
        [None, "b77e", 6],
    )

    def open(self):
        said = super().open()
        said[3][1]["result"] = []
        return said

    def notify(self, number, target):
        del target
        return [f"{number:x}", self.hex(572), True]

    def submit(self, number):
        return [self.account, f"{number:x}", self.hex(12)]

    def verdict(self, fate):
        if fate == ACCEPTED:
            return {"result": True, "error": None}
        return {"result": False, "error": None if fate == STALE else [31, "invalid nonce", None]}


class Ckb(Mining):
    """F2Pool."""

    name, dialect, algorithm, hashes = "ckb", "ckb", "eaglesong", 5e12
    account, subscribed = "ckb1qftg8yd2ets37dryuvp5dtmf3agyyjejfsr9pzkh5x.k7", [None, "00c904bd", 12]

    def notify(self, number, target):
        del target
        return [f"{number:x}", self.hex(64), 14123456 + number, self.hex(64), True]

    def submit(self, number):
        return [self.account, f"{number:x}", self.hex(24)]

    def verdict(self, fate):
        if fate == ACCEPTED:
            return {"result": True, "error": None}
        return {
            "result": False,
            "error": [21, "job not found", None] if fate == STALE else [23, "low difficulty", None],
        }


class Aleo(Mining):
    """A target that is a number of proofs."""

    name, dialect, algorithm, hashes = "aleo", "aleo", "aleo", 1.5e6
    address = "aleo1k8w7secwpruddc9lj6q9cxwwggf2s62fpcfm9j9c7vxzymuwpxf9a5xd5w"
    subscribed = ["s1", "0f3a", address]

    def open(self):
        said = super().open()
        said[0][1]["params"] = ["spoken/2.0", "AleoStratum/2.0.0", None]
        return said

    def job(self, number, hashes, changed):
        said = [(S, {"id": None, "method": "mining.set_target", "params": [int(hashes)]})] if changed else []
        params = [f"j{number}", self.hex(128), self.address, True]
        return [*said, (S, {"id": None, "method": "mining.notify", "params": params})], float(int(hashes))

    def submit(self, number):
        return [self.account, f"j{number}", self.hex(16), self.hex(96), self.hex(96)]


class Xelis(Mining):
    """Notifications carry ids."""

    name, dialect, algorithm, unit, hashes = "xelis", "xelis", "xelishash/v2", 1.0, 50000.0

    def open(self):
        return [
            (C, {"id": 1, "method": "mining.subscribe", "params": ["spoken/1.0", ["xel/v2"]]}),
            (S, {"id": 1, "result": ["ABC", self.hex(64), 32, self.hex(64)]}),
            (
                C,
                {
                    "id": 2,
                    "method": "mining.authorize",
                    "params": [
                        "xel:k3etwem0r8nup7q2ckp0ngwc37tdvfpyw7cczwr299w9acj9gxts597r2cw",
                        "rig3",
                        "x",
                    ],
                },
            ),
            (S, {"id": 2, "result": True}),
            (S, {"id": 4, "method": "mining.ping"}),
            (C, {"id": 4, "method": "mining.pong"}),
        ]

    def job(self, number, hashes, changed):
        said, worth = super().job(number, hashes, changed)
        for _, message in said:
            message["id"] = 101  # as the first share's: no reply
        return said, worth

    def notify(self, number, target):
        del target
        return [f"{number:06x}", "19726d97f49", self.hex(64), "xel/v2", True]

    def submit(self, number):
        return ["rig3", f"{number:06x}", self.hex(16)]

    def verdict(self, fate):
        if fate == ACCEPTED:
            return {"result": True}
        words = "Job not found" if fate == STALE else "Low difficulty"
        return {
            "result": None,
            "error": {"code": 21 if fate == STALE else 23, "message": words, "data": None},
        }


class Zano(Mining):
    """The target in a notify of four."""

    name, dialect, algorithm, in_job, hashes = "zano", "zano", "progpowz", True, 1e9
    account = (
        "ZxdToQZeYgiiB2i9TkWj2LDnrBaoSsCvURHM2EePpkLPEQ7P7S9eb9yb6zd4nmUCQmQowMByoTsXYVNXFCZuBgPjV9VxxMNmj"
    )

    def job(self, number, hashes, changed):
        said, worth = super().job(number, hashes, changed)
        return said[-1:], worth

    def notify(self, number, target):
        return [f"{number:x}", self.hex(64), target, 2812345 + number]

    def submit(self, number):
        return [self.account, f"{number:x}", "0x" + self.hex(16), "0x" + self.hex(64), "0x" + self.hex(64)]


class Warthog(Mining):
    """A share names no worker."""

    name, dialect, algorithm, unit, hashes = "warthog", "warthog", "janushash", 1.0, 4e7
    account = "8e381fb6d82cd07a079acf1be40892dd05117729f6b666cb.rig3"

    def notify(self, number, target):
        del target
        return [f"{number:02x}", self.hex(64), self.hex(72), "00000002", self.hex(8), self.hex(8), True]

    def submit(self, number):
        return [f"{number:02x}", self.hex(12), self.hex(8), self.hex(8)]


class Nexa(Mining):
    """Difficulties below 1."""

    name, dialect, algorithm, unit, hashes = "nexa", "nexa", "nexapow", 2.0**32, 2e9
    account = "nexa:nqtsq5g5kdfauuxsyunlnwx9008crghfsqw90jjm4t80jqzk.rig3"

    def notify(self, number, target):
        del target
        return [f"{number:x}", self.hex(64), 612345 + number, "1b0a1f2e"]

    def submit(self, number):
        return [self.account, f"{number:x}", self.hex(8), self.hex(8), self.hex(16)]


class Handshake(Mining):
    """Shares look as Bitcoin's do."""

    name, dialect, algorithm, unit, hashes = "handshake", "handshake", "handshake", 2.0**32, 1e13
    account = "hs1qe3xp40k2zzztj52cxj55l395k4shgk34uce705.rig3"

    def notify(self, number, target):
        del target
        return [f"{number:x}", *(self.hex(64) for _ in range(5)), "00000000", "19063bc5", self.hex(8)]

    def submit(self, number):
        return [self.account, f"{number:x}", self.hex(8), self.hex(8), self.hex(8)]


class Aeternity(Mining):
    """A cycle of 42 edges as the share."""

    name, dialect, algorithm, hashes = "aeternity", "aeternity", "cuckoocycle/ae", 300.0
    account, subscribed = "ak_X5WvJ5vNki9z5MeucYQtEDgR89WHyC7ixjkZ1ziuAJQnzzfymG", ["a1b2c3d4", "080000"]

    def notify(self, number, target):
        del target
        return [f"{number:04x}", 1, self.hex(64), True]

    def submit(self, number):
        return [self.account, f"{number:04x}", self.hex(10), [self.hex(8) for _ in range(42)]]


class AeternityExample(Aeternity):
    """As the specification's examples are: a job without the block's version, a share without a cycle."""

    name = "aeternity (example)"

    def notify(self, number, target):
        del target
        return [f"{number:08x}", self.hex(64), True]

    def submit(self, number):
        return ["rig3", f"{number:08x}", self.hex(10), ""]


SPEAKERS = (
    KawPow, FiroPow, Equihash, Zhash, ZelHash, Kaspa, KaspaLarge, Spectre, Ergo, ErgoNetwork, ErgoNiceHash,
    Ckb, Aleo, Handshake, Nexa, Kadena, Zano, Xelis, Warthog, Aeternity, AeternityExample,
)  # fmt: skip

"""Families with a form of their own: Alephium, Conflux, Iron Fish, CKB as SparkPool spoke it."""

# ruff: noqa: E501, RUF012, RUF100  # real lines are long; nobody changes what a class says
from speakers.speaking import ACCEPTED, ONE, STALE, C, S, Speaker, be


class Alephium(Speaker):
    """The official pool: the server speaks first, 16 hashes for one on the right chain, a refusal is null."""

    name, dialect, algorithm, hashes, in_job = "alephium", "alephium", "blake3/alephium", 1e12, True
    account = "1QSbGbj6L31yKNDSqQgpxv5mAX8C162uLVsD3tqaoqgFy.al1"

    def open(self):
        return [
            (S, {"id": None, "method": "mining.set_difficulty", "params": [64]}),
            (C, {"id": 1, "method": "mining.subscribe", "params": ["spoken/18.0"]}),
            (S, {"id": 1, "result": "result"}),
            (C, {"id": 2, "method": "mining.authorize", "params": [self.account, "x"]}),
            (S, {"id": 2, "result": True}),
            (S, {"id": None, "method": "mining.set_extranonce", "params": ["7f02"]}),
        ]

    def job(self, number, hashes, changed):
        t = int(ONE * 16 / hashes)
        text = f"{t:x}"
        text = "0" * (len(text) % 2) + text  # leading zero bytes are stripped
        jobs = [
            {
                "fromGroup": g // 4,
                "toGroup": g % 4,
                "jobId": f"{number:03x}{g:x}",
                "headerBlob": self.hex(320),
                "txsBlob": "",
                "targetBlob": text,
                "height": 7,
            }
            for g in range(16)
        ]
        return [(S, {"id": None, "method": "mining.notify", "params": jobs})], 16 * ONE / t

    def share(self, number):
        g = self.random.randrange(16)
        return {"id": self.next_id(), "method": "mining.submit", "params": {
            "jobId": f"{number:03x}{g:x}", "fromGroup": g // 4, "toGroup": g % 4, "nonce": self.hex(48), "worker": self.account}}  # fmt: skip

    def verdict(self, fate):
        if fate == ACCEPTED:
            return {"result": True}
        if fate == STALE:
            return {"result": False, "error": {"code": 20, "message": "late", "data": None}}
        return {"result": None}


class AlephiumPlain(Alephium):
    """miningcore: codes for everything, and 21 is an invalid chain."""

    name = "alephium (miningcore)"

    def verdict(self, fate):
        if fate == ACCEPTED:
            return {"result": True}
        code = 20 if fate == STALE else 21
        return {
            "result": False,
            "error": {
                "code": code,
                "message": "job" if fate == STALE else "invalid chain index",
                "data": None,
            },
        }


class Conflux(Speaker):
    """The node: no authorize, booleans in a list, the header's hash as the job's name."""

    name, dialect, algorithm, hashes, in_job, blanks = "conflux", "conflux", "octopus", 1e9, True, True
    account = "cfx:aa3zjgawy815kbznpjgy1u780rgafjf5rxrfbwchax.rig3"
    fates = (ACCEPTED, "rejected")

    def __init__(self):
        super().__init__()
        self.names = []

    def open(self):
        return [
            (C, {"jsonrpc": "2.0", "method": "mining.subscribe", "params": [self.account, ""], "id": 1}),
            (S, {"jsonrpc": "2.0", "result": True, "id": 1}),
        ]

    def job(self, number, hashes, changed):
        t, name = int(ONE / hashes), "0x" + self.hex(64)
        self.names.append(name)
        return [
            (S, {"id": number, "method": "mining.notify", "params": [name, "151234567", name, f"0x{t:x}"]})
        ], ONE / t

    def share(self, number):
        return {
            "jsonrpc": "2.0",
            "method": "mining.submit",
            "params": [self.account, self.names[number], "0x" + self.hex(16), "0x" + self.hex(64)],
            "id": self.next_id(),
        }

    def verdict(self, fate):
        return {"jsonrpc": "2.0", "result": [True] if fate == ACCEPTED else [False]}


class ConfluxText(Conflux):
    """NiceHash and the prose: booleans as texts, with words."""

    name = "conflux (texts)"
    fates = (ACCEPTED, "rejected", STALE)

    def job(self, number, hashes, changed):
        said, worth = super().job(number, hashes, changed)
        self.names[-1] = f"{number:016x}"
        said[0][1]["params"][0] = self.names[-1]
        said[0][1].update(id=0, jsonrpc="2.0", xn="30")
        return said, worth

    def verdict(self, fate):
        if fate == ACCEPTED:
            return {"jsonrpc": "2.0", "result": ["true"]}
        return {"jsonrpc": "2.0", "result": ["false", "Stale share" if fate == STALE else "invalid nonce"]}


class IronFish(Speaker):
    """Members in a body; the server numbers its own messages, the request's id is inside."""

    name, dialect, algorithm, hashes = "ironfish", "ironfish", "fishhash", 1e9
    account = "73929a7552bcdf8e76e7d9abfc6cfbf38ea3aba3b782033735f15434f3cb8fec"

    def __init__(self):
        super().__init__()
        self.counter = 0

    def own(self, method, body):
        self.counter += 1
        return {"id": self.counter, "method": method, "body": body}

    def open(self):
        return [
            (
                C,
                {
                    "id": 0,
                    "method": "mining.subscribe",
                    "body": {
                        "version": 3,
                        "agent": "spoken/1.85",
                        "publicAddress": self.account,
                        "name": "rig3",
                    },
                },
            ),
            (S, self.own("mining.subscribed", {"clientId": 7, "xn": "2b90"})),
        ]

    def job(self, number, hashes, changed):
        t = int(ONE / hashes)
        said = [(S, self.own("mining.set_target", {"target": be(t)}))] if changed else []
        return [
            *said,
            (S, self.own("mining.notify", {"miningRequestId": number, "header": self.hex(360)})),
        ], ONE / t

    def share(self, number):
        return {
            "id": self.next_id(),
            "method": "mining.submit",
            "body": {"miningRequestId": number, "randomness": self.hex(16)},
        }

    def reply(self, request, fate):
        if fate == STALE:
            self.counter += 1
            return {"id": self.counter, "error": {"id": request["id"], "message": "stale share"}}
        body = {"id": request["id"], "result": fate == ACCEPTED}
        return self.own("mining.submitted", body if fate == ACCEPTED else body | {"message": "invalid"})


class CkbSpark(Speaker):
    """ckb_submitLogin; work is an object, pushed with id 0."""

    name, dialect, algorithm, hashes, in_job = "ckb-spark", "ckb-spark", "eaglesong", 5e12, True

    def __init__(self):
        super().__init__()
        self.names = []

    def open(self):
        return [
            (
                C,
                {
                    "id": 1,
                    "method": "ckb_submitLogin",
                    "params": {
                        "login": "ckb1qftg8yd2ets37dryuvp5dtmf3agyyjejfsr9pzkh5x",
                        "agent": "spoken/v1",
                        "worker": "rig3",
                    },
                },
            ),
            (S, {"id": 1, "result": True}),
            (C, {"id": 2, "method": "ckb_getWork", "params": None}),
        ]

    def job(self, number, hashes, changed):
        t, name = int(ONE / hashes), "0x" + self.hex(64)
        self.names.append(name)
        return [
            (
                S,
                {
                    "id": 0 if number else 2,
                    "result": {"height": 14123456, "pow_hash": name, "target": "0x" + be(t)},
                },
            )
        ], ONE / t

    def share(self, number):
        return {
            "id": self.next_id(),
            "method": "ckb_submitWork",
            "params": {"pow_hash": self.names[number], "nonce": self.hex(18)},
        }

    def verdict(self, fate):
        if fate == ACCEPTED:
            return {"result": True}
        return {
            "error": {
                "code": 21 if fate == STALE else 23,
                "message": "job not found" if fate == STALE else "low difficulty",
            }
        }


SPEAKERS = (Alephium, AlephiumPlain, Conflux, ConfluxText, IronFish, CkbSpark)

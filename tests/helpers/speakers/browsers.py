"""Miners in browsers, over WebSocket: Coinhive's kind, webminerpool, stratum-jsonrpc2-ws, Nimiq (reference 3.30,
3.31, 3.36, 3.37; RFC 6455 section 5.2)."""

# ruff: noqa: E501, RUF012, RUF100  # real lines are long; nobody changes what a class says
import base64
import json
import struct

from speakers.cryptonote import XMR
from speakers.speaking import ACCEPTED, ONE, STALE, C, S, Speaker, be


class Browser(Speaker):
    """A message is a side and an object, or octets of HTTP; each object is a frame, the client's masked."""

    in_job, in_lines = True, False
    path = "/proxy"

    def messages(self, said):
        """A WebSocket is asked for, and given, without a message."""
        return 0 if said.startswith((b"GET ", b"HTTP/1.1 101 ")) else super().messages(said)

    def dump(self, message):
        if type(message) is bytes:
            return message
        side, told = message
        data = json.dumps(told, separators=(",", ":")).encode()
        size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))
        if side == S:
            return b"\x81" + size + data
        mask = self.random.randbytes(4)
        return (
            b"\x81"
            + bytes([size[0] | 0x80])
            + size[1:]
            + mask
            + bytes(b ^ mask[i % 4] for i, b in enumerate(data))
        )

    def upgrade(self):
        asks = (
            f"GET {self.path} HTTP/1.1\r\nHost: ws.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        )
        yes = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        return [(C, (asks + "Sec-WebSocket-Version: 13\r\n\r\n").encode()), (S, yes.encode())]

    def open(self):
        return [*self.upgrade(), *((side, (side, told)) for side, told in self.greet())]

    def job(self, number, hashes, changed):
        told, worth = self.work(number, hashes)
        return [(S, (S, told))], worth

    def share(self, number):
        return C, self.solved(number)

    def reply(self, request, fate):
        return S, self.judged(request[1], fate)

    def short(self, hashes):
        """A target of 4 octets, least first, and what it is worth."""
        t = int(2**32 / hashes)
        return t.to_bytes(4, "little").hex(), (2**32 - 1) // t


class Coinhive(Browser):
    """coin-hive-stratum: the count of a frame is of shares, not of hashes."""

    name, dialect, algorithm, hashes = "coinhive", "coinhive", "cn/1", 256.0
    account = "KKfsCLdqLKQ7YeXPe35ZNtSB5WuJdq6u"

    def __init__(self):
        super().__init__()
        self.counted = 0

    def greet(self):
        said = {"site_key": self.account, "type": "anonymous", "user": None, "goal": 0}
        return [
            (C, {"type": "auth", "params": said}),
            (S, {"type": "authed", "params": {"token": "", "hashes": 0}}),
        ]

    def work(self, number, hashes):
        target, worth = self.short(hashes)
        return {"type": "job", "params": {
            "job_id": f"{number:015}", "blob": "1010" + self.hex(148), "target": target, "algo": "cn/1"}}, worth  # fmt: skip

    def solved(self, number):
        return {
            "type": "submit",
            "params": {"job_id": f"{number:015}", "nonce": self.hex(8), "result": self.hex(64)},
        }

    def judged(self, request, fate):
        if fate == ACCEPTED:
            self.counted += 1
            return {"type": "hash_accepted", "params": {"hashes": self.counted}}
        return {"type": "error", "params": {"error": "stale share" if fate == STALE else "bad_share"}}


class DeepMiner(Coinhive):
    """deepMiner: a version instead of a key; the blob comes first."""

    name, path = "coinhive (deepMiner)", "/?pool=pool.example:3333"

    def greet(self):
        return [(C, {"type": "auth", "params": {"version": 7, "userID": "rig3"}}),
                (S, {"type": "authed", "params": {"hashes": 0}})]  # fmt: skip

    def work(self, number, hashes):
        target, worth = self.short(hashes)
        return {"type": "job", "params": {
            "blob": "0707" + self.hex(148), "job_id": str(number), "target": target, "id": "x", "algo": "cn/1", "height": 7}}, worth  # fmt: skip

    def solved(self, number):
        return {"type": "submit", "params": {
            "version": 7, "job_id": str(number), "nonce": self.hex(8), "result": self.hex(64)}}  # fmt: skip


class WebMinerPool(Browser):
    """webminerpool: the first job is the answer to the handshake; cn of variant 4 is cn/r."""

    name, dialect, algorithm, hashes = "webminerpool", "webminerpool", "cn/r", 1000.0

    def greet(self):
        return [(C, {"identifier": "handshake", "pool": "pool.example", "login": XMR, "password": "x", "userid": "", "version": 8})]  # fmt: skip

    def work(self, number, hashes):
        target, worth = self.short(hashes)
        return {"identifier": "job", "job_id": str(number), "algo": "cn", "variant": 4, "height": 2012345,
                "blob": "1010" + self.hex(148), "target": target}, worth  # fmt: skip

    def solved(self, number):
        return {"identifier": "solved", "job_id": str(number), "nonce": self.hex(8), "result": self.hex(64)}

    def judged(self, request, fate):
        if fate == ACCEPTED:
            return {"identifier": "hashsolved"}
        return {"identifier": "error", "param": "stale hash" if fate == STALE else "pool rejected hash"}


class WebMinerPoolId(WebMinerPool):
    """A login that the server knows: no evidence before a job comes."""

    name = "webminerpool (loginid)"

    def greet(self):
        return [(C, {"identifier": "handshake", "loginid": "49kkH7rd", "userid": "", "version": 8})]


class Cyber(Browser):
    """stratum-jsonrpc2-ws: any algorithm, none is named."""

    name, dialect, algorithm, hashes = "cyber-ws", "cyber-ws", None, 1e6

    def greet(self):
        return [(C, {"id": 1, "jsonrpc": "2.0", "method": "eth_subscribe", "params": ["newWork", "user", "x", "spoken/1.0"]}),
                (S, {"id": 1, "jsonrpc": "2.0", "result": "0x" + self.hex(32)})]  # fmt: skip

    def work(self, number, hashes):
        t = int(ONE / hashes)
        result = [f"7kx2{number}", "0x" + self.hex(64), "0x" + self.hex(64), "0x" + be(t), "0x4d", "86a3"]
        return {"jsonrpc": "2.0", "method": "eth_subscription", "params": {"subscription": "0x0c", "result": result}}, ONE / t  # fmt: skip

    def solved(self, number):
        return {"id": self.next_id(), "jsonrpc": "2.0", "method": "eth_submitWork",
                "params": [f"7kx2{number}", "0x" + self.hex(16), "0x" + self.hex(64)]}  # fmt: skip

    def judged(self, request, fate):
        if fate == ACCEPTED:
            return {"id": request["id"], "jsonrpc": "2.0", "result": True}
        words = "stale" if fate == STALE else "low difficulty"
        return {"id": request["id"], "jsonrpc": "2.0", "error": {"code": -32000, "message": words}}


class Nimiq(Browser):
    """A pool of Nimiq's in nano mode: no answer accepts; settings tell the target, blocks the work."""

    name, dialect, algorithm, hashes, in_job = "nimiq", "nimiq", "argon2d/nimiq", 1e6, False
    account = "NQ07 0000 0000 0000 0000 0000 0000 0000 0000"
    path = "/"

    def base64(self, octets):
        return base64.b64encode(self.random.randbytes(octets)).decode()

    def greet(self):
        said = {"deviceId": 7, "deviceData": {"minerVersion": "spoken 1.0"}, "genesisHash": self.base64(32)}
        return [(C, {"message": "register", "mode": "nano", "address": self.account, **said}),
                (S, {"message": "registered"})]  # fmt: skip

    def settings(self, hashes):
        t = int(ONE / hashes)
        # Only the leading digits of the target arrive, as JavaScript writes numbers.
        said = {"extraData": self.base64(40), "target": float(f"{float(t):.17g}"), "nonce": 1030036789885656}
        return {"message": "settings", "address": self.account, **said}, ONE / t

    def job(self, number, hashes, changed):
        settings, worth = self.settings(hashes)
        block = {
            "message": "new-block",
            "bodyHash": self.base64(32),
            "accountsHash": self.base64(32),
            "previousBlock": self.base64(900),
        }
        return [(S, (S, told)) for told in ((settings, block) if changed else (block,))], worth

    def solved(self, number):
        return {"message": "share", "block": self.base64(300)}

    def dump(self, message):
        return b"" if message is None else super().dump(message)

    def reply(self, request, fate):
        if fate == ACCEPTED:
            return None
        return S, {
            "message": "error",
            "reason": "invalid share: " + ("bad prev" if fate == STALE else "invalid pow"),
        }

    def close(self):
        told = {"message": "balance", "balance": 1230, "confirmedBalance": 1220, "payoutRequestActive": False}
        return [(S, (S, told))]


class NimiqSmart(Nimiq):
    """The client makes its own blocks; older pools tell compact bits alone."""

    name = "nimiq (smart)"

    def greet(self):
        (side, said), yes = super().greet()
        return [(side, {**said, "mode": "smart"}), yes]

    def settings(self, hashes):
        told, _ = super().settings(hashes)
        t = int(ONE / hashes)
        exponent = (t.bit_length() + 7) // 8
        mantissa = t >> 8 * (exponent - 3)
        told.pop("target")
        return {**told, "targetCompact": exponent << 24 | mantissa}, ONE / (mantissa << 8 * (exponent - 3))

    def job(self, number, hashes, changed):
        settings, worth = self.settings(hashes)
        return [(S, (S, settings))], worth

    def solved(self, number):
        return {
            "message": "share",
            "blockHeader": self.base64(146),
            "minerAddrProof": self.base64(99),
            "extraDataProof": self.base64(99),
        }


SPEAKERS = (Coinhive, DeepMiner, WebMinerPool, WebMinerPoolId, Cyber, Nimiq, NimiqSmart)

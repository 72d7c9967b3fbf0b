"""Stratum V2 without Noise, from sv2-spec 05-Mining-Protocol.md: no code shared with the parser."""

import struct

from speakers.speaking import ACCEPTED, ONE, STALE, C, S, Speaker


def frame(kind, payload, of_channel=False):
    """A message with its header."""
    size = struct.pack("<I", len(payload))[:3]
    return struct.pack("<HB", 0x8000 if of_channel else 0, kind) + size + payload


def text(said):
    """STR0_255."""
    return bytes([len(said)]) + said.encode()


class Standard(Speaker):
    """A mining device of its own: one channel, header-only jobs."""

    name, dialect, algorithm, hashes = "sv2-plain (standard)", "sv2-plain", "sha256d", 5e12
    channel = 7

    def __init__(self):
        super().__init__()
        self.sequence = 0

    def dump(self, message):
        return message

    def setup(self):
        said = struct.pack("<BHHI", 0, 2, 2, 1) + text("pool.example") + struct.pack("<H", 3336)
        said += text("Braiins") + text("Antminer S9") + text("2021-09") + text("dev7")
        return [(C, frame(0, said)), (S, frame(1, struct.pack("<HI", 2, 0)))]

    def open(self):
        asks = struct.pack("<I", 1) + text("bc1qlabonly.rig") + struct.pack("<f", 1e12) + b"\xff" * 32
        easy = (ONE >> 32).to_bytes(32, "little")
        yes = struct.pack("<II", 1, self.channel) + easy + b"\4abcd" + struct.pack("<I", 1)
        return [*self.setup(), (C, frame(0x10, asks)), (S, frame(0x11, yes))]

    def target(self, hashes):
        t = int(ONE / hashes)
        return frame(0x21, struct.pack("<I", self.channel) + t.to_bytes(32, "little"), True), ONE / t

    def work(self, number):
        said = struct.pack("<IIBII", self.channel, number, 1, 7, 0x20000000) + self.random.randbytes(32)
        return frame(0x15, said, True)

    def job(self, number, hashes, changed):
        set_target, worth = self.target(hashes)
        parent = struct.pack("<II", self.channel, number) + self.random.randbytes(32) + bytes(8)
        said = [set_target] if changed else []
        return [(S, f) for f in (*said, self.work(number), frame(0x20, parent, True))], worth

    def share(self, number):
        self.sequence += 1
        nonce = self.random.getrandbits(32)
        said = struct.pack("<IIIIII", self.channel, self.sequence, number, nonce, 7, 0x20000000)
        return frame(0x1A, said, True)

    def reply(self, request, fate):
        (sequence,) = struct.unpack_from("<I", request, 10)
        if fate == ACCEPTED:
            return frame(0x1C, struct.pack("<IIIQ", self.channel, sequence, 1, 1), True)
        words = text("stale-share" if fate == STALE else "difficulty-too-low")
        return frame(0x1D, struct.pack("<II", self.channel, sequence) + words, True)


class Extended(Standard):
    """A proxy: jobs with a coinbase, shares with an extranonce and a worker's name (extension 2)."""

    name, channel = "sv2-plain (extended)", 300

    def open(self):
        asks = struct.pack("<I", 1) + text("bc1qlabonly.rig") + struct.pack("<f", 1e12) + b"\xff" * 32
        easy = (ONE >> 32).to_bytes(32, "little")
        yes = struct.pack("<II", 1, self.channel) + easy + struct.pack("<H", 8) + b"\4abcd"
        asks += struct.pack("<H", 8)
        return [*self.setup(), (C, frame(0x13, asks)), (S, frame(0x14, yes))]

    def work(self, number):
        said = struct.pack("<IIBIIB", self.channel, number, 1, 7, 0x20000000, 1)
        said += b"\2" + self.random.randbytes(64)
        for size in (120, 700):
            said += struct.pack("<H", size) + self.random.randbytes(size)
        return frame(0x1F, said, True)

    def share(self, number):
        body = super().share(number)[6:] + b"\x08" + self.random.randbytes(8)
        return frame(0x1B, body + b"\x00\x02\x01\x04\x00rig3", True)


SPEAKERS = (Standard, Extended)

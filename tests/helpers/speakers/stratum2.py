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
    in_lines = False
    sums = False  # of difficulties in what accepts; older servers count shares there

    def __init__(self):
        super().__init__()
        self.sequence = 0
        self.difficulty = 1

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
        """A whole difficulty, so that sums of it are exact."""
        self.difficulty = max(1, round(hashes / 2**32)) if self.sums else 1
        t = int(ONE / (self.difficulty << 32 if self.sums else hashes))
        return frame(0x21, struct.pack("<I", self.channel) + t.to_bytes(32, "little"), True), ONE / t

    def work(self, number):
        """A future job: it waits for its parent."""
        said = struct.pack("<IIBI", self.channel, number, 0, 0x20000000) + self.random.randbytes(32)
        return frame(0x15, said, True)

    def job(self, number, hashes, changed):
        set_target, worth = self.target(hashes)
        parent = struct.pack("<II", self.channel, number) + self.random.randbytes(32) + bytes(8)
        said = [set_target] if changed else []
        return [(S, f) for f in (self.work(number), *said, frame(0x20, parent, True))], worth

    def share(self, number):
        self.sequence += 1
        nonce = self.random.getrandbits(32)
        said = struct.pack("<IIIIII", self.channel, self.sequence, number, nonce, 7, 0x20000000)
        return frame(0x1A, said, True)

    def reply(self, request, fate):
        (sequence,) = struct.unpack_from("<I", request, 10)
        if fate == ACCEPTED:
            (channel,) = struct.unpack_from("<I", request, 6)
            return frame(0x1C, struct.pack("<IIIQ", channel, sequence, 1, self.difficulty), True)
        words = text("stale-share" if fate == STALE else "difficulty-too-low")
        return frame(0x1D, request[6:10] + struct.pack("<I", sequence) + words, True)


class Extended(Standard):
    """A proxy: jobs with a coinbase, shares with an extranonce and a worker's name (extension 2)."""

    name, channel = "sv2-plain (extended)", 300
    sums = in_reply = True

    def setup(self):
        """Extensions are agreed on first: that of workers' names (extensions/0x0001)."""
        asks = b"\1\0\0\6\0\0" + struct.pack("<HHH", 1, 1, 2)
        return [*super().setup(), (C, asks), (S, asks[:2] + b"\1" + asks[3:])]

    def messages(self, said):
        """What extensions there are is passed over: it tells nothing of mining."""
        return 0 if said[:2] == b"\1\0" else super().messages(said)

    def open(self):
        asks = struct.pack("<I", 1) + text("bc1qlabonly.rig") + struct.pack("<f", 1e12) + b"\xff" * 32
        easy = (ONE >> 32).to_bytes(32, "little")
        yes = struct.pack("<II", 1, self.channel) + easy + struct.pack("<H", 8) + b"\4abcd"
        asks += struct.pack("<H", 8)
        return [*self.setup(), (C, frame(0x13, asks)), (S, frame(0x14, yes))]

    def job(self, number, hashes, changed):
        """The first waits for its parent, the others are to be begun with at once."""
        if not number:
            return super().job(number, hashes, changed)
        set_target, worth = self.target(hashes)
        return [(S, f) for f in ([set_target] if changed else [])] + [(S, self.work(number))], worth

    def work(self, number):
        """With a coinbase and a path."""
        active = struct.pack("<BI", 1, 7) if number else b"\0"
        said = struct.pack("<II", self.channel, number) + active + struct.pack("<IB", 0x20000000, 1)
        said += b"\2" + self.random.randbytes(64)
        for size in (120, 700):
            said += struct.pack("<H", size) + self.random.randbytes(size)
        return frame(0x1F, said, True)

    def share(self, number):
        body = super().share(number)[6:] + b"\x08" + self.random.randbytes(8)
        return frame(0x1B, body + b"\x00\x02\x01\x04\x00rig3", True)


class Group(Extended):
    """A farm's proxy: three devices' channels in a group, whose target, jobs and parents are the group's."""

    name, channel, members = "sv2-plain (group)", 1, (11, 12, 13)

    def open(self):
        said = self.setup()
        for number, own in enumerate(self.members):
            asks = struct.pack("<I", number) + text(f"bc1qlabonly.rig{own}") + struct.pack("<f", 1e12)
            yes = (
                struct.pack("<II", number, own) + (ONE >> 32).to_bytes(32, "little") + b"\4abc" + bytes([own])
            )
            said += [(C, frame(0x10, asks + b"\xff" * 32)), (S, frame(0x11, yes + bytes(4)))]
        group = struct.pack("<IH3I", self.channel, 3, *self.members)
        return [*said, (S, frame(0x25, group))]

    def share(self, number):
        body = Standard.share(self, number)
        own = self.members[self.sequence % len(self.members)]
        return body[:6] + struct.pack("<I", own) + body[10:]


SPEAKERS = (Standard, Extended, Group)

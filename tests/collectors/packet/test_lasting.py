"""What is kept of connections that last, against a plain reading of the same packets."""

import struct
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.packet import ageing, flows, lasting, namesets, table, tokens
from collectors.packet.frames import FRAME, decode_all

CAPTURES = Path(__file__).parents[4] / "shared" / "captures" / "packets"
A, B = ("10.0.0.1", 40000), ("93.184.216.34", 443)
S = 10**9
MS = 10**6
KEPT = ("pushes", "record_sizes", "reverse_record_sizes")


def told(rows):
    """The newest word on each connection, by (source port, protocol)."""
    return {(r["src_port"], r["protocol"]): [r[k] or [] for k in KEPT] for r in rows if not r["copy"]}


class Plain:
    """The same by plain Python, of one connection from one end, which opened it, to the other: packets in
    order."""

    def __init__(self, ends=(A, B)):
        self.server, self.known = ends[1], False
        self.open = self.heard = None
        self.pushes = []
        self.told = []
        self.expect = {}
        self.next = {}
        self.read = dict.fromkeys(ends, b"")
        self.sizes = {end: [0] * 7 for end in ends}

    def take(self, t, src, seq, data, cut=0):
        """A segment; ``cut`` octets more were sent than captured."""
        self.open = t if self.open is None else self.open
        new = ahead = len(data) + cut
        if src in self.expect:
            ahead = (seq + len(data) + cut - self.expect[src] + 2**31) % 2**32 - 2**31
            new = min(new, max(0, ahead))
        if src not in self.expect or ahead > 0:
            self.expect[src] = (seq + len(data) + cut) % 2**32
        if new and t - self.open >= 60 * S:
            self.note(t, src, seq, data)

    def note(self, t, src, seq, data):
        if self.heard is not None and src == self.server and t - self.heard >= 500 * MS:
            self.push(t)
        self.heard = t if self.heard is None else max(self.heard, t)
        if seq is not None:
            self.walk(src, seq, data)

    def push(self, t):
        if self.told:
            if len(self.told) >= 8 and t - self.told[-8] < 60 * S:
                return
            # Seven bits of the step, in units of 1/64 of 500 ms.
            units = (t - self.told[-1]) // 7_812_500
            spare = max(0, units.bit_length() - 7)
            t = self.told[-1] + (units >> spare << spare) * 7_812_500
        self.told.append(t)

    def walk(self, src, seq, data):
        if src not in self.next:
            place = None
        else:
            place = (self.next[src] - seq + 2**31) % 2**32 - 2**31
            if not 0 <= place <= 18432:
                place = None
        if place is None:
            self.read[src] = b""
            self.next.pop(src, None)
            head = data[:5]
            if not self.good(head) or len(head) < 5:
                return
            place = 0
        while place < len(data):
            self.read[src] += data[place : place + 1]
            place += 1
            if not self.good(self.read[src]):
                self.read[src] = b""
                self.next.pop(src, None)
                return
            if len(self.read[src]) == 5:
                length = int.from_bytes(self.read[src][3:], "big")
                kind = sum(length > b for b in (64, 96, 128, 320, 640, 2048))
                self.sizes[src][kind] = min(65535, self.sizes[src][kind] + 1)
                self.read[src] = b""
                place += length
        self.next[src] = (seq + place) % 2**32

    @staticmethod
    def good(head):
        """May this begin a record of application data?"""
        if not b"\x17\x03".startswith(head[:2]) or (len(head) > 2 and not 1 <= head[2] <= 4):
            return False
        least = int.from_bytes(head[3:].ljust(2, b"\0"), "big")
        return least <= 18432 and (len(head) < 5 or least > 0)

    def row(self):
        return [
            self.told[-64:],
            *([s[x] for x in range(7)] if self.heard else [] for s in self.sizes.values()),
        ]


RECORDS = st.lists(st.sampled_from([1, 60, 64, 65, 90, 128, 300, 641, 3000, 16000]), min_size=1, max_size=4)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([A, B]),
        st.sampled_from([1, 349, 499, 500, 501, 2000, 9000, 31000]),  # ms of silence before
        RECORDS,
        st.lists(st.integers(1, 60), max_size=3),  # places where its octets are cut into segments
        st.sampled_from(["", "", "", "", "lost", "again", "late", "noise"]),
    ),
    max_size=30,
)


def segments(steps):
    """(t, source, sequence number, data) of segments as they arrive, the first a minute before the rest."""
    t, seq = 0, {A: 2**32 - 500, B: 77}
    yield t, A, seq[A], b"x"
    seq[A] += 1
    t = 60 * S
    for src, wait, sizes, places, fate in steps:
        t += wait * MS
        data = b"".join(struct.pack(">BHH", 23, 0x0303, n) + bytes(n) for n in sizes)
        data = b"\x16" + data if fate == "noise" else data
        ends = [0, *sorted(set(places)), len(data)]
        parts = [(seq[src] + a, data[a:b]) for a, b in pairwise(ends) if data[a:b]]
        seq[src] += len(data)
        if fate == "lost":
            del parts[0]
        elif fate == "again":
            parts.append(parts[0])
        elif fate == "late":
            parts.append(parts.pop(0))
        for k, (first, part) in enumerate(parts):
            yield t + k, src, first % 2**32, part


def frames_of(make, steps):
    frames = [(0, make.tcp(A, B, 2**32 - 501, 0, make.SYN))]
    frames += [(t, make.tcp(s, B if s == A else A, q, 0, make.ACK, d)) for t, s, q, d in segments(steps)]
    return frames


@settings(max_examples=25)  # an example is up to a quarter of an hour of seconds that are told
@given(STEPS, st.data())
def test_pushes_and_records_are_those_of_a_plain_reader_however_blocks_are_cut(make, steps, data):
    plain = Plain()
    plain.expect[A] = 2**32 - 500
    plain.open = 0
    for t, src, seq, octets in segments(steps):
        plain.take(t, src, seq, octets)
    (block,) = make.read(make.pcap(frames_of(make, steps)))
    whole = make.replay([block])
    assert told(whole.flows)[40000, 6] == plain.row()
    places = data.draw(st.sets(st.integers(1, len(steps) + 2), max_size=4))
    assert sorted(make.replay(make.cut(block, places)).flows, key=str) == sorted(whole.flows, key=str)


def kept(blocks):
    """The newest word of the compiled pass on each connection that lasted, by its ends and protocol: pushes,
    and sizes of records from the lower end and from the upper; None where a key had several connections."""
    pool, out = table.table(1 << 12), ageing.outputs(1 << 12, 1 << 13, 1 << 10, 64, 1 << 12)
    never = 10**7 * S
    limits = ageing.Limits(60 * S, never, never, never, 1 << 13, 1 << 20, 1024)
    looked_for, nobody = tokens.compile_tokens(tokens.rows()), namesets.compile_wanted((), (), (), 1)
    rows, conns = {}, defaultdict(set)

    def take():
        for r, row in zip(out.exports[: out.filled[0]], out.lasted[: out.filled[0]], strict=True):
            key = (
                *(int(r[k]) for k in ("a_high", "a_low", "b_high", "b_low", "a_port", "b_port")),
                int(r["protocol"]),
            )
            conns[key].add(int(r["conn"]))
            rows[key] = row.copy() if r["lasting"] else None
        out.filled[:] = 0
        out.pieces.filled[:] = 0

    for block in blocks:
        at, stop = 0, block.offset.size
        while at < stop:
            at = flows.meter(block.columns, at, stop, pool, limits, looked_for, nobody, out)
            take()
    pool.state[table.HAND] = 0
    while not flows.flush(pool, out):
        take()
    take()
    return {key: plainly(row) if len(conns[key]) == 1 else None for key, row in rows.items()}


def plainly(row):
    if row is None:
        return [[], [], []]
    one = row.reshape(1)
    sizes = [lasting.records(one, np.array([d]), np.array([True]))[1].tolist() for d in range(2)]
    return [lasting.pushes(one)[1].tolist(), *sizes]


def read_plainly(blocks):
    """The same by the plain reader; keys of which a packet came in fragments, or from itself, are None."""
    readers, opened, odd = {}, {}, set()
    for block in blocks:
        frames, code = np.zeros(block.offset.size, FRAME), np.zeros(block.offset.size, np.int64)
        decode_all(*block.columns[:4], block.link, frames, code)
        for f, refused, t in zip(frames, code.tolist(), block.t_ns.tolist(), strict=True):
            ends = [tuple(int(f[f"{e}_{k}"]) for k in ("high", "low", "port")) for e in ("src", "dst")]
            low, high = sorted(ends)
            key = *low[:2], *high[:2], low[2], high[2], int(f["protocol"])
            if f["fragment"] or low == high:
                odd.add(key[:4])
            elif not refused:
                one = readers.setdefault(key, Plain((low, high)))
                first = opened.setdefault(key, ends[0])
                take_frame(one, f, t, ends, block.data)
                if not one.known:
                    by_port = low if low[2] < high[2] else high
                    one.server = by_port if low[2] != high[2] else high if first == low else low
    return {key: None if key[:4] in odd else one.row() for key, one in readers.items()}


def take_frame(one, f, t, ends, data):
    at, size = int(f["payload_at"]), int(f["payload"])
    octets, cut = data[at : at + size].tobytes(), int(f["payload_wire"]) - size
    flags = int(f["tcp_flags"])
    if f["protocol"] != 6:
        one.open = t if one.open is None else one.open
        if size + cut and t - one.open >= 60 * S:
            one.note(t, ends[0], None, octets)
    elif f["tcp"]:
        if flags & 2 and not flags & 4 and not one.known:
            one.known, one.server = True, ends[0 if flags & 16 else 1]
        one.take(t, ends[0], int(f["seq"]) + bool(flags & 2), octets, cut)
    else:
        one.open = t if one.open is None else one.open


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="needs ../shared")
def test_over_all_captures_pushes_and_records_are_those_of_a_plain_reader(make):
    """Slowed down, so that most connections of a capture last for more than a minute."""
    found = Counter()
    for path in sorted(CAPTURES.rglob("*.pcap*")):
        blocks = make.read(path.read_bytes())
        stamps = [b.t_ns for b in blocks if b.t_ns.size]
        if not stamps or path.stat().st_size > 2 << 20:
            continue
        first, last = min(int(t.min()) for t in stamps), max(int(t.max()) for t in stamps)
        slower = max(1, 3600 * S // max(1, last - first))
        for block in blocks:
            block.t_ns[:] = first + (block.t_ns - first) * slower
        wanted, got = (
            read_plainly(blocks),
            kept(p for b in blocks for p in make.cut(b, {7, b.offset.size // 2})),
        )
        for key, plain in wanted.items():
            if plain is not None and got[key] is not None:
                assert got[key] == plain, (path.name, key)
                found["pushes"] += len(plain[0])
                found["records"] += sum(map(sum, plain[1:]))
                found["connections"] += bool(plain[0])
            else:
                found["odd"] += 1
    assert found["connections"] > 50
    assert found["records"] > 20


def stamped(make, times, src=B, dst=A):
    return [(t, make.tcp(src, dst, 1000 + 10 * k, 0, make.ACK, b"j" * 10)) for k, t in enumerate(times)]


def test_the_last_sixty_four_pushes_are_told_a_little_early_at_most(make):
    times = [61 * S + k * 9 * S for k in range(100)]
    frames = [(0, make.tcp(A, B, 5, 0, make.SYN)), *stamped(make, [60 * S, *times])]
    got = make.replay(make.read(make.pcap(frames)))
    pushes = got.flows[-1]["pushes"]
    assert len(pushes) == 64
    assert all(0 <= t - p < 9 * S / 64 for p, t in zip(pushes, times[-64:], strict=True))
    assert got.moved["lasting_total", "opened"] == 1


def test_no_more_than_eight_pushes_a_minute_are_kept_and_the_others_counted(make):
    frames = [(0, make.tcp(A, B, 5, 0, make.SYN)), *stamped(make, [60 * S + k * S for k in range(121)])]
    got = make.replay(make.read(make.pcap(frames)))
    pushes = got.flows[-1]["pushes"]
    assert len(pushes) == 16
    assert all(b - a >= 60 * S for a, b in zip(pushes, pushes[8:], strict=False))
    assert got.moved["lasting_total", "pushes_over"] == 120 - 16


def test_a_young_connection_has_nothing(make):
    frames = [(0, make.tcp(A, B, 5, 0, make.SYN)), *stamped(make, [k * S for k in range(1, 60)])]
    got = make.replay(make.read(make.pcap(frames)))
    assert {r["pushes"] is None for r in got.flows} == {True}
    assert ("lasting_total", "opened") not in got.moved


@pytest.mark.parametrize(("client", "port"), [(A, 40000), (("10.0.0.1", 80), 80)])
def test_without_a_handshake_the_lower_port_is_the_servers(make, client, port):
    frames = stamped(make, [0, *(60 * S + k * 9 * S for k in range(5))], B, client)
    rows = make.replay(make.read(make.pcap(frames))).flows
    assert len(rows[-1]["pushes"]) == (4 if port > 443 else 0)


def crowd(make, ports, times):
    return [(t, make.tcp(B, ("10.0.0.1", p), 10 * k, 0, make.ACK, b"j" * 10))
            for k, t in enumerate(times) for p in ports]  # fmt: skip


def test_who_speaks_keeps_its_place_and_who_fell_silent_loses_it(make):
    many, few = range(1000, 1008), range(2000, 2004)
    first = crowd(make, many, [0, *(60 * S + k * 9 * S for k in range(4))])
    got = make.replay(make.read(make.pcap(first)), lasting_slots=4)
    assert sorted(len(r["pushes"] or ()) for r in got.flows if r["t_last"] == 87 * S) == [0] * 4 + [3] * 4
    assert got.moved["lasting_total", "no_room"] >= 4
    assert ("lasting_total", "evicted") not in got.moved
    later = crowd(make, few, [200 * S, *(261 * S + k * 9 * S for k in range(4))])
    got = make.replay(make.read(make.pcap(first + later)), lasting_slots=4, flow_slots=64)
    assert got.moved["lasting_total", "evicted"] == 4
    newest = [r for r in got.flows if r["t_last"] == 288 * S]
    assert [len(r["pushes"]) for r in newest] == [3] * 4


def test_a_place_is_given_back_when_its_connection_ends(make):
    frames = []
    for k in range(20):
        at, end = k * 100 * S, ("10.0.0.1", 1000 + k)
        frames += [(at + n * 61 * S, make.tcp(B, end, n, 0, make.ACK, b"j")) for n in range(2)]
        frames.append((at + 62 * S, make.tcp(B, end, 2, 0, make.RST)))
    got = make.replay(make.read(make.pcap(frames)), lasting_slots=1)
    assert got.moved["lasting_total", "opened"] == 20
    assert ("lasting_total", "no_room") not in got.moved


def test_another_clock_starts_the_pushes_anew(make):
    times = [0, *(60 * S + k * 9 * S for k in range(4))]
    frames = [(10**6 * S + t, f) for t, f in stamped(make, times)]
    frames += [(t, make.tcp(B, A, 5000 + t // S, 0, make.ACK, b"j")) for t in times]
    rows = make.replay(make.read(make.pcap(frames))).flows
    assert all(p <= r["t_last"] for r in rows for p in r["pushes"] or ())


@given(st.integers(lasting.SILENCE_NS, 2**62))
def test_a_step_is_rounded_down_by_less_than_a_part_in_sixty_four(gap):
    step = int(lasting.step_of(gap))
    kept = int(lasting.gap_of(np.int64(step)))
    assert 0 <= step < 1024
    assert kept <= gap
    assert gap - kept < gap / 64 or step == 1023


def test_a_row_is_as_long_as_it_may_be():
    assert lasting.LASTING.itemsize == 136

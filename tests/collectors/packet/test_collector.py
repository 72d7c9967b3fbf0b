"""The whole component: what is published, to whom, in what order, and what moves."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from collectors import streams, subscribers, wire
from collectors.packet import collector, payloads, table
from collectors.packet.sources import nothing
from collectors.packet.tokens import NEAR

A, B = ("10.0.0.1", 40000), ("93.184.216.34", 3333)
S = 10**9
LOGIN = b'{"id":1,"jsonrpc":"2.0","method":"login","params":{"login":"44Cb","pass":"x","agent":"XMRig"}}\n'
REPLY = b'{"id":1,"jsonrpc":"2.0","error":null,"result":{"id":"1","job":{"job_id":"x"},"status":"OK"}}\n'


def talk(make, lines, src=A, dst=B, at=0, handshake=True, size=1 << 16):
    """A TCP conversation; ``lines`` are (0 from the client or 1 from the server, bytes)."""
    seq, out, t = [1000, 9000], [], at
    if handshake:
        out += [
            (t, make.tcp(src, dst, 1000, 0, make.SYN)),
            (t + 1, make.tcp(dst, src, 9000, 1001, make.SYN | make.ACK)),
            (t + 2, make.tcp(src, dst, 1001, 9001)),
        ]
        seq, t = [1001, 9001], t + 3
    for d, line in lines:
        for k in range(0, len(line), size):
            ends = (dst, src) if d else (src, dst)
            out.append((t, make.tcp(*ends, seq[d], seq[1 - d], make.ACK, line[k : k + size])))
            seq[d] += len(line[k : k + size])
            t += 1000
    return out


def stream_of(rows, src_port):
    return b"".join(r["data"] for r in rows if r["src_port"] == src_port)


def replay(make, frames, **config):
    return make.replay(make.read(make.pcap(frames)), **config)


def test_a_mining_line_at_any_place_of_a_connection_makes_a_candidate(make):
    for before in (b"", b"\x05\x01\x00", b"CONNECT pool:3333 HTTP/1.1\r\n\r\n", bytes(3000)):
        got = replay(
            make, talk(make, [(0, before), (0, LOGIN), (1, REPLY)] if before else [(0, LOGIN), (1, REPLY)])
        )
        assert stream_of(got.payloads, 40000).endswith(LOGIN)
        assert stream_of(got.payloads, 3333) == REPLY
        assert got.flows[0]["candidate"] == 1


def test_ordinary_traffic_makes_none(make):
    lines = [(0, b"GET / HTTP/1.1\r\n\r\n"), (1, b"HTTP/1.1 200 OK\r\n\r\n" + bytes(range(256)) * 20)]
    got = replay(make, talk(make, lines))
    assert got.payloads == []
    assert got.flows[0]["candidate"] == 0


@given(st.integers(1, 30), st.booleans())
def test_lines_split_anywhere_are_whole(make, size, blanks):
    login = b" \r\n" + LOGIN if blanks else LOGIN
    got = replay(make, talk(make, [(0, login), (1, REPLY)], size=size))
    assert stream_of(got.payloads, 40000) == login
    assert stream_of(got.payloads, 3333) == REPLY
    assert not any(r["flags"] & streams.GAP for r in got.payloads)


@given(st.integers(1, 30))
def test_joined_in_the_middle_the_next_line_is_whole_however_it_is_split(make, size):
    got = replay(make, talk(make, [(0, b'"x"}\n' + LOGIN), (0, LOGIN)], handshake=False, size=size))
    assert stream_of(got.payloads, 40000).endswith(LOGIN)


def test_escaped_method_names_are_passed_on_from_the_start(make):
    line = b'{"method":"\\u006c\\u006fgin","params":{}}\n'
    got = replay(make, talk(make, [(0, line), (1, b"{}\n")]))
    assert stream_of(got.payloads, 40000) == line
    assert got.moved["tentative_total",] == 1
    assert ("candidates_total",) not in got.moved


def test_a_tentative_connection_passes_on_its_budget_and_no_more(make):
    lines = [(0, b'{"a":1}\n' * 100)] * 40
    got = replay(make, talk(make, lines), tentative_bytes=4096)
    assert 2000 < len(stream_of(got.payloads, 40000)) <= 4096
    assert got.moved["withheld_total",] > 30
    # A token after that is found all the same.
    got = replay(make, talk(make, [*lines, (0, LOGIN)]), tentative_bytes=4096)
    assert stream_of(got.payloads, 40000).endswith(LOGIN)


def test_near_misses_are_searched_more_sparsely_and_hide_nobody(make):
    lines = [(0, b'"method":"x",' * 100)] * 100 + [(0, LOGIN)] * 20
    got = replay(make, talk(make, lines, handshake=False), near_misses_a_record=500)
    assert got.moved["unscanned_total",] > 50
    assert LOGIN in stream_of(got.payloads, 40000)


def test_a_candidate_silent_for_longer_than_reassembly_keeps_it_goes_on(make):
    early, late = talk(make, [(0, LOGIN), (1, REPLY)] * 7), 1000 * S
    n = 1001 + 7 * len(LOGIN)
    frames = [*early, (late, make.tcp(A, B, n, 9001 + 7 * len(REPLY), make.ACK, LOGIN))]
    for config in ({"linger_s": 3600}, {"linger_s": 3600, "reassembly": {"idle_s": 60}}):
        got = replay(make, frames, **bounded(config))
        assert stream_of(got.payloads, 40000) == LOGIN * 8
        assert got.moved["reassembly_drops_total", "aged"] == 1
        assert {r["t_open"] for r in got.flows} == {0}
    # By default as well, when the first stamp lies ahead of the rest.
    got = replay(make, [(10**6 * S, early[0][1]), *early[1:], *frames[-1:]])
    assert stream_of(got.payloads, 40000) == LOGIN * 8


def bounded(config):
    """The same, its bounds of reassembly made from a dictionary."""
    bounds = config.get("reassembly")
    return {**config, "reassembly": payloads.Bounds(**bounds)} if bounds else config


def test_both_ends_home_are_two_copies_and_neither_is_none(make):
    got = replay(make, talk(make, [(0, LOGIN)], dst=("10.0.0.2", 3333)))
    assert sorted(r["copy"] for r in got.flows) == [0, 1]
    assert sorted(r["copy"] for r in got.payloads) == [0, 1]
    got = replay(make, talk(make, [(0, LOGIN)], src=("8.8.8.8", 1)))
    assert got.flows == got.payloads == []
    assert got.moved["not_home_total", "flows"] == 1
    assert got.moved["not_home_total", "payloads"] == 1


def test_the_time_is_told_every_second_to_every_partition(make):
    got = replay(make, [(k * S // 4, make.udp(A, B)) for k in range(41)], partitions=3)
    told = {
        p: [h.clocks[0].newest_ns for s, q, _, h in got.batches if (s, q) == ("flows", p)] for p in range(3)
    }
    for stamps in told.values():
        assert stamps == sorted(stamps)
        assert stamps[-1] == 10 * S
        assert max(b - a for a, b in pairwise(stamps)) <= S


def test_headers_number_batches_and_name_the_home(make):
    where = subscribers.home(["10.0.0.0/8"])
    frames = talk(make, [(0, LOGIN), (1, REPLY)]) + [(k * S, make.udp(A, B)) for k in range(1, 9)]
    got = make.replay(make.read(make.pcap(frames)), home=where, partitions=2, id="tap7")
    numbers = {}
    for stream, partition, batch, header in got.batches:
        assert header.number == numbers.get((stream, partition), 0)
        numbers[stream, partition] = header.number + 1
        assert (header.collector, header.home, header.rows) == ("tap7", where.digest, batch.num_rows)
        assert header.version == streams.STREAMS[stream].version
        assert header.clocks == (wire.Clock("tap7", header.received_ns, 5 * S),)
        assert batch.num_rows <= wire.MAX_ROWS
        times = wire.values(batch, "t" if stream == "payloads" else "t_first")
        assert not times.size or header.t_first_ns == times.min()
    assert set(numbers) >= {("flows", 0), ("flows", 1)}


def test_many_rows_are_cut_into_messages_that_are_allowed(make):
    frames = [(k, make.udp(("10.0.0.1", k % 60000), ("9.9.9.9", k // 60000))) for k in range(20000)]
    got = replay(make, frames, partitions=1, flow_slots=32768)
    assert len(got.flows) == 20000
    assert max(b.num_rows for *_, b, _ in got.batches) <= wire.MAX_ROWS


def test_all_that_moves_in_one_replay(make):
    frames = talk(make, [(0, LOGIN), (1, REPLY)])
    frames += [(5 * S, make.udp(("8.8.8.8", 53), ("9.9.9.9", 5), b"x")), (5 * S, b"\x00"), (5 * S, b"")]
    got = replay(make, frames, partitions=2)
    n = sum(len(f) for _, f in frames)
    assert got.moved == {
        ("frames_total",): 8,
        ("bytes_total",): n,
        ("metered_total",): 6,
        ("refused_total", "header"): 1,
        ("refused_total", "short"): 1,
        ("connections_total",): 2,
        ("tentative_total",): 1,
        ("candidates_total",): 1,
        ("scanned_bytes_total",): len(LOGIN),
        ("search_steps_total",): 2 + NEAR,  # "jsonrpc", and a method that is login
        ("rows_total", "flows"): 1,
        ("rows_total", "payloads"): 2,
        ("batches_total", "flows"): 4,
        ("batches_total", "payloads"): 1,
        ("payload_bytes_total",): len(LOGIN) + len(REPLY),
        ("not_home_total", "flows"): 1,
    }


LINES = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(
            [LOGIN, REPLY, b"{", b" ", b'"min', b'ing."', b"plain text\n", bytes(50), LOGIN * 30]
        ),
    ),
    max_size=12,
)
SHUFFLE = st.lists(st.tuples(st.integers(0, 400), st.sampled_from(["swap", "repeat", "drop"])), max_size=6)


@given(
    st.lists(st.tuples(LINES, st.booleans(), st.integers(1, 200), st.integers(0, 90)), max_size=5),
    SHUFFLE,
    st.sets(st.integers(0, 200), max_size=12),
)
def test_blocks_cut_anywhere_give_the_same_rows(make, talks, changes, places):
    frames = []
    for k, (lines, handshake, size, at) in enumerate(talks):
        frames += talk(
            make, lines, src=(f"10.0.0.{k % 3}", 40000 + k), at=at * S, handshake=handshake, size=size
        )
    frames.sort(key=lambda f: f[0])
    for at, what in changes:
        if at + 1 < len(frames):
            if what == "swap":
                frames[at], frames[at + 1] = frames[at + 1], frames[at]
            elif what == "repeat":
                frames.insert(at + 1, frames[at])
            else:
                del frames[at]
    (block, *_) = [*make.read(make.pcap(frames)), None]
    if block is None:
        return
    config = {"flow_slots": 16, "idle_timeout_s": 20, "active_timeout_s": 10}
    whole = make.replay([block], **config)
    parts = make.replay(make.cut(block, places), **config)
    key = repr
    for stream in ("flows", "payloads"):
        for p in range(4):
            a, b = ([r for r in getattr(x, stream) if r["partition"] == p] for x in (whole, parts))
            assert a == b if stream == "payloads" else sorted(a, key=key) == sorted(b, key=key)
    drop = ("batches_total", "flows"), ("batches_total", "payloads")
    assert {k: v for k, v in whole.moved.items() if k not in drop} == {
        k: v for k, v in parts.moved.items() if k not in drop
    }


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5), st.sampled_from(["udp", "SYN", "ACK", "data", "FIN", "RST"]),
            st.sampled_from([0, 1, 10**8, S, 3 * S, 11 * S, -S, -30 * S]), st.booleans(),
        ),
        max_size=60,
    ),
    st.sampled_from([(5, 7), (20, 3), (3, 30)]),
)  # fmt: skip
def test_a_row_is_aged_as_if_it_were_looked_at_each_time(make, steps, timeouts):
    """Stamps that go back among them."""
    frames, t = [], 1000 * S
    for k, kind, wait, back in steps:
        t += wait
        src, dst = (B, ("10.0.0.1", k)) if back else (("10.0.0.1", k), B)
        flags = {"SYN": make.SYN, "FIN": make.FIN | make.ACK, "RST": make.RST}.get(kind, make.ACK)
        data = b"x" * 9 if kind == "data" else b""
        frames.append((t, make.udp(src, dst) if kind == "udp" else make.tcp(src, dst, 5, 6, flags, data)))
    config = collector.Config(
        flow_slots=16, active_timeout_s=timeouts[0], idle_timeout_s=timeouts[1], linger_s=15, hash_seed=1
    )
    blocks = make.read(make.pcap(frames))
    assert flow_rows(config, blocks, wary=0) == flow_rows(config, blocks, wary=1 << 60)


def flow_rows(config, blocks, wary):
    """What becomes of blocks, if so many times a row is looked at whatever it is due."""
    published = []
    whole = collector.Collector(
        config, subscribers.home(), 1, lambda *p: published.append(p), collector.Metrics(CollectorRegistry())
    )
    whole._table.state[table.WARY] = wary
    for block in blocks:
        whole.feed(block)
    whole.finish()
    return [row for stream, _, batch, _ in published if stream == "flows" for row in batch.to_pylist()]


@given(
    st.lists(
        st.tuples(st.integers(0, 2**32 * S - 1), st.binary(max_size=120), st.integers(0, 9000)), max_size=30
    ),
    st.sampled_from([0, 1, 101, 113, 228, 229, 276]),
)
def test_any_frames_are_metered_or_refused_and_each_once(make, frames, link):
    headed = [(t, (make.tcp(A, B, n, n, n & 0x3F, data) if n % 3 else data), n) for t, data, n in frames]
    got = make.replay(make.read(make.pcap(headed, link=link)))
    refused = sum(n for (name, *_), n in got.moved.items() if name == "refused_total")
    assert got.moved.get(("metered_total",), 0) + refused == len(frames)


def test_a_stream_that_turns_out_to_be_elsewhere_lowers_no_counter(make):
    """Each segment in a block of its own, so that all is counted between them."""
    frames, seq = talk(make, [(0, LOGIN)]), 1001 + len(LOGIN) + 20_000_000
    for k in range(20):
        frames.append((10**6 + k, make.tcp(A, B, seq + 50 * k, 9001, make.ACK, b"x" * 50)))
    got = make.replay([b for f in frames for b in make.read(make.pcap([f]))])
    assert stream_of(got.payloads, 40000) == LOGIN + b"x" * 20 * 50
    assert ("reassembly_drops_total", "strange") not in got.moved


class Live:
    """A collector on a live link: frames and silence in, what was published out."""

    def __init__(self, make, ahead=0, **config):
        self.make, self.ahead = make, ahead
        self.published = []
        self.metrics = collector.Metrics(CollectorRegistry())
        self.collector = collector.Collector(
            collector.Config(flow_slots=64, **config), subscribers.home(), 2,
            lambda *given: self.published.append(given), self.metrics,
        )  # fmt: skip

    def frames(self, frames):
        """As they come from a ring: a tenth of a second late, by a clock that is ``ahead`` of theirs."""
        for block in self.make.read(self.make.pcap(frames)):
            self.collector.feed(block, int(block.t_ns[-1]) + S // 10 + self.ahead)

    def silence(self, first_s, last_s):
        for tenth in range(first_s * 10, last_s * 10):
            self.collector.feed(nothing(), tenth * S // 10 + self.ahead)

    def rows(self, stream):
        return [row for s, _, batch, _ in self.published if s == stream for row in batch.to_pylist()]


@pytest.mark.parametrize("ahead", [0, 7 * 3600 * S, -7 * 3600 * S])
def test_on_an_idle_link_time_goes_on(make, ahead):
    live = Live(make, ahead, idle_timeout_s=10, linger_s=10)
    live.frames(talk(make, [(0, LOGIN), (1, REPLY)], at=100 * S))
    live.silence(101, 102)
    assert stream_of(live.rows("payloads"), 40000) == LOGIN  # it lingers no longer than it should
    assert live.rows("flows") == []
    live.silence(102, 130)
    (flow, *_) = live.rows("flows")
    assert (flow["src_port"], flow["end_reason"]) == (40000, 1)
    assert live.metrics.table_rows._value.get() == 0
    clocks = [h.clocks[0].newest_ns for _, p, _, h in live.published if p == 0]
    assert clocks == sorted(clocks)
    assert 128 * S < clocks[-1] <= 130 * S
    assert 25 <= sum(1 for c in clocks if c > 102 * S) <= 60
    # And it still is the frames' time.
    before = len(live.published)
    live.frames(talk(make, [(0, LOGIN)], at=130 * S, src=("10.0.0.1", 40001)))
    live.silence(131, 132)
    assert max(h.clocks[0].newest_ns for *_, h in live.published[before:]) <= 132 * S


def test_before_the_first_frame_there_is_no_time(make):
    live = Live(make)
    live.silence(0, 30)
    assert live.published == []
    live.frames(talk(make, [(0, LOGIN)], at=50 * S))
    assert live.published


def test_a_hole_is_given_up_in_silence_and_a_clock_set_back_stops_nothing(make):
    live = Live(make)
    frames = talk(make, [(0, LOGIN), (0, LOGIN), (0, LOGIN)], at=100 * S)
    live.frames([*frames[:4], frames[5]])
    live.silence(101, 104)
    assert stream_of(live.rows("payloads"), 40000) == LOGIN * 2
    live.frames(talk(make, [(0, LOGIN)], at=105 * S, src=("10.0.0.1", 40001)))
    live.ahead = -50 * S
    live.silence(106, 108)
    assert stream_of(live.rows("payloads"), 40001) == LOGIN


def test_in_a_replay_a_block_without_frames_is_nothing(make):
    blocks = make.read(make.pcap(talk(make, [(0, LOGIN), (1, REPLY)], at=100 * S)))
    assert make.replay([nothing(), *blocks, nothing()]).batches == make.replay(blocks).batches

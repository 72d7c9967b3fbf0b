"""Losses, told from what is overtaken, repeated, begun anew, or counted otherwise."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.netflow import sequences as s
from collectors.netflow.domains import (
    D_COUNTING,
    D_GAPS,
    D_LOST,
    D_NEXT,
    D_NEXT_OTHER,
    D_UPTIME,
    D_VERSION,
    DOMAIN,
    GAPS,
    NONE,
    OTHER,
    STANDARD,
)

MS = 1_000_000
FLOW = struct.pack(">4s4sII", b"\x0a\0\0\1", b"\xc0\0\2\x09", 1000, 10)
FIELDS = ((8, 4), (12, 4), (1, 4), (2, 4))


class Watch:
    """One domain, and its counters."""

    def __init__(self, version=9):
        self.domains = np.zeros((1, DOMAIN), np.int64)
        self.domain = self.domains[0]
        self.domain[[D_NEXT, D_NEXT_OTHER, D_UPTIME]] = -1
        self.domain[D_VERSION] = version
        self.counters = np.zeros(len(s.PROTOCOLS) * s.PER_PROTOCOL, np.int64)
        place = s.PROTOCOLS.index(version)
        self.count = self.counters[place * s.PER_PROTOCOL : (place + 1) * s.PER_PROTOCOL]
        self.t_ns = 1_700_000_000 * 10**9

    def see(self, told, units=1, other=-1, templates=0, uptime=-1, export=0, after=MS):
        self.t_ns += after
        s.sequence(
            self.domain, told & 0xFFFFFFFF, units, other, templates, uptime, export, self.t_ns,
            s.FAR_RECORDS, self.count,
        )  # fmt: skip

    def end(self):
        s.expire(self.domains, 1, s.EVER, self.counters)
        return {
            name: int(self.count[getattr(s, f"N_{name.upper()}")])
            for name in ("lost", "gaps", "late", "repeated", "restarts")
            if self.count[getattr(s, f"N_{name.upper()}")]
        }


@given(
    first=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 40), min_size=3, max_size=60),
    data=st.data(),
)
def test_what_is_lost_is_what_never_came_in_whatever_order(first, sizes, data):
    starts = [first + sum(sizes[:i]) for i in range(len(sizes))]
    inner = range(1, len(sizes) - 1)
    # Few enough to be open at once, each in a gap of its own.
    lost = data.draw(st.sets(st.sampled_from(inner), max_size=GAPS // 2)) if inner else set()
    came = [i for i in range(len(sizes)) if i not in lost]
    # Neighbours change places; the first and the last stay, or nobody could know of them.
    for i in data.draw(st.lists(st.integers(1, max(1, len(came) - 3)), max_size=2)):
        if i + 1 < len(came) - 1:
            came[i], came[i + 1] = came[i + 1], came[i]
    watch = Watch(10)
    for i in came:
        watch.see(starts[i], units=sizes[i])
    got = watch.end()
    assert got.get("lost", 0) == sum(sizes[i] for i in lost)
    assert got.get("restarts", 0) == 0
    assert watch.domain[D_LOST] == got.get("lost", 0)


def test_a_late_datagram_is_waited_for_and_not_for_ever():
    watch = Watch()
    for told in (1, 2, 5, 3, 4, 6):
        watch.see(told)
    assert watch.end() == {"late": 2}
    watch = Watch()
    for told in (1, 2, 5):
        watch.see(told)
    watch.see(6, after=s.WAIT_NS + 1)
    watch.see(3)
    assert watch.end() == {"lost": 2, "gaps": 1, "repeated": 1}


def test_more_gaps_than_there_is_room_for_are_lost_from_the_oldest():
    watch = Watch()
    for told in range(0, 4 * (GAPS + 3), 4):
        watch.see(told)
    assert watch.domain[D_GAPS] == GAPS
    assert watch.count[s.N_LOST] == 3 * 2
    assert watch.end() == {"lost": 3 * (GAPS + 2), "gaps": GAPS + 2}


def test_one_that_comes_late_into_a_long_gap_leaves_two():
    watch = Watch(10)
    watch.see(0, units=10)
    watch.see(100, units=10)
    watch.see(40, units=20)
    assert watch.domain[D_GAPS] == 2
    watch.see(10, units=30)
    watch.see(60, units=-1)
    assert watch.end() == {"late": 3}, "of one whose records are not known the rest is taken"


def test_a_repeat_is_no_loss_and_no_restart():
    watch = Watch()
    for told in (1, 2, 2, 3, 3, 3, 4):
        watch.see(told, export=7)
    assert watch.end() == {"repeated": 3}


@pytest.mark.parametrize("after", [0, 3])
def test_a_sequence_that_is_back_in_a_later_export_has_begun_anew(after):
    watch = Watch(10)
    for i in range(5):
        watch.see(1000 + i, export=i)
    for i in range(5):
        watch.see(after + i, export=10 + i)
    assert watch.end() == {"restarts": 1}


def test_an_uptime_that_is_back_is_a_restart_even_where_the_sequence_fits():
    watch = Watch()
    watch.see(1, uptime=10_000_000)
    watch.see(2, uptime=1000)
    assert watch.end() == {"restarts": 1}


@pytest.mark.parametrize(
    ("version", "units", "other"), [(9, 1, 20), (10, 20, 1), (5, 30, 1)], ids=["v9", "ipfix", "v5"]
)
def test_an_exporter_that_counts_otherwise_is_found_out_and_its_losses_are_told(version, units, other):
    watch = Watch(version)
    for i in range(50):
        watch.see(i * other, units=units, other=other, export=i, after=5 * 10**9)
    assert watch.domain[D_COUNTING] == OTHER
    assert watch.end() == {}
    watch.see(53 * other, units=units, other=other, export=60)
    assert watch.end() == {"lost": 3 * other, "gaps": 1}
    for i in range(20):
        watch.see(53 * other + i * units, units=units, other=other, export=61 + i)
    assert watch.domain[D_COUNTING] == STANDARD, "a new release may count as it should"


def test_templates_that_are_counted_too_are_no_loss():
    watch = Watch(10)
    watch.see(0, units=10, templates=3)
    watch.see(13, units=10)
    watch.see(23, units=10)
    assert watch.end() == {}


def test_a_sequence_that_says_nothing_is_not_believed_until_it_does():
    watch = Watch(5)
    for i in range(100):
        watch.see(0, units=30, other=1, export=i)
    assert watch.domain[D_COUNTING] == NONE
    told = watch.end()
    assert told["restarts"] <= 16
    assert "lost" not in told
    for i in range(100):
        watch.see(30 * i, units=30, other=1, export=100 + i)
    assert watch.domain[D_COUNTING] == STANDARD


def test_heavy_loss_is_never_taken_for_a_broken_exporter():
    watch = Watch()
    for told in range(0, 30_000, 10):
        watch.see(told, other=25, export=told)
    assert watch.domain[D_COUNTING] == STANDARD
    assert watch.end() == {"lost": 2999 * 9, "gaps": 2999}


def test_losses_are_told_by_exporter_and_domain(make):
    def part(exporter, domain, *numbers):
        return make.gathered(
            *(make.v9(sequence=n, domain=domain) for n in numbers), exporter=make.sixteen(exporter)
        )

    lists = part("192.0.2.1", 1, 5, 9), part("192.0.2.1", 2, 5, 6), part("192.0.2.2", 1, 5, 7)
    moved = make.replay(lists).moved
    told = {k[1:]: n for k, n in moved.items() if k[0] == "domain_lost_total"}
    assert told == {("192.0.2.1", "1", "netflow9"): 3, ("192.0.2.2", "1", "netflow9"): 1}
    assert moved["lost_total", "netflow9"] == 4
    assert moved["sequence_domains", "standard"] == 3


def test_ipfix_counts_options_and_no_templates(make):
    flows = make.template(256, FIELDS, 10)
    options = make.template(400, ((149, 4), (41, 8)), 10, scopes=1)
    stats = make.data_set(400, struct.pack(">IQ", 7, 1))
    data = make.data_set(256, FLOW, FLOW)
    got = make.replay(
        [make.gathered(make.ipfix(flows, options, stats, data, sequence=0), make.ipfix(data, sequence=3),
                       make.ipfix(data, sequence=6))]
    )  # fmt: skip
    assert got.moved["lost_total", "ipfix"] == 1

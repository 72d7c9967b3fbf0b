"""Dialects that are not plain lines, spoken from their specifications, through the packet path: from the
start and joined in the middle, what is published holds what was said."""

import ipaddress

import pytest
from speakers import browsers, nodes, solo, stratum2, table
from speakers.conversing import converse
from spoken import Talk

from detector.observers.payload import PayloadObserver

KINDS = (
    browsers.Coinhive, browsers.Cyber, browsers.Nimiq, browsers.NimiqSmart, nodes.Node, nodes.BusyNode,
    nodes.Farmer, solo.FullTemplate, solo.MoneroFull, stratum2.Standard,
)  # fmt: skip
MOST = 1400


def frames(make, talk, since):
    """The connection as packets, a message that is long in several."""
    ends = {who: (str(ipaddress.ip_address(a).ipv4_mapped), port)
            for who, (a, port) in (("c", talk.client), ("s", talk.server))}  # fmt: skip
    out = []
    if not since:
        c, s = talk.base["c"], talk.base["s"]
        start = talk.rows[0]["t"] - 3
        out = [(start, make.tcp(ends["c"], ends["s"], c - 1, 0, make.SYN)),
               (start + 1, make.tcp(ends["s"], ends["c"], s - 1, c, make.SYN | make.ACK))]  # fmt: skip
    for row in talk.rows[since:]:
        who, other = ("c", "s") if row["src"] == talk.client[0] else ("s", "c")
        for at in range(0, len(row["data"]) or 1, MOST):
            data = row["data"][at : at + MOST]
            out.append(
                (row["t"], make.tcp(ends[who], ends[other], row["seq"] + at, row["ack"], make.ACK, data))
            )
    return out


def heard(make, kind, part):
    """The facts of the session as the observer has them, and the true counts."""
    speaker, talk = kind(), Talk()
    truth = converse(speaker, talk)
    since = int(len(talk.rows) * part)
    got = make.replay(make.read(make.pcap(frames(make, talk, since))), partitions=1)
    observer, facts = PayloadObserver(), None
    for stream, _, batch, _ in got.batches:
        if stream == "payloads":
            facts = next(iter(observer.step(batch).sessions), facts)
    return facts, truth.counts(since)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_a_session_is_picked_whole_from_its_start(make, kind):
    facts, counts = heard(make, kind, 0.0)
    assert facts is not None
    assert facts.dialect == kind.dialect
    assert {name: getattr(facts.shares, name) for name in counts} == counts


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_a_session_is_picked_when_joined_in_the_middle(make, kind):
    facts, counts = heard(make, kind, 0.4)
    assert facts is not None
    assert facts.dialect == kind().late_dialect
    told = {name: getattr(facts.shares, name) for name in counts}
    # What came before the first token is not published: of a template's blocks all that are found by it.
    assert 0 <= sum(counts.values()) - sum(table.without_reason(told).values()) <= 14

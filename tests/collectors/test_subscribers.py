"""Whose row it is."""

from ipaddress import ip_address, ip_network

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import ConfigError
from collectors.subscribers import DEFAULT_HOME, SOME, assign, holds, home


def sixteen(text):
    made = ip_address(text)
    return made.packed if made.version == 6 else bytes(10) + b"\xff\xff" + made.packed


def given_to(src, dst, sport, dport, where, partitions=32):
    """[(subscriber text, copy, partition)] of one row, and whether it was dropped."""
    one = lambda a: np.frombuffer(sixteen(a), np.uint8).reshape(1, 16)  # noqa: E731
    got = assign(
        one(src), one(dst), np.array([sport], np.uint16), np.array([dport], np.uint16), where, partitions
    )
    told = []
    for sub, copy, part in zip(got.subscriber, got.copy, got.partition, strict=True):
        address = ip_address(sub.tobytes())
        told.append((str(address.ipv4_mapped or address), int(copy), int(part)))
    return told, got.dropped


HOME = home(pool_ports=[3333])
ANYWHERE = home([], pool_ports=[3333])


def who(*args):
    return [(a, c) for a, c, _ in given_to(*args)[0]]


def test_the_home_end_gets_the_row_whichever_way_it_goes():
    assert who("10.1.2.3", "8.8.8.8", 5000, 53, HOME) == [("10.1.2.3", 0)]
    assert who("8.8.8.8", "10.1.2.3", 53, 5000, HOME) == [("10.1.2.3", 0)]


def test_both_home_gives_two_copies_the_client_first():
    assert who("10.0.0.9", "10.0.0.1", 40000, 3333, HOME) == [("10.0.0.9", 0), ("10.0.0.1", 1)]
    assert who("10.0.0.1", "10.0.0.9", 3333, 40000, HOME) == [("10.0.0.9", 0), ("10.0.0.1", 1)]
    assert who("10.0.0.1", "10.0.0.9", 80, 1000, HOME) == [("10.0.0.9", 0), ("10.0.0.1", 1)]


def test_the_same_host_at_both_ends_gives_one_copy():
    assert who("127.0.0.1", "127.0.0.1", 40000, 3333, HOME) == [("127.0.0.1", 0)]
    assert who("127.0.0.1", "127.0.0.1", 3333, 40000, HOME) == [("127.0.0.1", 0)]


def test_two_hosts_of_one_prefix_are_one_subscriber():
    assert who("2001:db8:1:2::4", "2001:db8:1:2::9", 40000, 3333, HOME) == [("2001:db8:1:2::", 0)]
    assert who("2001:db8:1:2::4", "2001:db8:1:3::9", 40000, 3333, HOME) == [
        ("2001:db8:1:2::", 0),
        ("2001:db8:1:3::", 1),
    ]


def test_neither_home_is_dropped_and_counted():
    assert given_to("8.8.8.8", "9.9.9.9", 1, 2, HOME) == ([], 1)


def test_with_no_networks_the_client_is_the_subscriber():
    assert who("8.8.8.8", "9.9.9.9", 40000, 3333, ANYWHERE) == [("8.8.8.8", 0)]
    assert who("8.8.8.8", "9.9.9.9", 3333, 2000, ANYWHERE) == [("9.9.9.9", 0)], "a listed port is no client's"
    assert who("8.8.8.8", "9.9.9.9", 80, 2000, ANYWHERE) == [("9.9.9.9", 0)]
    assert who("9.9.9.9", "8.8.8.8", 123, 123, ANYWHERE) == [("8.8.8.8", 0)]


def test_an_ipv6_subscriber_is_its_prefix():
    assert who("2001:db8:1:2:3::4", "2606::1", 9, 1, HOME) == [("2001:db8:1:2::", 0)]
    assert who("2001:db8:1:2:3::4", "2606::1", 9, 1, home(prefix6=128)) == [("2001:db8:1:2:3::4", 0)]
    assert who("2001:db8:1:2:3::4", "2606::1", 9, 1, home(prefix6=44)) == [("2001:db8::", 0)]


addresses = st.integers(0, 2**32 - 1).map(lambda n: str(ip_address(n))) | st.sampled_from(
    ["10.0.0.1", "10.255.255.255", "11.0.0.0", "172.15.255.255", "172.16.0.0", "127.0.0.1",
     "fc00::1", "fbff::1",
     "2001:db8::1", "2001:db9::1", "::1", "::ffff:10.0.0.1", "198.51.100.255", "198.51.101.0"])  # fmt: skip
ports = st.integers(0, 65535)


@given(addresses, addresses, ports, ports)
def test_it_agrees_with_a_plain_reading(a, b, sport, dport):
    nets = [ip_network(n) for n in DEFAULT_HOME]

    def at_home(text):
        made = ip_address(text)
        made = getattr(made, "ipv4_mapped", None) or made
        return any(made.version == n.version and made in n for n in nets)

    told, dropped = given_to(a, b, sport, dport, HOME)
    homes = {x for x in (sixteen(a), sixteen(b)) if at_home(str(ip_address(x)))}
    assert len(told) == len(homes)
    assert dropped == (not homes)
    assert sorted(c for _, c, _ in told) == list(range(len(homes)))


@given(addresses, addresses, ports, ports, st.integers(1, 64))
def test_both_directions_meet_in_one_partition(a, b, sport, dport, partitions):
    there, _ = given_to(a, b, sport, dport, HOME, partitions)
    back, _ = given_to(b, a, dport, sport, HOME, partitions)
    assert there == back
    assert all(0 <= p < partitions for _, _, p in there)


def test_subscribers_spread_over_partitions():
    src = np.zeros((4096, 16), np.uint8)
    src[:, 10:12] = 255
    src[:, 12] = 10
    src[:, 14] = np.arange(4096) >> 8
    src[:, 15] = np.arange(4096) & 255
    dst = np.full((4096, 16), 8, np.uint8)
    port = np.full(4096, 80, np.uint16)
    counts = np.bincount(assign(src, dst, port, port, HOME, 32).partition, minlength=32)
    assert counts.min() > 80
    assert counts.max() < 180


def test_a_network_that_is_none_is_refused_by_name():
    for bad in ("10.0.0.1/8", "fred", "10.0.0.0/33"):
        with pytest.raises(ConfigError, match="home_networks"):
            home([bad])


def test_the_digest_tells_lists_apart_and_not_their_order():
    assert home(["10.0.0.0/8", "127.0.0.0/8"]).digest == home(["127.0.0.0/8", "10.0.0.0/8"]).digest
    assert home(["10.0.0.0/8"]).digest != home(["10.0.0.0/9"]).digest


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(8, 32)), max_size=6), st.data())
def test_two_octets_tell_the_same_as_the_ranges(prefixes, data):
    networks = [ip_network((first >> (32 - bits) << (32 - bits), bits)) for first, bits in prefixes]
    where = home(tuple(str(n) for n in networks) or ("10.0.0.0/8",))
    edges = [int(e) + d for n in networks for e in (n[0], n[-1]) for d in (-1, 0, 1)]
    asked = data.draw(st.sampled_from(edges)) if edges else data.draw(st.integers(0, 2**32 - 1))
    asked %= 2**32
    told = where.four[asked >> 16]
    whole = [asked >> 16 << 16 | low for low in (0, asked & 0xFFFF, 0xFFFF)]
    inside = [holds(where, bytes(10) + b"\xff\xff" + a.to_bytes(4, "big")) for a in whole]
    assert told == SOME or inside == [told == 1] * 3

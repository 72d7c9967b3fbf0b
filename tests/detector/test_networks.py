"""Shared networks."""

from ipaddress import ip_address, ip_network

import numpy as np
import pytest
from flowrows import packed
from hypothesis import given
from hypothesis import strategies as st

from detector import networks
from detector.errors import ConfigError
from detector.networks import Network, SharedNetworks

SHIPPED = networks.shipped()


def test_every_row_is_unique_and_names_its_source_and_date():
    assert len({r.prefix for r in SHIPPED.rows}) == len(SHIPPED)
    for r in SHIPPED.rows:
        assert r.source
        assert len(r.date) == len("2026-11-22")
        assert ip_network(r.prefix).is_global


@pytest.mark.parametrize("row", SHIPPED.rows, ids=lambda r: r.prefix)
def test_the_first_and_last_address_of_every_row_are_in_it(row):
    net = ip_network(row.prefix)
    for address in (net[0], net[-1]):
        found = SHIPPED.find(packed(str(address)))
        assert found is not None
        assert ip_network(found.prefix).subnet_of(net)


def test_the_narrower_row_speaks_and_neighbours_are_free():
    assert SHIPPED.find(packed("2606:4700:4700::1111")).use == "resolver"
    assert SHIPPED.find(packed("2606:4700::1")).use == "cdn"
    assert SHIPPED.find(packed("104.15.255.255")) is None
    assert SHIPPED.find(packed("51.15.2.3")) is None


V4 = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 32)).map(
    lambda p: str(ip_network((p[0] & ~((1 << (32 - p[1])) - 1), p[1])))
)
V6 = st.tuples(st.integers(0, 2**128 - 1), st.integers(1, 128)).map(
    lambda p: str(ip_network((p[0] & ~((1 << (128 - p[1])) - 1), p[1])))
)


@given(
    st.lists(V4 | V6, max_size=8, unique=True), st.lists(st.integers(0, 2**128 - 1), max_size=4), st.data()
)
def test_look_up_agrees_with_the_plain_twin(prefixes, others, data):
    made = SharedNetworks(Network(p, "", "cdn", "", "") for p in prefixes)
    asked = [ip_address(v.to_bytes(16, "big")) for v in others]
    for p in prefixes:
        net = ip_network(p)
        asked += [net[0], net[-1], net[data.draw(st.integers(0, net.num_addresses - 1))]]
    rows = made.rows_of(np.frombuffer(b"".join(packed(str(a)) for a in asked), np.uint8).reshape(-1, 16))
    for address, row in zip(asked, rows.tolist(), strict=True):
        key = int.from_bytes(packed(str(address)), "big")
        inside = []
        for p in prefixes:
            first = int.from_bytes(packed(str(ip_network(p)[0])), "big")
            last = int.from_bytes(packed(str(ip_network(p)[-1])), "big")
            if first <= key <= last:
                inside.append((last - first, p))
        want = min(inside, default=(0, None))[1]
        assert (made.rows[row].prefix if row >= 0 else None) == want


def test_a_broken_row_is_refused_with_its_line():
    head = "prefix,owner,use,source,date"
    with pytest.raises(ConfigError, match="x, line 2"):
        networks.read([head, "1.2.3.4/8,a,cdn,s,d"], "x")
    with pytest.raises(ConfigError, match="x, line 2"):
        networks.read([head, "1.0.0.0/8,a,pub,s,d"], "x")
    with pytest.raises(ConfigError, match="header"):
        networks.read(["a,b", "1,2"], "x")

"""Places of addresses."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.attribution import Place, Places, text
from detector.errors import ConfigError


def sixteen(address):
    made = ip_address(address)
    return made.packed if made.version == 6 else bytes(10) + b"\xff\xff" + made.packed


HEADER = "prefix,unit,sector,city"


def test_the_longest_prefix_wins():
    places = Places(
        [HEADER, "10.0.0.0/8,ISP,,", "10.1.0.0/16,University,education,Nanjing", "2001:db8::/32,X,y,Z"]
    )
    assert places.find(sixteen("10.1.2.3")) == Place("University", "education", "Nanjing")
    assert places.find(sixteen("10.2.0.0")) == Place("ISP", "", "")
    assert places.find(sixteen("2001:db8::1")) == Place("X", "y", "Z")
    assert places.find(sixteen("11.0.0.0")) is None
    assert Places().find(sixteen("10.1.2.3")) is None


def test_a_row_that_cannot_be_read_is_named_with_its_line():
    with pytest.raises(ConfigError, match="line 3"):
        Places([HEADER, "10.0.0.0/8,a,b,c", "10.0.0.1/8,a,b,c"])
    with pytest.raises(ConfigError, match="header"):
        Places(["net,unit", "10.0.0.0/8,a"])


networks = st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(8, 32)).map(
    lambda t: ip_network(f"10.{t[0]}.{t[1]}.0/{t[2]}", strict=False)
)


@given(
    st.lists(networks, max_size=12, unique=True),
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 255),
)
def test_it_agrees_with_a_plain_search(nets, b, c, d):
    places = Places([HEADER, *(f"{n},{n},s,c" for n in nets)])
    address = ip_address(f"10.{b}.{c}.{d}")
    holding = [n for n in nets if address in n]
    found = places.find(sixteen(str(address)))
    assert (found.unit if found else None) == (
        str(max(holding, key=lambda n: n.prefixlen)) if holding else None
    )


def test_addresses_are_shown_as_people_write_them():
    assert text(sixteen("198.51.100.7")) == "198.51.100.7"
    assert text(sixteen("2001:db8::7")) == "2001:db8::7"

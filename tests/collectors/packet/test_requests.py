"""HTTP requests: whom they are meant for, in every form, and the kernel beside the reader."""

import numpy as np
import pytest
from hellomaker import attempted
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import DecodeError, Reason
from collectors.packet import looking, names, namesets, requests
from collectors.packet.requests import Request

PLAIN = b"POST / HTTP/1.1\r\nUser-Agent: x\r\nHOST: \t Pool.Example.org.:8332\r\nContent-Length: 0\r\n\r\n{}"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (PLAIN, Request("pool.example.org", None, False)),
        (b"GET http://a.b/x HTTP/1.1\r\nHost: c.d\r\n\r\n", Request("a.b", 80, True)),
        (b"GET HTTP://u:p@A.b:8080?x HTTP/1.1\r\n", Request("a.b", 8080, True)),
        (b"CONNECT a.b:3333 HTTP/1.1\r\nHost: proxy\r\n\r\n", Request("a.b", 3333, True)),
        (b"CONNECT a.b HTTP/1.1\r\n\r\n", Request("a.b", None, True)),
        (b"GET / HTTP/1.0\nhost:a.b\n\n", Request("a.b", None, False)),
        (b"GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: \r\n\r\n", None),
        (b"GET / HTTP/1.0\r\n\r\nHost: a.b\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: a.b", None),
        (b"GET / HTTP/1.1\r\nHost: p\xf6ol.b\r\n", Request("p\\246ol.b", None, False)),
    ],
)  # fmt: skip
def test_target_and_host_are_told(data, told):
    assert requests.read(data) == told


@given(st.integers(0, len(PLAIN)))
def test_a_part_is_waited_for(size):
    got, reason = attempted(requests.read, PLAIN[:size])
    assert reason is None
    told = size > PLAIN.index(b":8332")
    assert got == (Request("pool.example.org", None, False) if told else None)
    assert told or requests.unfinished(PLAIN[:size])


@pytest.mark.parametrize(
    ("data", "lost", "reason"),
    [
        (b"GEX", False, Reason.FORMAT),
        (b"GET", True, Reason.FORMAT),
        (b"GETS / HTTP/1.1\r\n\r\n", False, Reason.FORMAT),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 2000, False, Reason.SIZE),
        (b"GET / HTTP/1.1\r\nHo", True, Reason.SHORT),
    ],
)
def test_what_cannot_be_is_refused_by_reason(data, lost, reason):
    with pytest.raises(DecodeError) as caught:
        requests.read(data, rest_is_lost=lost)
    assert caught.value.reason is reason
    assert reason in names.REFUSALS


PIECES = st.lists(
    st.sampled_from([
        b"GET ", b"CONNECT ", b"http://", b"HTTP://",
        b"/", b" ", b" HTTP/1.1", b"\r\n", b"\n", b"\r",
        b"Host:", b"host: ",
        b"pool.example.org", b"POOL.example.ORG.", b":3333", b"@", b"u", b"?", b"#", b"\0", b"x.y",
        b"[",
    ]) | st.binary(max_size=4),
    max_size=14,
).map(b"".join)  # fmt: skip


@given(st.sampled_from([b"GET ", b"CONNECT ", b"POST /", b"HEAD"]), PIECES, st.booleans())
def test_any_bytes_are_read_or_refused_and_the_kernel_lets_every_wanted_name_through(method, rest, lost):
    data = method + rest
    wanted = names.NameFilter(["pool.example.org"])
    got, reason = attempted(requests.read, data, rest_is_lost=lost)
    assert reason in {None, *names.REFUSALS}
    compiled = namesets.compile_wanted(wanted.exact, wanted.suffixes, (), 1)
    array = np.frombuffer(bytearray(data), np.uint8)
    code = looking.look_request(array, 0, array.size, compiled, np.zeros(256, np.uint8))
    if got is not None and wanted.match(got.host):
        assert code != looking.NOT
        assert looking.is_request(array, 0, array.size) == 2
    if requests.unfinished(data) and got is None and reason is None and b"ost" not in data:
        assert code != looking.NOT


@given(st.binary(max_size=200))
def test_any_bytes_at_all(data):
    assert attempted(requests.read, data)[1] in {None, *names.REFUSALS}

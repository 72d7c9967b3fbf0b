"""What is taken apart is what ``Http`` reads so."""

import pytest

from detector.transports.apart import Apart

HEAD = b"POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d"
BODY = b'{"id": 1, "method": "submitblock", "params": []}'


def taken(head, body=BODY):
    data = head % len(body) + b"\r\n\r\n" + body
    where, apart = (b"{}\n" + data, 3, 3 + len(data)), Apart()
    assert apart.take(*where) is None  # it may never come again
    return apart.take(*where)


@pytest.mark.parametrize("more", [b"", b"\r\nX: \ny", b"\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT"])
def test_a_message_is_its_head_and_its_line(more):
    message = taken(HEAD + more)
    assert message is not None
    assert message.line == BODY + b"\n"


@pytest.mark.parametrize("more", [
    b"\r1", b"\r 1", b"\r\0", b"\r\nX: y\n\r\nZ: 1", b"\n\r\nZ: 1", b"\r\nX: y\n\nZ: 1", b"0", b" 0",
    b"\r\ncontent-length: 7", b"\r\nTransfer-Encoding: chunked", b"\r\nauthorization: Basic YTpi",
])  # fmt: skip
def test_a_head_that_says_something_else_is_left_to_be_read(more):
    assert taken(HEAD + more) is None

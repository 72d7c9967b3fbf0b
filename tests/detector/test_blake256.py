"""BLAKE-256 against published vectors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.blake256 import blake256

PUBLISHED = {
    b"": "716f6e863f744b9ac22c97ec7b76ea5f5908bc5b2f67c61510bfc4751384ea7a",
    # The one block and the two of the submission to NIST.
    bytes(1): "0ce8d4ef4dd7cd8d62dfded9d4edb0a774ae6a41929a74da23109e8f11139c87",
    bytes(72): "d419bad32d504fb7d44d460c42c5593fe544fa4c135dec31e21bd9abdcc22d41",
}


@pytest.mark.parametrize("message", PUBLISHED, ids=len)
def test_published_hashes_come_out(message):
    assert blake256(message).hex() == PUBLISHED[message]


@pytest.mark.parametrize("length", [54, 55, 56, 63, 64, 65, 119, 120, 128])
def test_where_the_padding_ends_a_block_each_message_has_its_own_hash(length):
    near = {blake256(bytes(n)) for n in range(length - 1, length + 2)}
    assert len(near) == 3


@given(st.binary(max_size=200))
def test_any_message_has_a_hash_of_32_octets(message):
    assert len(blake256(message)) == 32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import ConfigError
from collectors.packet import tokens

ROWS = tokens.rows()
ALL = tokens.compile_tokens(ROWS)
BLANKS = b" \t\r\n"


def searched(data, table=ALL, before=b"", after=b"", spare=128, room=1 << 40):
    padded = np.frombuffer(before + data + after + bytes(spare), np.uint8)
    return tokens.find(padded, len(before), len(before) + len(data), table, room)


def found(*given, **options):
    return bool(searched(*given, **options)[0])


def stands(token, data, at):
    """The plain twin: does the token stand at ``at``?"""
    for byte in token:
        if byte == 0x20:
            while at < len(data) and data[at] in BLANKS:
                at += 1
        elif at >= len(data) or data[at] != byte:
            return False
        else:
            at += 1
    return True


def plainly(data):
    return any(stands(r.token.encode(), data, at) for r in ROWS for at in range(len(data)))


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.id)
def test_every_row_carries_its_own_test(row):
    alone = tokens.compile_tokens([row])
    assert row.why
    assert row.hits
    assert row.misses
    for text in row.hits:
        assert found(text.encode(), alone)
        assert found(text.encode())
    for text in row.misses:
        assert not found(text.encode(), alone)


def test_ids_are_unique():
    assert len({r.id for r in ROWS}) == len(ROWS)


@given(st.integers(0, 300), st.integers(0, 300), st.sampled_from(ROWS))
def test_a_token_is_found_at_any_offset(before, after, row):
    data = b"x" * before + row.token.replace(" ", "").encode() + b"y" * after
    assert found(data)
    # Nothing outside the segment counts.
    cut = row.token.replace(" ", "").encode()
    assert not found(b"x" * before, after=cut)
    assert not found(b"y" * after, before=cut)


PARTS = st.sampled_from(
    [
        b'"',
        b"_",
        b'"m',
        b'"method"',
        b":",
        b" ",
        b"\n",
        b'"login"',
        b'"job',
        b"_id",
        b'"',
        b"mining",
        b".",
        b"x" * 30,
    ]
)


@given(st.lists(PARTS | st.binary(max_size=4), max_size=40).map(b"".join))
def test_the_kernel_agrees_with_its_plain_twin(data):
    assert found(data) == plainly(data)
    # At the end of what may be read it goes another way.
    assert searched(data, spare=0) == searched(data)


@given(st.lists(PARTS, max_size=200).map(b"".join), st.integers(0, 300))
def test_with_little_room_it_gives_up_soon_and_says_so(data, room):
    hit, steps = searched(data, room=room)
    if hit or steps <= room:
        assert hit == plainly(data)
    # Sixty-four places are looked at before it stops.
    assert steps <= room + tokens.WIDTH * (1 + tokens.NEAR)
    assert steps <= searched(data)[1] or hit


@given(st.sampled_from(ROWS), st.data())
def test_the_tail_is_kept_where_a_token_is_cut(row, data):
    token = row.token.replace(" ", "").encode()
    k = data.draw(st.integers(1, len(token) - 1))
    for spare in (b"", b'"' * tokens.WIDTH):
        padded = np.frombuffer(b"x" * 40 + token[:k] + spare, np.uint8)
        assert tokens.tail_of(padded, 0, 40 + k, ALL) == 40
        assert tokens.tail_of(padded, 0, 40, ALL) == 40


def begun(token, data, at):
    """The plain twin: does the token stand at ``at`` as far as the bytes go, and no further?"""
    for byte in token:
        if byte == 0x20:
            while at < len(data) and data[at] in BLANKS:
                at += 1
        elif at >= len(data):
            return True
        elif data[at] != byte:
            return False
        else:
            at += 1
    return False


@given(st.lists(PARTS | st.binary(max_size=4), max_size=12).map(b"".join))
def test_the_tail_agrees_with_its_plain_twin(data):
    places = range(max(0, len(data) - tokens.TAIL), len(data))
    plain = [at for at in places if any(begun(r.token.encode(), data, at) for r in ROWS)]
    # At the end of what may be read it goes another way.
    for spare in (9, tokens.WIDTH):
        padded = np.frombuffer(data + b'"' * spare, np.uint8)
        assert tokens.tail_of(padded, 0, len(data), ALL) == min(plain, default=len(data))


@pytest.mark.parametrize(
    "token", ["mining.", '"', '" x', '"' + "x" * 40, '"short"', '"blank s"', '"method" : "get_block_temp']
)
def test_a_token_that_cannot_be_looked_for_is_refused(token):
    row = tokens.Token(id="x", token=token, why="", hits=[], misses=[])
    with pytest.raises(ConfigError):
        tokens.compile_tokens([row])


def test_a_table_that_cannot_be_read_is_named(tmp_path):
    bad = tmp_path / "c.toml"
    bad.write_text("[[token]]\nid = 3\n")
    with pytest.raises(ConfigError, match=r"c[.]toml"):
        tokens.rows(bad)

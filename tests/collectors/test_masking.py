"""Forms of lines: against what one would write first."""

import json
import re

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collectors import masking
from detector.transports import websocket

TOKEN = re.compile(
    r'("(?:[^"\\\t\r]*)"[ ]*:)|"([^"\\\t\r]*)"|(\d[\d+.eE-]*)|([+.eE-]\d[\d+.eE-]*)|(.)', re.DOTALL
)
HEX = re.compile(r"(0x)?[0-9a-fA-F]+")


def is_masked(number, key):
    if not number.isdigit() or (number[0] == "0" and number != "0"):
        return False
    return len(number) <= 18 if key in {'"id":', '"hashes":'} else len(number) >= 6 and int(number) < 2**64


def plainly(line):
    """A form and its slots by a regular expression; (b"", []) of what has none."""
    if line[:1] in {b"\x81", b"\x82"}:
        return framed(line)
    text = line[:-1].decode("latin-1")
    if (
        len(line) < 3
        or not line.startswith(b"{")
        or line.find(b"\n") != len(line) - 1
        or not set(text) <= set(PRINTABLE)
    ):
        return b"", []
    form, slots, key = "", [], ""
    for found in TOKEN.finditer(text):
        name, said, number, _, other = found.groups()
        if other in {'"', "\\"}:
            return b"", []
        if said is not None and HEX.fullmatch(said):
            slots += [found.start() + 1, found.end() - 1]
            size = len(said)
            form += chr(2 if HEX.fullmatch(said)[1] else 1) + chr(128 | size & 127) + chr(128 | size >> 7)
        elif number is not None and is_masked(number, key):
            slots += [found.start(), found.end()]
            form += "\3"
        else:
            form += found[0]
        key = key if other == " " else re.sub(" +:", ":", name) if name else ""
    return form.encode("latin-1"), slots


def framed(data):
    """What is one frame, by the module that reads them."""
    try:
        head = websocket.header(data, 0)
    except ValueError:
        return b"", []
    if head is None or head.octets + head.size != len(data) or head.octets > 8:
        return b"", []
    text = websocket.unmask(data[head.octets :], head.key)
    if not text.endswith(b"}") or not text.startswith(b"{"):
        return b"", []
    form, slots = plainly(text + b"\n")
    return form and b"\4" + form, [head.octets + at for at in slots]


def frame(text, key=b"", octet=0x81):
    """A frame of either side around a text."""
    size = bytes([len(text)]) if len(text) < 126 else b"\x7e" + len(text).to_bytes(2, "big")
    second = bytes([size[0] | (0x80 if key else 0)]) + size[1:]
    return bytes([octet]) + second + key + websocket.unmask(text, key)


PRINTABLE = "".join(map(chr, range(32, 127))) + "\t\r"


def forms(lines):
    starts = np.cumsum([0, *map(len, lines)]).astype(np.int32)
    made = masking.forms(starts, np.frombuffer(b"".join(lines), np.uint8))
    out = []
    for n, start in enumerate(starts[:-1].tolist()):
        slots = made.slots[made.firsts[n] : made.firsts[n + 1]]
        out.append((made.octets[made.starts[n] : made.starts[n + 1]], [at - start for at in slots]))
    return out


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(0) | st.integers(-(10**6), 2**65)
    | st.text("0123456789abcdefABCDEFx", max_size=20) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["id", "ab", "params", "i", "id "]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
LINES = st.builds(
    lambda said, blanks, end: json.dumps(said, separators=None if blanks else (",", ":")).encode() + end,
    st.dictionaries(st.sampled_from(["id", "method", "result"]), VALUES, max_size=4),
    st.booleans(),
    st.sampled_from([b"\n", b"\n", b"\r\n", b"", b" \n"]),
)
PIECES = st.lists(
    st.sampled_from(
        [b"{", b'"', b"id", b"hashes", b":", b" ", b"12", b"0", b"1234567", b"e5", b"-", b"a", b"]"]
    )
)
FRAMES = st.builds(
    lambda line, key, octet, cut: frame(line.removesuffix(b"\n"), key, octet)[: cut or None],
    LINES,
    st.binary(min_size=4, max_size=4) | st.just(b""),
    st.sampled_from([0x81, 0x82, 0x81, 0x01, 0xC1, 0x89]),
    st.sampled_from([0, 0, 0, -1]),
)
ODD = st.builds(lambda pieces: b"{" + b"".join(pieces) + b"\n", PIECES)


@settings(max_examples=150, deadline=None)
@given(st.lists(LINES | FRAMES | ODD | st.binary(max_size=20), max_size=6))
@example([b'{"id":18446744073709551615,"a":18446744073709551615,"b":18446744073709551616}\n'])
@example(
    [frame(b'{"a":"%s"}' % (b"ab" * size), key) for size in (1, 59, 60, 400) for key in (b"", b"\xff{}1")]
)
@example(
    [b"\x81\x7f" + bytes(7) + b"\2{}", b"\x81\x02{}", b"\x82\x82abcd\x1a\x1f", b"\x81\x00", b"\x81\x7e\0"]
)
@example([b'{"hashes":7,"hashe":7,"hashez":7,"Xhashes":7,"hashes" : 12}\n'])
@example(
    [b'{"id":999999999999999999,"ab" : "0x","c":["0x1","",123456,12345,0,-123456,1234567.5]}\n', b"{}\n"]
)
def test_any_lines_have_the_form_that_is_written_plainly(lines):
    assert forms(lines) == [plainly(line) for line in lines]


def test_what_is_too_long_has_no_form():
    long = b'{"a":"%s"}\n' % (b"z" * masking.MAX_FORM)
    many = b'{"a":[%s]}\n' % b",".join([b'"ab"'] * (masking.MAX_SLOTS + 1))
    hexes = b'{"a":"%s"}\n' % (b"a" * (1 << 14))
    digits, blanks, key = b'{"a":%s}\n' % (b"1" * 600), b"{%s}\n" % (b" " * 600), b'{"%s":1}\n' % (b"z" * 509)
    keys = b'{"a"%s:1}\n' % (b" " * 600)
    runs = b"{e%s}\n" % (b"1" * 600)
    lines = [long, many, hexes, digits, blanks, key, keys, runs, b"{" + b"}" * (64 << 10) + b"\n"]
    assert forms([*lines, b"{}\n"]) == [(b"", [])] * len(lines) + [(b"{}", [])]


def test_the_longest_form_is_whole_and_within_its_bound():
    for size in range(masking.MAX_FORM - 40, masking.MAX_FORM + 10):
        for line in (b'{"a":"%s"}\n' % (b"z" * size), b"{%s}\n" % (b"}" * size), b"{e%s}\n" % (b"1" * size)):
            ((form, _),) = forms([line])
            assert form in (b"", line[:-1])
            assert len(form) <= masking.MAX_FORM


def test_a_slice_of_a_batch_has_places_in_the_whole():
    starts, data = np.array([3, 6, 16], np.int32), np.frombuffer(b'xyz{}\n{"id":17}\n', np.uint8)
    made = masking.forms(starts, data)
    assert made == (b'{}{"id":\3}', [0, 2, 10], [12, 14], [0, 0, 2], data.tobytes())


def test_a_frame_is_shown_unmasked_behind_blanks_where_it_was():
    given = [b'{"id":1}\n', frame(b'{"id":17}', b"abcd"), b"\x81\xff"]
    starts = np.cumsum([0, *map(len, given)]).astype(np.int32)
    data = np.frombuffer(b"".join(given), np.uint8)
    made = masking.forms(starts, data)
    assert made.told == given[0] + b" " * 6 + b'{"id":17}' + given[2]
    assert data.tobytes() == b"".join(given)


def test_no_rows_have_no_forms():
    assert masking.forms(np.zeros(1, np.int32), np.zeros(0, np.uint8)) == (b"", [0], [], [0], b"")

"""Accept and refuse, in each form of the reference and errata A6."""

# ruff: noqa: E501  # real lines are long
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.dialects import lines, table
from detector.dialects.replies import verdict

TABLE = table.load()


def judge(text):
    return verdict(lines.read(text.encode()), TABLE)


@pytest.mark.parametrize(
    "text",
    [
        '{"id":40,"result":true,"error":null}',
        '{"id":40,"result":true}',  # (e) miningcore omits error
        '{"id":40,"jsonrpc":"2.0","result":true}',
        '{"id":40,"result":true,"error":[]}',
        '{"id":40,"result":true,"error":[21,"whatever",null]}',  # accepted iff result is true, whatever error is
        '{"id":2,"jsonrpc":"2.0","error":null,"result":{"status":"OK"}}',
    ],
)
def test_accepted(text):
    assert judge(text).accepted is True


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (
            '{"reject-reason":"Above target 2","result":false,"error":null,"id":8}',
            None,
            "Above target 2",
        ),  # (a)
        ('{"id":8,"result":null,"error":[21,"job not found"]}', 21, "job not found"),  # (b)
        ('{"id":8,"result":null,"error":[23,"Low difficulty",""]}', 23, "Low difficulty"),  # (c)
        ('{"result":false,"error":{"code":21,"message":"stale","data":null},"id":8}', 21, "stale"),  # (d)
        ('{"id":41,"result":null,"error":[23,"Low difficulty share",null]}', 23, "Low difficulty share"),
        ('{"id":2,"jsonrpc":"2.0","error":{"code":-1,"message":"Block expired"}}', -1, "Block expired"),
        ('{"id":2,"result":false}', None, ""),
        ('{"id":2,"result":null}', None, ""),
        ('{"id":2,"error":"bad share"}', None, "bad share"),
        ('{"id":2,"error":23}', 23, ""),
        ('{"id":2,"result":null,"error":{"code":99999999999999999999,"message":{}}}', None, ""),
    ],
)
def test_refused(text, code, words):
    got = judge(text)
    assert (got.accepted, got.code, got.words) == (False, code, words)


@pytest.mark.parametrize("text", ['{"id":2,"result":{"status":"KEEPALIVED"}}', '{"id":2,"result":[]}', '{"id":2}', '{"id":2,"error":null}'])  # fmt: skip
def test_neither(text):
    assert judge(text).accepted is None


@pytest.mark.parametrize(
    ("code", "words", "stale"),
    [
        (21, "", True), (20, "Stale share", True), (20, "Other/Unknown", False), (22, "Duplicate share", False),
        (23, "Low difficulty", False), (-1, "Job not found", True), (-1, "Block expired", True),
        (-1, "Invalid job id", True), (None, "stale-work", True), (None, "installed", False),
    ],
)  # fmt: skip
def test_late_is_told_from_wrong(code, words, stale):
    assert TABLE.stale(code, words) is stale


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=8
)  # fmt: skip


@given(VALUES, VALUES, VALUES)
def test_any_reply_is_judged(result, error, reason):
    got = verdict({"result": result, "error": error, "reject-reason": reason}, TABLE)
    assert got.accepted in {True, False, None}
    assert len(got.words) <= 80

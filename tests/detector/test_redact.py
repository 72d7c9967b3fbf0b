"""Names that people chose, hidden."""

from hypothesis import given
from hypothesis import strategies as st

from detector.observers.words import clean
from detector.redact import PLAIN, Redactor

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)


@given(words)
def test_one_name_is_one_hash_under_one_key_and_another_under_another(name):
    a, b = Redactor(b"a"), Redactor(b"b")
    assert a.name(name) == a.name(name) != b.name(name)
    assert PLAIN.name(name) == name


@given(st.text(st.characters(codec="utf-8", categories=["L"]), min_size=12, max_size=300))
def test_no_sentence_keeps_a_known_name_whole_or_cut(name):
    told = Redactor(b"k").text(f"btc-v1: pool accepted a share of {clean(name)}", [name])
    assert clean(name) not in told
    assert "redacted:" in told


def test_what_a_pool_says_when_it_refuses_is_withheld():
    told = Redactor(b"k").text("pool 1.2.3.4:5 refused the login of bob: no bo b here", ["bob"])
    assert told.startswith("pool 1.2.3.4:5 refused the login of redacted:")
    assert told.endswith("(its words are withheld)")


def test_short_names_change_neither_addresses_nor_words_nor_each_other():
    names = [*"edact0123456789", "v1", "pool"]
    told = Redactor(b"k").text("btc-v1: pool 1.2.3.4:5 accepted a share, of e", names)
    assert told.count("redacted:") <= 3
    assert "1.2.3.4:5" in told
    assert told.startswith("btc-v1: ")
    assert not told.endswith(" e")

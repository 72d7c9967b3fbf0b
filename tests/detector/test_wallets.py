"""Wallet addresses: the table's own tests, and what any text gives."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector import checksums, wallets

FORMS = sorted(wallets.load().values(), key=lambda f: f.id)


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.id)
def test_every_form_knows_its_own_and_refuses_what_misses(form):
    assert form.hits, "a row without a hit is not tested"
    for hit in form.hits:
        found = wallets.read(hit)
        assert found is not None, hit
        assert form.id in found.forms
        assert set(form.coins) <= set(found.coins)
        assert found.verified is bool(form.checksum)
    for miss in form.misses:
        found = wallets.read(miss)
        verified = found is not None and form.id in found.forms and found.verified
        assert not verified, miss
        if form.status == "ok":
            assert found is None or form.id not in found.forms, miss


def test_every_kind_of_checksum_is_used_and_a_changed_letter_breaks_each():
    assert {f.checksum for f in FORMS if f.checksum} == set(checksums.KINDS)
    for form in FORMS:
        if form.checksum:
            assert form.misses, form.id


@pytest.mark.parametrize("tail", [".rig1", "+250000", "/x", "#ref-1", ".rig.2"])
def test_a_worker_behind_the_address_changes_nothing(tail):
    address = (
        "888tNkZrPN6JsEgekjMnABU4TBzc2Dt29EPAvkRxbANsAnjyPbb3iQ1YBRk1UXcdRsiKc9dhwMVgN5S9cQUiyoogDavup3H"
    )
    found = wallets.read(address + tail)
    assert found == wallets.read(address)
    assert found is not None
    assert (found.coins, found.verified, found.text) == (("XMR",), True, address)


def test_a_coin_before_the_address_is_the_coin_that_is_paid():
    found = wallets.read("DOGE:DH5yaieqoZN36fDVciNyRueRGvGLR3mr7L.rig#a1b2-c3d4")
    assert found is not None
    assert (found.paid, found.coins, found.verified) == ("DOGE", ("DOGE",), True)
    assert wallets.read("XMR:worker") is None


def test_a_form_that_several_coins_share_names_them_all():
    found = wallets.read("RE9v8tCKiALVmkWbirTKc5cZpSJtuXswJ8")
    assert found is not None
    assert {"RVN", "VRSC", "KMD"} <= set(found.coins)


def test_an_address_of_one_case_has_no_checksum_and_is_plausible_only():
    found = wallets.read("0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed")
    assert found is not None
    assert not found.verified


@pytest.mark.parametrize("name", ["", "worker", "x", "rig1", "user@example.com", "account.001", "1" * 600])
def test_what_is_no_address_is_none(name):
    assert wallets.read(name) is None


ADDRESS_LIKE = st.text(string.ascii_letters + string.digits + ":_-. /+", max_size=140)


@given(st.one_of(st.text(max_size=700), ADDRESS_LIKE))
def test_any_text_gives_a_value(text):
    found = wallets.read(text)
    assert found is None or (found.coins and found.forms and found.text in text)


@given(st.sampled_from(sorted(checksums.KINDS)), st.one_of(st.text(max_size=140), ADDRESS_LIKE))
def test_any_text_gives_every_checksum_an_answer(kind, text):
    held = checksums.holds(kind, text)
    assert held is None or isinstance(held, bytes)


@given(st.sampled_from([h for f in FORMS for h in f.hits if f.status == "ok" and f.checksum]), st.data())
def test_one_changed_letter_is_never_verified(address, data):
    at = data.draw(st.integers(len(address) // 2, len(address) - 1))
    letter = data.draw(st.sampled_from(string.ascii_letters + string.digits))
    changed = address[:at] + letter + address[at + 1 :]
    found = wallets.read(changed)
    # Case may be of no importance; the last letters of base58 and base64 may stand for the same bytes.
    if changed.lower() != address.lower():
        assert found is None or not found.verified or changed == address

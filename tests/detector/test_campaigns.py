"""Campaigns: who mines for one purse, how many at once, and what the bounds cost."""

import json

import documents
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from detector import campaigncli, wallets
from detector.attribution import Place
from detector.campaigns import Campaigns, Config, at_once
from detector.document import Account, Service
from detector.exporters.alertmanager import annotations
from detector.exporters.campaigns import Linking
from detector.hashrate import HashRate, Power
from detector.incidents import State
from detector.redact import Redactor

WALLET = "44AFFq5kSiGBoZ4NMDwYtN18obc8AemS33DBLWs3H7otXft3XjrpDtQGv7SqSsaBYBb98uNbr2VBBEt7f2wfn3RVGQBEP3A"


def wallet(text=WALLET):
    return (Account(text, ("XMR",), True, text),)


def account(name, link=None):
    return (Account(name, (), False, wallets.pattern(name) if link is None else link),)


def rate(value=1000.0):
    return (HashRate(algorithm="rx/0", value=value, low=value * 0.9, high=value * 1.1, shares=100),)


def document(number, first="10:00", last="10:05", **changes):
    given = {
        "wallets": wallet(), "hashrate": rate(), "power_watts": Power(5.0, 8.0, 40.0),
        "first_seen": f"2026-11-22T{first}:00.000000Z", "last_seen": f"2026-11-22T{last}:00.000000Z",
    }  # fmt: skip
    return documents.document(number, **{**given, **changes})


def linked(*given, **config):
    out = Campaigns(Config(**config))
    for one in given:
        out.take(one)
    return out


def test_one_wallet_of_three_subscribers_at_once_is_a_campaign():
    there = Place("Physics", "university", "Leeds")
    here = Place("", "residential", "York")
    given = [
        document(1, place=there),
        document(2, place=here),
        document(3, place=here, state=State.SUSPECTED),
    ]
    (found,) = linked(*given).found()
    assert (found.kind, found.name, found.subscribers, found.at_once) == ("wallet", WALLET, 3, 3)
    assert (found.confirmed, found.open, found.coins) == (2, 3, ("XMR",))
    assert [(w.sector, w.city, w.subscribers) for w in found.places] == [
        ("residential", "York", 2), ("university", "Leeds", 1),
    ]  # fmt: skip
    (total,) = found.hashrate
    assert total.value == 3000.0
    assert found.power_watts == Power(15.0, 24.0, 120.0)
    assert found.kwh_per_day is not None
    assert found.kwh_per_day.typical == pytest.approx(0.576)
    assert found.members == ("198.51.100.1", "198.51.100.2", "198.51.100.3")


def test_two_are_a_hobby_unless_the_threshold_says_otherwise():
    two = [document(1), document(2)]
    assert linked(*two).found() == []
    assert len(linked(*two, least_subscribers=2).found()) == 1


def test_who_only_changes_its_address_is_one_at_a_time_and_no_campaign():
    moves = [document(n, f"{n:02}:00", f"{n:02}:50") for n in range(1, 9)]
    assert linked(*moves).found() == []
    assert linked(*moves).words(moves[-1]) == ""


def test_accounts_link_by_their_pattern_at_one_service_only():
    at = {"services": (Service("203.0.113.5", 3333, None, "Pool"),)}
    elsewhere = {"services": (Service("203.0.113.6", 3333, None, "Other"),)}
    (found,) = linked(*(document(n, wallets=account(f"bot{n:03}"), **at) for n in range(4))).found()
    assert (found.kind, found.name, found.service, found.subscribers) == ("account", "bot#", "Pool", 4)
    apart = [document(n, wallets=account("bot001"), **(at if n % 2 else elsewhere)) for n in range(4)]
    assert linked(*apart).found() == []


@pytest.mark.parametrize("name", ["x", "worker1", "rig07", "User2", "", "42", "test"])
def test_what_anybody_calls_itself_links_nobody(name):
    assert wallets.pattern(name) == ""
    assert linked(*(document(n, wallets=account(name)) for n in range(9))).found() == []


def test_a_proxy_is_a_member_whose_shares_are_not_counted_again_and_a_pool_is_none():
    given = [document(1), document(2), document(3, role="proxy"), document(4, role="pool")]
    (found,) = linked(*given).found()
    assert (found.subscribers, found.hashrate[0].value) == (3, 2000.0)


def test_what_was_withdrawn_or_is_old_counts_no_more():
    table = linked(*(document(n) for n in range(1, 4)))
    table.take(document(3, state=State.QUIET))
    assert table.found() == []
    table.take(document(3))
    assert len(table.found()) == 1
    late = msgspec.structs.replace(document(9), last_seen="2026-11-24T10:05:00.000000Z", wallets=())
    table.take(late)
    assert (table.found(), len(table)) == ([], 0)


def test_what_is_resolved_is_a_member_without_a_rate():
    given = [document(1), document(2), document(3, state=State.RESOLVED)]
    (found,) = linked(*given).found()
    assert (found.subscribers, found.open, found.hashrate[0].value) == (3, 2, 2000.0)


def test_beyond_the_bound_the_oldest_link_goes_and_is_counted():
    table = linked(*(document(n) for n in range(10)), links=4)
    assert (len(table), table.dropped.room) == (4, 6)
    (found,) = table.found()
    assert found.subscribers == 4
    table.take(documents.document(1, first_seen="soon", wallets=wallet()))
    assert table.dropped.unreadable == 1


def test_redaction_keeps_the_link_and_hides_the_text():
    hidden = Redactor(b"key").name(WALLET)
    (found,) = linked(*(document(n, wallets=wallet(hidden)) for n in range(3))).found()
    assert found.name == hidden
    assert WALLET not in msgspec.json.encode(found).decode()


def test_an_alert_says_that_it_is_one_of_many_and_labels_say_no_name():
    registry = CollectorRegistry()
    linking = Linking(Config(), registry)
    for n in range(5):
        linking.incident(document(n))
    words = linking.words(document(0))
    assert words.startswith("one of 5 subscribers with this wallet (campaign ")
    from detector.config import Alertmanager

    assert annotations(document(0), "page", Alertmanager(), words)["campaign"] == words
    assert "campaign" not in annotations(document(0), "page", Alertmanager())
    assert registry.get_sample_value("poolwatch_campaigns", {"kind": "wallet"}) == 1
    assert registry.get_sample_value("poolwatch_campaign_largest", {"kind": "wallet"}) == 5
    assert registry.get_sample_value("poolwatch_campaign_hashrate", {"algorithm": "rx/0"}) == 5000
    told = {"sector": "university"}
    assert registry.get_sample_value("poolwatch_campaign_subscribers_by_sector", told) == 5
    labels = [s.labels for family in registry.collect() for s in family.samples]
    assert WALLET not in str(labels)
    for n in range(3):
        linking.incident(document(n, state=State.QUIET))
    assert linking.found() == []


def test_sectors_beyond_the_bound_and_places_that_are_not_told_are_others():
    registry = CollectorRegistry()
    linking = Linking(Config(), registry)
    for n in range(90):
        linking.incident(document(n, place=Place("", f"sector {n % 45}", "York")))
    linking.incident(document(91, place=None))
    told = {
        sample.labels["sector"]: sample.value
        for family in registry.collect()
        if family.name == "poolwatch_campaign_subscribers_by_sector"
        for sample in family.samples
    }
    # A campaign tells its 32 largest places.
    assert sum(told.values()) == 91
    assert len(told) == 33
    assert told["other"] == 91 - 64


def test_the_command_reads_lines_and_scans_and_counts_what_is_neither():
    given = [document(n) for n in range(3)]
    lines = b"\n".join(msgspec.json.encode(d) for d in given)
    assert list(campaigncli.documents(lines + b"\nnonsense\n")) == [*given, None]
    scan = msgspec.json.encode({"files": [], "incidents": [{"file": "a", **msgspec.to_builtins(given[0])}]})
    assert list(campaigncli.documents(scan)) == given[:1]


def test_the_command_prints_what_it_found(tmp_path, capsys):
    from detector.cli import main

    path = tmp_path / "incidents.jsonl"
    path.write_bytes(b"\n".join(msgspec.json.encode(document(n)) for n in range(3)))
    assert main(["campaigns", str(path)]) == 0
    assert "3 subscribers, 3 at once" in capsys.readouterr().out
    assert main(["campaigns", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["subscribers"] == 3
    assert main(["campaigns", "--least", "4", str(path)]) == 0
    assert "no campaign" in capsys.readouterr().out
    assert main(["campaigns", str(tmp_path / "none")]) == 1
    assert main(["campaigns"]) == 2


SPANS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 9)).map(lambda s: (s[0], s[0] + s[1])), max_size=9
)


@given(SPANS)
def test_at_once_is_the_most_spans_over_one_moment(spans):
    moments = {t for span in spans for t in span}
    assert at_once(spans) == max((sum(a <= t <= b for a, b in spans) for t in moments), default=0)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 23), st.sampled_from(["a" * 5, "b" * 5, "c" * 5])))
)
def test_tables_agree_with_each_other_whatever_comes(steps):
    table = Campaigns(Config(least_subscribers=2, age_s=3 * 3600, links=6))
    for number, hour, name in steps:
        if hour % 7 == 6:
            table.forget(f"198.51.100.{number}")
        else:
            table.take(document(number, f"{hour:02}:00", f"{hour:02}:30", wallets=wallet(name)))
        assert len(table) <= 6
        assert len(table) == sum(len(m) for m in table._names.values())
        assert len(table) == sum(len(n) for n in table._of.values())
        table.found()
        table.words(document(number, wallets=wallet(name)))

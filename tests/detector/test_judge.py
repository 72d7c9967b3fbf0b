"""Judgement: evidence in, transitions and documents out."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.clock import MINUTE_NS, SECOND_NS
from detector.evidence import Connection, Evidence, Seen, SessionFacts, Shares, Veto
from detector.incidents import Action, State
from detector.judge import Config, Judge
from detector.measures import Link, ends_of
from detector.redact import PLAIN, Redactor
from detector.store import Limits

T0 = 1_600_000_000 * SECOND_NS
SERVER = (bytes(10) + b"\xff\xff\xcb\x00\x71\x05", 3333)


def host(number):
    return bytes(10) + b"\xff\xff" + bytes([198, 51, 100, number])


def connection(number=1, opened=0):
    return Connection((host(number), 40000), SERVER, 6, opened)


def evidence(kind="share_accepted", at=T0, number=1, opened=0, why="it was seen", **more):
    return Evidence(
        subscriber=host(number), kind=kind, rule="btc-v1", connection=connection(number, opened),
        first_ns=at, last_ns=at, why=why, **more,
    )  # fmt: skip


def facts(number=1, opened=0, accepted=1, role="miner", **more):
    return SessionFacts(
        subscriber=host(number), connection=connection(number, opened), copy=False,
        client=(host(number), 40000),
        server=SERVER, role=role, dialect="btc-v1", workers=("w",), shares=Shares(accepted=accepted),
        first_ns=T0, last_ns=T0, **more,
    )  # fmt: skip


def judge(config=None, links=None):
    return Judge(config or Config(), {} if links is None else links, place_of=lambda _: None, names=PLAIN)


def take(j, *what):
    return j.take(
        Seen(
            tuple(w for w in what if isinstance(w, Evidence)),
            tuple(w for w in what if isinstance(w, Veto)),
            tuple(w for w in what if isinstance(w, SessionFacts)),
        )
    )


def states(j):
    return [(d.subscriber, d.state) for d in j.documents()]


def test_a_probe_is_no_incident():
    j = judge()
    assert take(j, evidence("mining_request"), facts()) == []
    assert j.documents() == []


def test_a_refused_client_is_suspected_and_never_confirmed():
    j = judge()
    for minute in range(60):
        made = take(j, evidence("login_refused", T0 + minute * MINUTE_NS, opened=minute, why="refused: no"))
        assert [t.to for t in made] == ([State.SUSPECTED] if minute == 0 else [])
    (document,) = j.documents()
    assert document.state is State.SUSPECTED
    assert "refused" in document.evidence[0].why
    assert document.evidence[0].count == 60


def test_an_accepted_share_is_one_page():
    j = judge()
    (made,) = take(j, evidence(), facts())
    assert (made.to, made.action, made.transition) == (State.CONFIRMED, Action.ALERT, 2)
    assert "198.51.100.1 mines" in made.summary
    assert take(j, evidence(at=T0 + 1), evidence("share_verified", T0 + 2)) == []
    (document,) = j.documents()
    assert document.belief >= 0.99
    assert document.workers == ("w",)


def test_silence_resolves_at_the_watermark_and_new_evidence_opens_anew():
    j = judge()
    (first,) = take(j, evidence(), facts())
    assert j.tick(T0 + 29 * MINUTE_NS) == []
    (over,) = j.tick(T0 + 31 * MINUTE_NS)
    assert (over.to, over.action, over.incident) == (State.RESOLVED, Action.RESOLVE, first.incident)
    (again,) = take(j, evidence(at=T0 + 60 * MINUTE_NS), facts())
    assert again.incident != first.incident
    assert [s for _, s in states(j)] == [State.RESOLVED, State.CONFIRMED]


def test_resolving_does_not_depend_on_who_notices_it_first():
    by_watermark, by_evidence = judge(), judge()
    later = T0 + 60 * MINUTE_NS
    for j in (by_watermark, by_evidence):
        take(j, evidence(), facts())
    told = by_watermark.tick(T0 + 40 * MINUTE_NS) + take(by_watermark, evidence(at=later), facts())
    assert told == take(by_evidence, evidence(at=later), facts())
    assert by_watermark.documents() == by_evidence.documents()


def test_a_suspicion_fades():
    j = judge()
    take(j, evidence("job"), facts())
    assert j.tick(T0 + 10 * MINUTE_NS) == []
    (made,) = j.tick(T0 + 60 * MINUTE_NS)
    assert (made.to, made.action) == (State.QUIET, Action.NOTHING)
    assert j.documents() == []


def test_a_veto_withdraws_what_its_connection_said_and_no_more():
    j = judge()
    take(j, evidence(opened=0), evidence(opened=1), facts(opened=0), facts(opened=1))
    veto = Veto(
        subscriber=host(1), connection=connection(1, 0), at_ns=T0, rule="electrum", why="server.version"
    )
    assert take(j, veto) == []
    assert states(j) == [("198.51.100.1", State.CONFIRMED)]
    (over,) = take(j, msgspec.structs.replace(veto, connection=connection(1, 1)))
    assert over.action is Action.RESOLVE
    assert take(j, evidence(opened=0), facts(opened=0)) == []


def test_the_document_adds_up_sessions_and_their_bytes():
    links = {}
    link = links[(host(1), ends_of((host(1), 40000), SERVER, 6))] = Link()
    link.add((0, "tap"), (T0, T0 + SECOND_NS), (700, 900))
    link.last_ns = T0 + 10 * SECOND_NS
    j = judge(links=links)
    work = {"algorithm": "sha256d", "hashes": 4e9, "hashes_shares": 4, "first_job_ns": T0}
    take(j, evidence(), facts(accepted=4, **work))
    (document,) = j.documents()
    assert (document.bytes.up, document.bytes.down) == (700, 900)
    (rate,) = document.hashrate
    assert rate.value == 4e8, "the last flow record tells how long the session was"
    assert document.power_watts is not None
    assert document.services[0].address == "203.0.113.5"


def test_a_second_opening_does_not_tell_again_what_the_first_told():
    links = {}
    link = links[(host(1), ends_of((host(1), 40000), SERVER, 6))] = Link()
    link.add((0, "tap"), (T0, T0), (700, 900))
    j = judge(links=links)
    work = {"algorithm": "sha256d", "first_job_ns": T0}
    take(j, evidence(), facts(accepted=4, hashes=4e9, hashes_shares=4, **work))
    hour = 60 * MINUTE_NS
    for again in (1, 2):
        link.add((0, "tap"), (T0 + again * hour, T0 + again * hour), (70, 90))
        more = facts(accepted=4 + again, hashes=(4 + again) * 1e9, hashes_shares=4 + again, **work)
        more.last_ns = T0 + again * hour + 10 * SECOND_NS
        take(j, evidence(at=T0 + again * hour), more)
    assert [d.shares.accepted for d in j.documents()] == [4, 1, 1]
    assert [(d.hashrate[0].shares, d.hashrate[0].value) for d in j.documents()[1:]] == [(1, 1e8), (1, 1e8)]
    assert [(d.bytes.up, d.bytes.down) for d in j.documents()][1:] == [(70, 90), (70, 90)]


def test_pool_and_proxy_are_told_from_miners():
    j = judge()
    take(j, evidence(role="pool"), facts(role="pool"))
    assert j.documents()[0].role == "pool"
    take(j, evidence(opened=1), facts(opened=1))
    assert j.documents()[0].role == "proxy"


def test_tables_are_bounded_and_aged_and_what_was_dropped_is_counted():
    limits = Limits(subscribers=10, traces_per_subscriber=4, sessions_per_subscriber=3, resolved_incidents=2)
    j = judge(Config(limits=limits))
    for number in range(30):
        take(j, evidence("mining_request", number=number))
    assert (len(j.store.records), j.store.dropped.subscribers) == (10, 20)
    for opened in range(9):
        take(j, evidence(opened=opened, number=1), facts(opened=opened))
    (document,) = j.documents()
    assert document.shares.accepted == 9, "a folded session keeps its counts"
    assert document.evidence[0].count == 9
    for opened in range(5):
        take(j, evidence(at=T0 + opened * 120 * MINUTE_NS))
    assert (len(j.store.resolved), j.store.dropped.resolved) == (2, 2)
    j.tick(T0 + 90 * 86_400 * SECOND_NS)
    j.tick(T0 + 180 * 86_400 * SECOND_NS)
    assert not j.store.records
    assert not j.store.resolved


def test_an_open_incident_that_makes_room_is_withdrawn_and_its_next_id_is_new():
    j = judge(Config(limits=Limits(subscribers=1)))
    (first,) = take(j, evidence(number=1))
    told = take(j, evidence(number=2, at=T0 + SECOND_NS))
    assert [(t.subscriber, t.action) for t in told] == [
        ("198.51.100.1", Action.RESOLVE),
        ("198.51.100.2", Action.ALERT),
    ]
    again = [t for t in take(j, evidence(number=1, at=T0 + 5 * SECOND_NS)) if t.action is Action.ALERT]
    assert again[0].incident != first.incident


def test_an_incident_a_month_later_has_an_id_of_its_own():
    j = judge()
    (first,) = take(j, evidence())
    j.tick(T0 + 40 * 86_400 * SECOND_NS)
    j.tick(T0 + 41 * 86_400 * SECOND_NS)
    (again,) = take(j, evidence(at=T0 + 42 * 86_400 * SECOND_NS))
    assert again.incident != first.incident
    assert again.id != first.id


def test_every_change_of_state_is_told_at_once_and_other_changes_when_asked_for():
    j = judge()
    take(j, evidence(), facts())
    assert [d.state for d in j.changed()] == [State.CONFIRMED]
    take(j, evidence(at=T0 + SECOND_NS), facts(accepted=2))
    assert j.changed() == []
    assert [d.shares.accepted for d in j.changed(everything=True)] == [2]
    assert j.changed(everything=True) == []
    j.tick(T0 + 60 * MINUTE_NS)
    assert [d.state for d in j.changed()] == [State.RESOLVED]


def test_a_suspicion_fades_at_a_time_of_its_own_whoever_notices():
    times = set()
    for later in (20, 40, 600):
        j = judge()
        take(j, evidence("job"), facts())
        (made,) = j.tick(T0 + later * MINUTE_NS)
        times.add(made.at)
    assert len(times) == 1


def test_a_farm_of_many_connections_counts_every_share_once():
    """600 connections at once, a share a minute each: more than a record used to hold."""
    j = judge()
    for minute in range(1, 11):
        for opened in range(600):
            at = T0 + minute * MINUTE_NS
            more = facts(opened=opened, accepted=minute, algorithm="sha256d", hashes=minute * 1e9,
                         hashes_shares=minute, first_job_ns=T0)  # fmt: skip
            more.last_ns = at
            take(j, evidence(at=at, opened=opened), more)
    (document,) = j.documents()
    assert document.shares.accepted == 6000
    assert document.hashrate[0].value == 6000 * 1e9 / 600


steps = st.lists(
    st.tuples(
        st.sampled_from(["mining_request", "login_refused", "job", "share", "share_accepted", "veto"]),
        st.integers(1, 3),
        st.integers(0, 2),
        st.integers(0, 50 * 60),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(steps, st.data())
def test_cut_anywhere_and_interleaved_anyhow_the_documents_are_the_same(rows, data):
    """One step per event against any grouping in which each subscriber's own order is kept."""
    clock, events = {}, []
    for kind, number, opened, gap in rows:
        clock[number] = clock.get(number, T0) + gap * SECOND_NS
        if kind == "veto":
            events.append(Veto(subscriber=host(number), connection=connection(number, opened),
                               at_ns=clock[number], rule="electrum", why=""))  # fmt: skip
        else:
            events.append(evidence(kind, clock[number], number, opened, why=f"{kind} {clock[number]}"))
    alone = judge()
    told = [t for e in events for t in take(alone, e)]
    queues = {n: [e for e in events if e.subscriber == host(n)] for n in (1, 2, 3)}
    mixed, told_mixed = judge(), []
    while any(queues.values()):
        number = data.draw(st.sampled_from([n for n in queues if queues[n]]))
        told_mixed += take(mixed, queues[number].pop(0))
    key = lambda d: (d.subscriber, d.id)  # noqa: E731
    assert sorted(mixed.documents(), key=key) == sorted(alone.documents(), key=key)
    assert sorted(told_mixed, key=lambda t: t.id) == sorted(told, key=lambda t: t.id)
    alerts = [
        t.action for t in told if t.action in {Action.ALERT, Action.RESOLVE} and t.subscriber.endswith(".1")
    ]
    assert alerts[::2] == [Action.ALERT] * len(alerts[::2])
    assert alerts[1::2] == [Action.RESOLVE] * len(alerts[1::2])


def test_bytes_that_come_after_the_last_evidence_make_the_document_anew():
    ends = ends_of((host(1), 40000), SERVER, 6)
    link = Link(low=ends[0])
    j = judge(links={(host(1), ends): link})
    take(j, facts(), evidence())
    assert [d.bytes.up + d.bytes.down for d in j.changed(everything=True)] == [0]
    link.add((0, "tap"), (T0, T0), (1200, 300))
    assert j.changed(everything=True) == []
    j.note({host(1), host(2)})
    assert [d.bytes.up + d.bytes.down for d in j.changed(everything=True)] == [1500]
    assert [d.bytes.up + d.bytes.down for d in j.documents()] == [1500]


XMR = "44AFFq5kSiGBoZ4NMDwYtN18obc8AemS33DBLWs3H7otXft3XjrpDtQGv7SqSsaBYBb98uNbr2VBBEt7f2wfn3RVGQBEP3A"


def test_a_document_says_why_it_names_a_coin_and_whose_wallet_it_is():
    j = judge()
    (made,) = take(j, evidence(), facts(algorithm="rx/0", wallets=(XMR, "rig")))
    (document,) = j.documents()
    assert document.coins == ("XMR",)
    assert [(r.coin, r.basis) for r in document.coin_reasons] == [("XMR", "wallet")]
    assert [(w.name, w.coins, w.verified) for w in document.wallets] == [
        (XMR, ("XMR",), True),
        ("rig", (), False),
    ]
    assert "XMR (the wallet, its checksum verified, and rx/0 mines it)" in made.summary


def test_what_is_paid_is_not_what_is_mined():
    j = judge()
    take(j, evidence(), facts(algorithm="ethash", wallets=(XMR,)))
    (document,) = j.documents()
    assert (document.coins, document.paid_coins) == ((), ("XMR",))
    assert [(r.coin, r.basis) for r in document.coin_reasons] == [("", "nothing")]


def test_redaction_keeps_what_a_wallet_is_and_hides_its_text():
    j = Judge(Config(), {}, place_of=lambda _: None, names=Redactor(b"key"))
    take(j, evidence(), facts(algorithm="rx/0", wallets=(XMR,)))
    (document,) = j.documents()
    (wallet,) = document.wallets
    assert wallet.name.startswith("redacted:")
    assert (wallet.coins, wallet.verified, document.coins) == (("XMR",), True, ("XMR",))
    assert XMR not in msgspec.json.encode(document).decode()

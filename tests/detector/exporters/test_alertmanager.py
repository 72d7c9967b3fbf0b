"""What is told to Alertmanager, when, and what becomes of it: with a clock and a server of the test."""

import json
import re
import socket
import threading
import time

import pytest
from documents import document, line
from prometheus_client import CollectorRegistry

from detector.board import ENDED_NS
from detector.config import Alertmanager
from detector.delivery import Delivery, Metrics
from detector.errors import ConfigError
from detector.exporters.alertmanager import DeliveryError, Known, Server, alert, annotations, labels, servers
from detector.incidents import State
from detector.metrics import Deliveries
from detector.quiet import Allowed, Quiet, Window, ip_network

CONFIG = Alertmanager(resend_s=60, retries=3, retry_first_s=1, retry_most_s=4, batch=10)
T0_NS = 1_795_349_520 * 10**9


class Fake:
    """A server that keeps what fires, as Alertmanager does."""

    name = "fake"

    def __init__(self):
        self.posts = []
        self.fires = {}
        self.asked = 0
        self.error = None

    def post(self, alerts):
        if self.error:
            raise self.error
        json.dumps(alerts)
        self.posts.append(alerts)
        for one in alerts:
            key = tuple(sorted(one["labels"].items()))
            if "endsAt" in one:
                self.fires.pop(key, None)
            else:
                self.fires[key] = Known(one["labels"], one["startsAt"])

    def find(self, subscribers):
        if self.error:
            raise self.error
        self.asked += 1
        return [k for k in self.fires.values() if k.labels["subscriber"] in subscribers]


class Site:
    """A delivery whose couriers are turned by hand."""

    def __init__(self, config=CONFIG, servers=1, fakes=None):
        self.registry = CollectorRegistry()
        self.s = 1000.0
        self.fakes = fakes or [Fake() for _ in range(servers)]
        self.delivery = Delivery(
            config, Deliveries(self.registry), Metrics(self.registry), clients=self.fakes,
            now_s=lambda: self.s, now_ns=lambda: T0_NS + int(self.s * 1e9),
        )  # fmt: skip

    def put(self, *documents, owner=None):
        for one in documents:
            self.delivery.incident(one, owner)

    def turn(self, seconds=0.0):
        self.s += seconds
        for courier in self.delivery.couriers:
            while courier.turn() <= 0:
                pass

    def run(self, seconds):
        """Time goes by, a second at a time."""
        for _ in range(int(seconds)):
            self.turn(1)

    def sent(self, server=0):
        return [one for post in self.fakes[server].posts for one in post]

    def moved(self):
        return {
            (s.name.removeprefix("poolwatch_"), *s.labels.values()): s.value
            for family in self.registry.collect()
            for s in family.samples
            if s.value and not s.name.endswith(("_created", "_timestamp_seconds"))
        }


def told(one):
    return one["labels"]["severity"], "resolved" if "endsAt" in one else "firing"


# -- words -----------------------------------------------------------------------------------------


def test_an_alert_says_who_what_how_sure_and_what_next():
    config = Alertmanager(
        site="north", dashboard_url="https://g/d?ip={subscriber}", runbook_url="https://d/{alertname}.md"
    )
    given = document()
    known = Known(labels(given, "page", "north"), given.first_seen)
    assert alert(given, "page", known, None, config) == {
        "labels": {
            "alertname": "PoolwatchMinerConfirmed", "severity": "page", "subscriber": "198.51.100.1",
            "incident": "0000000000000001", "coin": "XMR", "operator": "Example", "sector": "university",
            "city": "Leeds", "site": "north",
        },
        "annotations": {
            "summary": "198.51.100.1 (Physics) mines: XMR",
            "description": (
                "Belief 0.9998 that it mines. What was seen:\n"
                "- monero: pool 203.0.113.5:3333 accepted a share of rig-7 "
                "[share_accepted, monero, 3 times, last 2026-11-22T10:05:00.000000Z]\n"
                "Services: 203.0.113.5:3333 (pool.example)\nWorkers: rig-7\nPrograms: XMRig/6.21\n"
                "Shares: 3 accepted, 0 verified\nTraffic: 1000 octets up, 2000 down\n"
                "Seen: 2026-11-22T10:00:00.000000Z to 2026-11-22T10:05:00.000000Z"
            ),
            "next_step": "Find the host behind this address and its owner.",
            "dashboard_url": "https://g/d?ip=198.51.100.1",
            "runbook_url": "https://d/PoolwatchMinerConfirmed.md",
        },
        "startsAt": "2026-11-22T10:00:00.000000Z",
        "generatorURL": "https://g/d?ip=198.51.100.1",
    }  # fmt: skip
    over = alert(given, "page", known, "2026-11-22T11:00:00.000Z", config)
    assert over["endsAt"] == "2026-11-22T11:00:00.000Z"


def test_what_is_not_known_is_unknown_and_not_left_out():
    got = labels(document(coins=(), services=(), place=None), "ticket")
    assert {got[n] for n in ("coin", "operator", "sector", "city")} == {"unknown"}
    assert "site" not in got


def test_text_from_the_wire_is_one_printable_short_line():
    evil = "x\r\n\x1b[31m\u202egnp{{ .Evil }}" + "A" * 5000
    given = document(
        workers=(evil,) * 9, agents=(evil,), coins=(evil,), evidence=tuple(line(evil) for _ in range(50))
    )
    told = annotations(given, "page", Alertmanager())
    assert len(told["description"]) <= 2000
    assert len(told["summary"]) <= 240
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", told["description"] + told["summary"])
    assert told["description"].count("\n") < 20
    assert all(len(value) <= 80 and value.isprintable() for value in labels(given, "page").values())


@pytest.mark.parametrize(
    "url",
    [
        "",
        "here",
        "ftp://a",
        "http://",
        "http://user:word@a",
        "http://a:99999",
        "http://a/?q=1",
        "http://a..b",
        "http://a b",
    ],
)
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match=r"alertmanager\.urls"):
        Server(url, Alertmanager())


@pytest.mark.parametrize("key", ["dashboard_url", "runbook_url"])
def test_a_link_that_alertmanager_would_refuse_is_refused_at_the_start(key):
    with pytest.raises(ConfigError, match=key):
        servers(Alertmanager(**{key: "grafana/d?ip={subscriber}"}))


def test_an_end_is_never_before_the_beginning():
    given = document()
    known = Known(labels(given, "page"), "2026-11-22T11:00:00.000Z")
    over = alert(given, "page", known, "2026-11-22T10:00:00.000Z", Alertmanager())
    assert over["startsAt"] == over["endsAt"] == "2026-11-22T10:00:00.000Z"


class Answers:
    """A server that answers one request with these octets, one in so many seconds."""

    def __init__(self, answer, every_s=0.0):
        self._answer, self._every_s = answer, every_s
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._thread.join(10)
        self._socket.close()

    def _run(self):
        peer, _ = self._socket.accept()
        with peer:
            peer.recv(65536)
            try:
                for octet in self._answer if self._every_s else ():
                    peer.sendall(bytes([octet]))
                    time.sleep(self._every_s)
                peer.sendall(b"" if self._every_s else self._answer)
                peer.shutdown(socket.SHUT_WR)
                # What is closed unread resets the connection, and takes the answer away.
                peer.settimeout(5)
                while peer.recv(65536):
                    pass
            except OSError:
                return


def test_an_answer_that_drips_does_not_hold_the_courier():
    answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 400
    with Answers(answer, 0.02) as away:  # 8 s
        began = time.monotonic()
        with pytest.raises(DeliveryError, match="TimeoutError") as caught:
            Server(away.url, Alertmanager(timeout_s=1)).post([])
        assert caught.value.again
        assert time.monotonic() - began < 6


@pytest.mark.parametrize(
    "body",
    [
        b"<html>", b"[", b"\xff", b"{}", b"[1]", b'[{"labels": 1, "startsAt": ""}]', b"[" * 100_000,
        b'[{"labels": {"alertname": [], "severity": [], "subscriber": {}, "incident": {}}, "startsAt": 1}]',
    ],
)  # fmt: skip
def test_an_answer_that_is_garbage_finds_nothing(body):
    with Answers(b"HTTP/1.1 200 OK\r\n\r\n" + body) as odd:
        assert Server(odd.url, Alertmanager(timeout_s=2)).find(["198.51.100.1"]) == []


def test_a_prefix_beyond_ascii_is_sent_quoted():
    with Answers(b"HTTP/1.1 200 OK\r\n\r\n[]") as odd:
        Server(f"{odd.url}/\u00fc", Alertmanager(timeout_s=2)).post([])


def test_a_password_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="password_file"):
        Server("http://a", Alertmanager(username="u", password_file=str(tmp_path / "none")))
    with pytest.raises(ConfigError, match="ca_file"):
        Server("https://a", Alertmanager(ca_file=str(tmp_path / "none")))


# -- what is told, and when ------------------------------------------------------------------------


def test_one_alert_an_incident_told_again_every_minute_and_ended_once():
    site = Site()
    site.put(document())
    site.turn()
    assert [told(one) for one in site.sent()] == [("page", "firing")]
    site.run(300)
    again = len(site.sent())
    assert 5 <= again <= 7
    assert len({json.dumps([one["labels"], one["startsAt"]]) for one in site.sent()}) == 1
    site.put(document(state=State.RESOLVED))
    site.run(120)
    assert [told(one) for one in site.sent()[again:]] == [("page", "resolved")]
    assert site.delivery.board.waiting(0) == len(site.delivery.board) == 0
    assert site.moved() == {("alert_deliveries_total", "alertmanager", "delivered"): again + 1}


def test_identity_stays_as_it_was_while_words_are_the_latest():
    site = Site()
    site.put(document(coins=(), place=None))
    site.turn()
    site.put(document(belief=0.5, first_seen="2026-11-22T09:00:00.000000Z"))
    site.run(70)
    first, second, *_ = site.sent()
    assert first["labels"] == second["labels"]
    assert first["startsAt"] == second["startsAt"]
    assert "Belief 0.5000" in second["annotations"]["description"]


def test_a_suspicion_that_is_confirmed_ends_its_ticket_and_opens_one_page():
    site = Site()
    site.put(document(state=State.SUSPECTED))
    site.turn()
    site.put(document())
    site.turn()
    assert [told(one) for one in site.sent()] == [
        ("ticket", "firing"), ("page", "firing"), ("ticket", "resolved"),
    ]  # fmt: skip
    assert [one["labels"].get("after") for one in site.sent()] == [None, "ticket", None]


@pytest.mark.parametrize("state", [State.QUIET, State.RESOLVED])
def test_what_came_and_went_before_it_was_told_is_not_told(state):
    site = Site()
    site.put(document(), document(state=state))
    site.turn()
    assert site.sent() == []
    assert len(site.delivery.board) == 0


def test_a_detector_that_begins_again_tells_the_same_alert():
    before = Site()
    before.put(document(coins=()))
    before.turn()
    after = Site(fakes=before.fakes)
    after.put(document(first_seen="2026-11-22T09:59:00.000000Z"))
    after.turn()
    first, second = after.sent()
    assert (first["labels"], first["startsAt"]) == (second["labels"], second["startsAt"])
    # Without memory it is another incident, of the same subscriber.
    anew = Site(fakes=before.fakes)
    anew.put(document(id="f" * 16))
    anew.turn()
    assert anew.sent()[-1]["labels"] == first["labels"]
    anew.put(document(id="f" * 16, state=State.RESOLVED))
    anew.turn()
    assert before.fakes[0].fires == {}


def test_a_ticket_that_a_dead_detector_left_is_ended_by_the_next():
    before = Site()
    before.put(document(state=State.SUSPECTED))
    before.turn()
    after = Site(fakes=before.fakes)
    after.put(document())
    after.turn()
    assert [told(one) for one in after.sent()[1:]] == [("page", "firing"), ("ticket", "resolved")]


def test_a_new_incident_does_not_take_the_alert_of_one_that_ends():
    site = Site()
    site.put(document())
    site.turn()
    site.put(document(state=State.RESOLVED), document(id="f" * 16))
    site.turn()
    assert {k.labels["incident"] for k in site.fakes[0].fires.values()} == {"f" * 16}


def test_a_partition_that_is_anothers_is_told_no_more_and_not_ended():
    site = Site()
    site.put(document(1), owner="mine")
    site.put(document(2), document(3), owner="given")
    site.turn()
    site.put(document(3, state=State.RESOLVED), owner="given")
    site.delivery.forget("given")
    site.run(90)
    later = site.sent()[3:]
    assert {(one["labels"]["subscriber"], *told(one)) for one in later} == {
        ("198.51.100.1", "page", "firing"), ("198.51.100.3", "page", "resolved"),
    }  # fmt: skip


def test_what_is_given_away_while_the_server_is_asked_is_neither_told_nor_ended():
    before = Site()
    before.put(document(), owner="given")
    before.turn()
    after = Site(fakes=before.fakes)
    after.put(document(), document(2), owner="given")
    find = after.fakes[0].find

    def asked(subscribers):
        after.delivery.forget("given")
        return find(subscribers)

    after.fakes[0].find = asked
    after.turn()
    after.run(5)
    assert [told(one) for one in after.sent()] == [("page", "firing")]


def test_a_startsat_of_the_future_is_now():
    site = Site()
    site.put(document(first_seen="2126-11-22T10:00:00.000000Z"))
    site.turn()
    assert site.sent()[0]["startsAt"] < "2127"
    assert site.sent()[0]["startsAt"].startswith("2026")


# -- what becomes of it ----------------------------------------------------------------------------


def test_a_server_that_is_away_is_tried_again_ever_more_slowly_then_told_the_latest():
    site = Site(Alertmanager(resend_s=60, retries=10, retry_first_s=1, retry_most_s=4))
    site.fakes[0].error = DeliveryError("refused", again=True)
    site.put(document(1), document(2, state=State.SUSPECTED), document(3))
    site.run(10)
    site.put(document(2), document(3, state=State.RESOLVED))
    site.run(5)
    retried = site.moved()["alert_deliveries_total", "alertmanager", "retried"]
    assert 10 <= retried <= 25
    site.fakes[0].error = None
    site.run(5)
    # What was tried and may have arrived is ended where it fires; where it does not, it is forgotten.
    assert sorted((one["labels"]["subscriber"], *told(one)) for one in site.sent()) == [
        ("198.51.100.1", "page", "firing"), ("198.51.100.2", "page", "firing"),
    ]  # fmt: skip
    assert site.moved() == {
        ("alert_deliveries_total", "alertmanager", "delivered"): 2,
        ("alert_deliveries_total", "alertmanager", "retried"): retried,
    }


def test_retries_are_bounded_and_what_fires_has_its_turn_again():
    site = Site()
    site.fakes[0].error = DeliveryError("refused", again=True)
    site.put(document())
    site.run(25)
    assert site.moved() == {
        ("alert_deliveries_total", "alertmanager", "retried"): 3,
        ("alert_deliveries_total", "alertmanager", "failed"): 1,
    }
    site.fakes[0].error = None
    site.run(60)
    assert [told(one) for one in site.sent()][:1] == [("page", "firing")]


def test_what_is_refused_for_good_is_not_tried_again_at_once():
    site = Site()
    site.put(document())
    site.turn()
    site.fakes[0].error = DeliveryError("status 400", again=False)
    site.put(document(state=State.RESOLVED))
    site.run(5)
    assert site.moved()["alert_deliveries_total", "alertmanager", "failed"] == 1
    assert ("alert_deliveries_total", "alertmanager", "retried") not in site.moved()


def test_an_end_that_nobody_takes_is_given_up_after_an_hour():
    site = Site()
    site.put(document())
    site.turn()
    site.fakes[0].error = DeliveryError("refused", again=True)
    site.put(document(state=State.RESOLVED))
    site.run(300)
    assert len(site.delivery.board) == 1
    site.s += ENDED_NS / 1e9
    site.run(300)
    assert len(site.delivery.board) == 0


def test_a_courier_that_meets_a_bug_of_ours_says_so_and_goes_on(caplog):
    site = Site()
    site.fakes[0].error = ZeroDivisionError("ours")
    site.put(document())
    site.turn()
    assert "ZeroDivisionError: ours" in caplog.text
    assert "Traceback" in caplog.text
    assert site.moved() == {("alert_deliveries_total", "alertmanager", "failed"): 1}
    site.fakes[0].error = None
    site.run(60)
    assert [told(one) for one in site.sent()][:1] == [("page", "firing")]


def test_what_comes_and_goes_while_a_server_is_away_is_not_kept():
    site = Site(Alertmanager(most_incidents=10))
    site.fakes[0].error = DeliveryError("refused", again=True)
    for n in range(500):
        site.put(*(document(1, state, id=f"{n:016x}") for state in (State.CONFIRMED, State.RESOLVED)))
    assert site.delivery.board.waiting(0) == len(site.delivery.board) <= 30


def test_one_of_two_servers_may_be_away():
    site = Site(servers=2)
    site.fakes[0].error = DeliveryError("refused", again=True)
    site.put(document())
    site.turn()
    assert [told(one) for one in site.sent(1)] == [("page", "firing")]
    site.fakes[0].error = None
    site.run(5)
    assert site.sent(0)[0]["labels"] == site.sent(1)[0]["labels"]


def test_an_outbreak_goes_in_batches_pages_first_and_is_spread_when_told_again():
    site = Site()
    site.put(*(document(n, state=State.SUSPECTED) for n in range(1, 101)))
    site.put(document(101))
    assert site.delivery.board.waiting(0) == 101
    site.turn()
    posts = site.fakes[0].posts
    assert max(map(len, posts)) == 10
    assert posts[0][0]["labels"]["severity"] == "page"
    assert len(site.sent()) == 101
    first = len(posts)
    site.run(62)
    again = [len(post) for post in posts[first:]]
    assert sum(again) >= 101
    assert len(again) > 15, "told again at times of their own"


def test_memory_is_bounded_a_page_takes_the_place_of_a_ticket_and_the_dropped_are_counted():
    site = Site(Alertmanager(most_incidents=3))
    site.put(*(document(n, state=State.SUSPECTED) for n in range(1, 6)), document(6))
    site.turn()
    assert {one["labels"]["subscriber"][-1] for one in site.sent()} == {"2", "3", "6"}
    assert site.moved()["alert_deliveries_total", "alertmanager", "dropped"] == 3


# -- quiet -----------------------------------------------------------------------------------------


def test_who_is_allowed_does_not_page_until_the_row_expires_and_is_counted():
    site = Site()
    row = Allowed(network=ip_network("198.51.100.1"), reason="lab", expires_ns=T0_NS + 1100 * 10**9)
    site.delivery.hush(Quiet([row]))
    site.put(document(), document(2))
    site.turn()
    assert [one["labels"]["subscriber"] for one in site.sent()] == ["198.51.100.2"]
    assert site.moved()["alerts_quieted", "allow"] == 1
    site.run(101)
    assert "198.51.100.1" in {one["labels"]["subscriber"] for one in site.sent()}
    assert ("alerts_quieted", "allow") not in site.moved()


def test_a_clock_that_is_set_back_has_the_lists_asked_again():
    site = Site()
    row = Allowed(network=ip_network("198.51.100.1"), reason="lab", expires_ns=T0_NS + 1100 * 10**9)
    site.delivery.hush(Quiet([row]))
    site.put(document())
    site.s += 1000
    site.turn()
    site.s -= 1000
    site.run(2)
    assert [told(one) for one in site.sent()] == [("page", "firing"), ("page", "resolved")]


def test_what_fires_ends_when_a_list_covers_it_and_begins_again_after_the_window():
    site = Site()
    site.put(document())
    site.turn()
    begins, ends = (T0_NS + int((site.s + s) * 1e9) for s in (5, 10))
    site.delivery.hush(Quiet((), [Window(from_ns=begins, to_ns=ends, sector="university", reason="works")]))
    site.run(7)
    assert [told(one) for one in site.sent()] == [("page", "firing"), ("page", "resolved")]
    assert site.moved()["alerts_quieted", "maintenance"] == 1
    site.run(5)
    assert told(site.sent()[-1]) == ("page", "firing")
    assert site.sent()[-1]["labels"] == site.sent()[0]["labels"]


def test_a_resolved_incident_is_no_longer_counted_as_quiet():
    site = Site()
    site.delivery.hush(Quiet((), [Window(from_ns=0, to_ns=1 << 62, reason="works")]))
    site.put(document(), document(state=State.RESOLVED))
    site.turn()
    assert site.sent() == []
    assert site.moved() == {}
